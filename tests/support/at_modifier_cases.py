"""The same query with `@ <t>` on every selector, asked at other times: the answer may not change."""

from __future__ import annotations

from dataclasses import replace

from mimir_ingest.promql.nodes import (
    AggregateExpr,
    BinaryExpr,
    Call,
    Expr,
    MatrixSelector,
    ParenExpr,
    SubqueryExpr,
    UnaryExpr,
    VectorSelector,
    walk,
)
from mimir_ingest.promql.parse_error import ParseError
from mimir_ingest.promql.parser import parse_expr
from mimir_ingest.promql.printer import format_expr

_DEPEND_ON_TIME = {
    "days_in_month",
    "day_of_month",
    "day_of_week",
    "day_of_year",
    "end",
    "hour",
    "minute",
    "month",
    "year",
} | {"predict_linear", "range", "start", "step", "time", "timestamp"}
"""Functions whose result changes with the evaluation time although their argument does not."""


def at_modifier_cases(expr: str, at_ms: int) -> list[tuple[str, int]]:
    """Return (query, time) pairs that must give the same answer as `expr` at `at_ms`."""
    try:
        root = parse_expr(expr)
    except ParseError:
        return []
    nodes = list(_outside_fixed_subqueries(root))
    if any(isinstance(node, Call) and node.func.name in _DEPEND_ON_TIME for node in nodes):
        return []
    fixed = format_expr(_fix(root, at_ms))
    times = [-10 * at_ms, 0, at_ms // 5, at_ms, 10 * at_ms] if at_ms else [-1000, 0, 1000]
    return [(fixed, time_ms) for time_ms in times]


def _outside_fixed_subqueries(root: Expr) -> list[Expr]:
    hidden: set[int] = set()
    seen = []
    for node in walk(root):
        if id(node) in hidden:
            continue
        seen.append(node)
        if isinstance(node, SubqueryExpr):
            hidden.update(id(inner) for inner in walk(node.expr))
    return seen


def _fix(node: Expr, at_ms: int) -> Expr:
    match node:
        case VectorSelector():
            return node if node.timestamp_ms is not None else replace(node, timestamp_ms=at_ms, start_or_end=None)
        case MatrixSelector():
            selector = _fix(node.selector, at_ms)
            assert isinstance(selector, VectorSelector)
            return replace(node, selector=selector)
        case SubqueryExpr():
            # Selectors inside are left alone: the subquery's own time decides.
            return node if node.timestamp_ms is not None else replace(node, timestamp_ms=at_ms, start_or_end=None)
        case Call():
            return replace(node, args=tuple(_fix(arg, at_ms) for arg in node.args))
        case AggregateExpr():
            param = None if node.param is None else _fix(node.param, at_ms)
            return replace(node, expr=_fix(node.expr, at_ms), param=param)
        case BinaryExpr():
            return replace(node, lhs=_fix(node.lhs, at_ms), rhs=_fix(node.rhs, at_ms))
        case ParenExpr() | UnaryExpr():
            return replace(node, expr=_fix(node.expr, at_ms))
        case _:
            return node
