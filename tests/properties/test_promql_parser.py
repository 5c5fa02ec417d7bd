"""Random queries: what prints parses to the same tree, and every text is either read or refused."""

import json
import re
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from mimir_ingest.promql.ast_json import to_json
from mimir_ingest.promql.lexer import Lexer
from mimir_ingest.promql.nodes import walk
from mimir_ingest.promql.parse_error import ParseError
from mimir_ingest.promql.parser import encode_query, parse_expr
from mimir_ingest.promql.prettier import prettify
from mimir_ingest.promql.printer import format_expr
from tests.support.query_texts import QUERIES

CORPUS = Path(__file__).parents[1] / "conformance" / "promql-parser" / "promql-parser.jsonl"
INPUTS = [json.loads(line)["input"] for line in CORPUS.read_text().splitlines()]
PIECES = sorted({piece for text in INPUTS for piece in re.findall(r"\w+|\s+|[^\w\s]", text)})


def meaning(value: object) -> object:
    """Return a syntax tree's JSON with the matchers of every selector sorted: printing does not keep their order."""
    if isinstance(value, dict):
        return {key: sorted(map(str, inner)) if key == "matchers" else meaning(inner) for key, inner in value.items()}
    return list(map(meaning, value)) if isinstance(value, list) else value


@settings(max_examples=400)
@given(QUERIES)
def test_the_print_of_a_query_parses_to_the_same_tree(text):
    node = parse_expr(text)
    printed = format_expr(node)
    again = parse_expr(printed)
    assert format_expr(again) == printed
    assert meaning(to_json(again)) == meaning(to_json(node))
    assert [type(inner) for inner in walk(again)] == [type(inner) for inner in walk(node)]
    assert format_expr(parse_expr(prettify(node))) == printed


def read_or_refuse(text: str) -> None:
    """Parse; check the error, or the walks and the positions."""
    refusal = None
    try:
        node = parse_expr(text)
    except ParseError as error:
        refusal = error
    if refusal is not None:
        assert re.match(r"(\d+:\d+|unknown position): parse error: .", refusal.message)
        assert refusal.message.encode()
        return
    size = len(encode_query(text))
    assert format_expr(node)
    assert prettify(node)
    assert json.dumps(to_json(node))
    for inner in walk(node):
        assert 0 <= inner.pos.start <= inner.pos.end <= size


MUTATIONS = st.lists(
    st.tuples(
        st.integers(0, 400), st.integers(0, 12), st.one_of(st.just(""), st.sampled_from(PIECES), st.text(max_size=4))
    ),
    min_size=1,
    max_size=6,
)


@settings(max_examples=1500)
@given(st.one_of(QUERIES, st.sampled_from(INPUTS)), MUTATIONS)
def test_a_mutated_query_is_read_or_refused_and_nothing_else(text, mutations):
    for at, length, piece in mutations:
        at = min(at, len(text))
        text = text[:at] + piece + text[at + length :]
    read_or_refuse(text)


@settings(max_examples=300)
@given(st.text(alphabet=st.sampled_from(" \n#\"'`\\x019ae_.:{}[]()=!~<>+-é,"), max_size=200))
def test_lexing_takes_no_more_steps_than_there_are_bytes(text):
    lexer, tokens, at = Lexer(text.encode()), 0, 0
    try:
        while lexer.next()[0] != "end of input":
            tokens += 1
            assert lexer.at > at
            at = lexer.at
    except ParseError:
        pass
    assert tokens <= len(text.encode())


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(data):
    read_or_refuse(data.decode("utf-8", "surrogateescape"))
