"""What stands after an operand: ranges and subqueries, `offset`, `@`, `anchored` and `smoothed`."""

from __future__ import annotations

import math
from dataclasses import replace

from mimir_ingest.promql.duration_parser import (
    parse_offset_duration,
    parse_positive_duration,
)
from mimir_ingest.promql.lexer import DURATION, NUMBER
from mimir_ingest.promql.literals import go_int64, go_round, seconds_to_ns
from mimir_ingest.promql.nodes import (
    DurationExpr,
    Expr,
    MatrixSelector,
    NumberLiteral,
    PosRange,
    SubqueryExpr,
    VectorSelector,
)
from mimir_ingest.promql.number_text import format_fixed
from mimir_ingest.promql.token_stream import TokenStream

POSTFIX = frozenset(("[", "offset", "@", "anchored", "smoothed"))
"""Tokens that begin a modifier."""

_AT_CONTEXT = ("@", "timestamp")
_KINDS = "an instant vector selector or range vector selector or a subquery"
_INT64_BOUND = float(1 << 63)

Modified = VectorSelector | SubqueryExpr


def parse_postfix(stream: TokenStream, node: Expr) -> Expr:
    """Parse one modifier after `node` and return the modified node."""
    kind = stream.peek()
    if kind == "[":
        return _range_or_subquery(stream, node)
    if kind == "offset":
        return _offset(stream, node)
    if kind == "@":
        return _at(stream, node)
    return _extended(stream, node)


def _split(duration: NumberLiteral | DurationExpr) -> tuple[int, DurationExpr | None]:
    """Return (nanoseconds, expression), one of them empty."""
    if isinstance(duration, NumberLiteral):
        return seconds_to_ns(duration.value), None
    return 0, duration


def _range_or_subquery(stream: TokenStream, node: Expr) -> MatrixSelector | SubqueryExpr:
    opening = stream.take()[1]
    span = parse_positive_duration(stream, "subquery or range selector", "number, duration, step(), or range()")
    range_ns, range_expr = _split(span)
    kind = stream.peek()
    if kind == "]":
        stream.take()
        return _matrix_selector(stream, node, range_ns, range_expr, opening)
    if kind != ":":
        stream.unexpected("subquery or range", '":" or "]"')
    stream.take()
    step_ns, step_expr = 0, None
    if stream.peek() != "]":
        step = parse_positive_duration(stream, "subquery selector", 'number, duration, step(), range(), or "]"')
        step_ns, step_expr = _split(step)
    stream.expect("]", "subquery selector", '"]"')
    return SubqueryExpr(node, range_ns, range_expr, step_ns, step_expr, pos=PosRange(node.pos.start, stream.closing))


def _matrix_selector(
    stream: TokenStream, node: Expr, range_ns: int, range_expr: DurationExpr | None, opening: int
) -> MatrixSelector:
    if not isinstance(node, VectorSelector):
        raise stream.fail(opening, "ranges only allowed for vector selectors")
    if node.offset_ns or node.offset_expr is not None:
        raise stream.fail(opening, "no offset modifiers allowed before range")
    if node.timestamp_ms is not None or node.start_or_end is not None:
        raise stream.fail(opening, "no @ modifiers allowed before range")
    return MatrixSelector(node, range_ns, range_expr, PosRange(node.pos.start, stream.closing))


def _modified(stream: TokenStream, node: Expr, complaint: str) -> Modified:
    """Return the node that carries the modifiers of `node`."""
    if isinstance(node, MatrixSelector):
        return node.selector
    if isinstance(node, VectorSelector | SubqueryExpr):
        return node
    raise stream.fail(node.pos.start, f"{complaint} must be preceded by {_KINDS}")


def _put_back(node: Expr, made: Modified, end: int) -> Expr:
    if isinstance(node, MatrixSelector):
        return replace(node, selector=made, pos=PosRange(node.pos.start, end))
    return replace(made, pos=PosRange(node.pos.start, end))


def _offset(stream: TokenStream, node: Expr) -> Expr:
    stream.take()
    offset_ns, offset_expr = _split(parse_offset_duration(stream))
    target = _modified(stream, node, "offset modifier")
    if target.offset_ns or target.offset_expr is not None:
        raise stream.fail(node.pos.start, "offset may not be set multiple times")
    return _put_back(node, replace(target, offset_ns=offset_ns, offset_expr=offset_expr), stream.closing)


def _at(stream: TokenStream, node: Expr) -> Expr:
    stream.take()
    kind = stream.peek()
    if kind in ("start", "end"):
        stream.take()
        stream.expect("(", *_AT_CONTEXT)
        stream.expect(")", *_AT_CONTEXT)
        target = _without_at(stream, node)
        return _put_back(node, replace(target, start_or_end=kind), stream.closing)
    sign = 1.0
    if kind in ("+", "-"):
        sign = -1.0 if stream.take()[0] == "-" else 1.0
    if stream.peek() not in (NUMBER, DURATION):
        stream.unexpected(*_AT_CONTEXT)
    at_s = sign * stream.number().value
    if not math.isfinite(at_s) or abs(at_s) >= _INT64_BOUND:
        raise stream.fail(node.pos.start, f"timestamp out of bounds for @ modifier: {format_fixed(at_s)}")
    target = _without_at(stream, node)
    return _put_back(node, replace(target, timestamp_ms=go_int64(go_round(at_s * 1000))), stream.closing)


def _without_at(stream: TokenStream, node: Expr) -> Modified:
    target = _modified(stream, node, "@ modifier")
    if target.timestamp_ms is not None or target.start_or_end is not None:
        raise stream.fail(node.pos.start, "@ <timestamp> may not be set multiple times")
    return target


def _extended(stream: TokenStream, node: Expr) -> Expr:
    kind = stream.take()[0]
    if isinstance(node, SubqueryExpr):
        raise stream.fail(node.pos.start, f"{kind} modifier is not supported for subqueries")
    if not isinstance(node, VectorSelector | MatrixSelector):
        raise stream.fail(node.pos.start, f"{kind} modifier not implemented")
    selector = node if isinstance(node, VectorSelector) else node.selector
    anchored, smoothed = selector.anchored or kind == "anchored", selector.smoothed or kind == "smoothed"
    if anchored and smoothed:
        raise stream.fail(node.pos.start, "anchored and smoothed modifiers cannot be used together")
    made = replace(selector, anchored=anchored, smoothed=smoothed)
    return replace(node, selector=made) if isinstance(node, MatrixSelector) else made
