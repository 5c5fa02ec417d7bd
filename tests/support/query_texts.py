"""PromQL from a grammar: hypothesis strategies that make well-typed queries of every construct.

`QUERIES` gives any type; `VECTORS` and `SCALARS` one. Numbers are positive where the canonical print of a sign would
parse differently (Prometheus prints `--1` for a negated negative number).
"""

from __future__ import annotations

import re

from hypothesis import strategies as st

from mimir_ingest.promql.functions_table import AGGREGATIONS, FUNCTIONS, PARAMETER_AGGREGATIONS
from mimir_ingest.promql.nodes import ValueType

_names = st.sampled_from(
    ["foo", "bar:rate5m", "up", "sum", "by", "offset", "start", "fill", "anchored", "max_of", "or"]
)
_label = st.sampled_from(["a", "job", "le", "sum", "on", "bool", "inf_", '"a.b"', "'é'", "`x y`"])
_quoted_label = st.sampled_from(['"a.b"', "'é'", "`x y`", '"__name"'])
_string = st.one_of(
    st.sampled_from(['""', "''", r'"\""', r"'\''", r'"\n\t\\"', r'"\xff"', r'"\u00e9\U0001F600"', "`a\\b`", '"#"']),
    st.text(st.characters(exclude_characters="`\ufffd", exclude_categories=["Cs"]), max_size=5).map(lambda t: f"`{t}`"),
)
_plain_label = st.sampled_from(["a", "job", "le", "sum", "on", "bool"])
_matcher = st.one_of(
    st.tuples(st.one_of(_plain_label, _quoted_label), st.sampled_from(["=", "!="]), _string).map("".join),
    st.tuples(_plain_label, st.sampled_from(["=~", " !~ "]), st.sampled_from(['"a|b"', '".*"', "`\\d+`"])).map("".join),
)
_labels = st.lists(_label, max_size=3).map(lambda labels: f"({', '.join(labels)})")
_number = st.sampled_from(
    ["0", "1", "2.5", ".5", "1e3", "0x1F", "017", "1_000", "Inf", "5m", "1h30m", "1d", "3ms", "1e-9"]
)
_literal = st.sampled_from(["5m", "1h30m", "300", "1.5", "1y", "90s", "2w"])
_duration = st.recursive(
    st.one_of(_literal, st.just("step()"), st.just("range()")),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from([" + ", "-", "*", " / ", "%", "^"]), _literal).map("".join),
        st.tuples(st.sampled_from(["min_of", "max_of"]), inner, inner).map(lambda t: f"{t[0]}({t[1]}, {t[2]})"),
        inner.map(lambda text: f"({text})"),
    ),
    max_leaves=4,
)
_offset = st.one_of(
    st.sampled_from(["5m", "-5m", "- 1h", "+300", "step()", "-step()", "-(5m + 1m)", "max_of(5m, step())"]),
    _duration.map(lambda text: f"({text})"),
)
_time = st.one_of(
    st.just(""),
    _offset.map(lambda offset: f" offset {offset}"),
    st.sampled_from([" @ 1.5", " @ start()", " @end()", " @ -3", " @ 10 offset 5m", " offset -5m @ end()"]),
)
_extended = st.sampled_from(["", "", "", " anchored", " smoothed"])
_braces = st.lists(_matcher, min_size=1, max_size=3).map(lambda matchers: "{" + ",".join(matchers) + "}")
_selector = st.one_of(
    _names,
    st.tuples(_names, _braces).map("".join),
    st.just('{"x.y", a!="b"}'),
    st.just('{__name__=~"a.+"}'),
)
_vector_selector = st.tuples(_selector, _extended, _time).map("".join)
_matrix_selector = st.tuples(_selector, _duration, _extended, _time).map(lambda t: f"{t[0]}[{t[1]}]{t[2]}{t[3]}")

_ARITHMETIC = [" + ", "-", " * ", "/", "%", "^", " atan2 ", " </ ", " >/ "]
_COMPARE = [" == ", "!=", " < ", "<=", " > ", ">="]
_MATCHING = ["", "on (a)", "ignoring(job, le)", 'on ("a.b") group_left (b)', "ignoring (a) group_right ()", "on()"]
_FILL = ["", "", " fill (0)", " fill_left(-1.5)", " fill_right (5m) fill_left(inf)"]


_ATOM = re.compile(r"[\w:.]+|[\w:]*\([^()]*\)")
_chain = st.lists(
    st.tuples(
        st.sampled_from(["", "", "-", "+", "--"]),
        st.sampled_from(["foo", "up", "start", "sum(bar) by (a)", "x offset 5m"]),
        st.sampled_from([*_ARITHMETIC, *_COMPARE, " == bool ", " and ", " or ", " unless ", " * on(a) "]),
    ),
    min_size=1,
    max_size=8,
).map(lambda parts: "".join(f"{sign}{operand}{operator}" for sign, operand, operator in parts) + "last")
"""Operators without parentheses, for precedence and associativity."""


def _operand(text: str) -> str:
    return text if _ATOM.fullmatch(text) else f"({text})"


def _compose(expressions: st.SearchStrategy[tuple[str, str]]) -> st.SearchStrategy[tuple[str, str]]:
    """Build larger (type, text) pairs from smaller ones."""

    def of(kind: str) -> st.SearchStrategy[str]:
        return expressions.filter(lambda pair: pair[0] == kind).map(lambda pair: pair[1])

    vector, scalar = of("vector"), of("scalar")
    by_type = {ValueType.VECTOR: vector, ValueType.SCALAR: scalar, ValueType.STRING: _string}
    matrix = st.one_of(
        _matrix_selector,
        st.tuples(vector, _duration, st.one_of(st.just(""), _duration), _time).map(
            # A digit has to come before the colon, or Prometheus's lexer takes the colon for misplaced.
            lambda t: f"({t[0]})[1m + {t[1]}:{t[2]}]{t[3]}"
        ),
    )
    by_type[ValueType.MATRIX] = matrix
    names = sorted(name for name in FUNCTIONS if name != "info")

    def call(name: str) -> st.SearchStrategy[tuple[str, str]]:
        function = FUNCTIONS[name]
        args = st.tuples(*(by_type[arg] for arg in function.arg_types)).map(", ".join)
        return args.map(lambda text: (str(function.return_type), f"{name}({text})"))

    def aggregate(op: str) -> st.SearchStrategy[tuple[str, str]]:
        param = st.just("")
        if op in PARAMETER_AGGREGATIONS:
            param = (_string if op == "count_values" else scalar).map(lambda text: f"{text}, ")
        how = st.one_of(st.just(""), st.tuples(st.sampled_from([" by ", " without"]), _labels).map("".join))
        return st.tuples(how, param, vector, st.booleans()).map(
            lambda t: ("vector", f"{op}{t[0]} ({t[1]}{t[2]})" if t[3] else f"{op}({t[1]}{t[2]}){t[0]}")
        )

    def join(parts: tuple[tuple[str, str], str, str, str, tuple[str, str]]) -> tuple[str, str]:
        (left, lhs), op, matching, fill, (right, rhs) = parts
        lhs, rhs = _operand(lhs), _operand(rhs)
        bool_modifier = " bool" if op in _COMPARE and left == right == "scalar" else ""
        if left == right == "vector":
            if op in (" and ", " or ", " unless "):
                matching, fill = matching.split(" group_")[0], ""
            return "vector", f"{lhs}{op}{bool_modifier} {matching}{fill} {rhs}"
        if op in (" and ", " or ", " unless "):
            op = "+"
        return "scalar" if left == right else "vector", f"{lhs}{op}{bool_modifier} {rhs}"

    operators = st.sampled_from([*_ARITHMETIC, *_COMPARE, " and ", " or ", " unless "])
    return st.one_of(
        st.sampled_from(names).flatmap(call),
        st.sampled_from(sorted(AGGREGATIONS)).flatmap(aggregate),
        st.tuples(expressions, operators, st.sampled_from(_MATCHING), st.sampled_from(_FILL), expressions).map(join),
        expressions.map(lambda pair: (pair[0], f"({pair[1]})")),
        vector.map(lambda text: ("vector", f"-{text}")),
        vector.map(lambda text: ("vector", f'info({text}, {{a="b"}})')),
    )


_TYPED = st.recursive(
    st.one_of(
        _vector_selector.map(lambda text: ("vector", text)),
        _number.map(lambda text: ("scalar", text)),
        _chain.map(lambda text: ("vector", text)),
    ),
    _compose,
    max_leaves=8,
)
VECTORS = _TYPED.filter(lambda pair: pair[0] == "vector").map(lambda pair: pair[1])
SCALARS = _TYPED.filter(lambda pair: pair[0] == "scalar").map(lambda pair: pair[1])
QUERIES = st.one_of(_TYPED.map(lambda pair: pair[1]), _matrix_selector, _string)
