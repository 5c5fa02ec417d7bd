"""Nesting is bounded and told apart from a crash; every walk holds at the bound."""

import sys

import pytest

from mimir_ingest.promql.ast_json import to_json
from mimir_ingest.promql.nodes import walk
from mimir_ingest.promql.parse_error import ParseError
from mimir_ingest.promql.parser import MAX_DEPTH, parse_expr, parse_metric_selector
from mimir_ingest.promql.prettier import prettify
from mimir_ingest.promql.printer import format_expr

NESTINGS = {
    "parentheses": lambda n: "(" * n + "x" + ")" * n,
    "signs": lambda n: "-" * n + "x",
    "left operands": lambda n: "x" + " + x" * n,
    "right operands": lambda n: "x" + " ^ x" * n,
    "calls": lambda n: "abs(" * n + "x" + ")" * n,
    "aggregations": lambda n: "sum(" * n + "x" + ")" * n,
    "range parentheses": lambda n: "x[" + "(" * n + "5m" + ")" * n + "]",
    "range signs": lambda n: "x[" + "-" * (n - 1) + "step()]",
    "range operands": lambda n: "x[1" + " + 1" * n + "]",
    "range functions": lambda n: "x[" + "max_of(1, " * (n - 1) + "5m" + ")" * (n - 1) + "]",
    "offset parentheses": lambda n: "x offset " + "(" * n + "5m" + ")" * n,
}


@pytest.mark.parametrize("name", NESTINGS)
def test_all_walks_hold_at_the_deepest_nesting_allowed(name):
    node = parse_expr(NESTINGS[name](MAX_DEPTH - 1))
    assert format_expr(parse_expr(format_expr(node))) == format_expr(node)
    assert format_expr(parse_expr(prettify(node))) == format_expr(node)
    assert to_json(node)["type"]
    assert sum(1 for _ in walk(node)) >= 1


@pytest.mark.parametrize("count", [MAX_DEPTH + 5, 100_000])
@pytest.mark.parametrize("name", [*NESTINGS, "subqueries", "unclosed"])
def test_deeper_nesting_is_a_parse_error(name, count):
    shapes = NESTINGS | {"subqueries": lambda n: "x" + "[5m:]" * n, "unclosed": lambda n: "sum((" * n}
    with pytest.raises(ParseError, match=f"nested deeper than the limit of {MAX_DEPTH} levels"):
        parse_expr(shapes[name](count))


def test_the_limit_is_a_parameter():
    query = "(" * 50 + "1" + ")" * 50
    assert parse_expr(query, max_depth=51)
    with pytest.raises(ParseError, match="limit of 50 levels"):
        parse_expr(query, max_depth=50)


def test_the_python_recursion_limit_is_left_alone():
    before = sys.getrecursionlimit()
    with pytest.raises(ParseError):
        parse_expr("(" * 100_000)
    assert sys.getrecursionlimit() == before


def test_many_arguments_and_matchers_are_no_nesting():
    count = 5_000
    assert len(parse_expr('label_join(x, "a", "b"' + ', "c"' * count + ")").args) == count + 3
    assert len(parse_metric_selector("{" + 'a="b",' * count + "}")) == count


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x +", "1:4: parse error: unexpected end of input"),
        ("x{a='\\xff'} y", '1:13: parse error: unexpected identifier "y"'),
        ("é", "1:1: parse error: unexpected character: 'é'"),
        ("'é' $", "1:6: parse error: unexpected character: '$'"),
        ("# é\nsum(x))", "2:8: parse error: unexpected right parenthesis ')'"),
    ],
)
def test_positions_count_lines_and_bytes(text, message):
    with pytest.raises(ParseError) as failure:
        parse_expr(text)
    assert failure.value.message == message
    assert (failure.value.error_type, failure.value.http_status) == ("bad_data", 400)


def test_text_that_is_no_utf8_is_read_byte_by_byte():
    broken = b'"a\xff"'.decode("utf-8", "surrogateescape")
    with pytest.raises(ParseError, match="invalid UTF-8 rune"):
        parse_expr(broken)
    with pytest.raises(ParseError, match="1:1: parse error: unexpected character: '\ufffd'"):
        parse_expr("\udcff")


@pytest.mark.parametrize("text", ["x offset 5m", "x[5m]", "sum(x)", "x y", "1", "", "x{a='b'} @ 5"])
def test_a_metric_selector_stands_alone(text):
    with pytest.raises(ParseError):
        parse_metric_selector(text)
