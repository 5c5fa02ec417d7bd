"""Nodes to JSON values, as `parse_query` answers (`web/api/v1/translate_ast.go` of Prometheus 3.14)."""

from __future__ import annotations

import re
from typing import Any

from mimir_ingest.model.numbers import format_plain
from mimir_ingest.promql.nodes import (
    AggregateExpr,
    BinaryExpr,
    Call,
    DurationExpr,
    Expr,
    MatrixSelector,
    NumberLiteral,
    ParenExpr,
    StringLiteral,
    SubqueryExpr,
    UnaryExpr,
    VectorMatching,
    VectorSelector,
)

_SURROGATE = re.compile("[\ud800-\udfff]")


def to_json(node: Expr) -> dict[str, Any]:
    """Return the tree as dicts and lists, keys ascending. One Python frame a level."""
    match node:
        case VectorSelector():
            return _selector_fields(node) | {"type": "vectorSelector"}
        case NumberLiteral():
            return {"type": "numberLiteral", "val": format_plain(node.value)}
        case Call():
            func = {
                "argTypes": [str(arg_type) for arg_type in node.func.arg_types],
                "name": node.func.name,
                "returnType": str(node.func.return_type),
                "variadic": node.func.variadic,
            }
            return {"args": list(map(to_json, node.args)), "func": func, "type": "call"}
        case MatrixSelector():
            fields = {"range": node.range_ms, "rangeExpr": _duration(node.range_expr), "type": "matrixSelector"}
            return _sorted(_selector_fields(node.selector) | fields)
        case BinaryExpr():
            return {
                "bool": node.return_bool,
                "lhs": to_json(node.lhs),
                "matching": None if node.matching is None else _matching(node.matching),
                "op": node.op,
                "rhs": to_json(node.rhs),
                "type": "binaryExpr",
            }
        case AggregateExpr():
            return {
                "expr": to_json(node.expr),
                "grouping": [_valid(label) for label in node.grouping],
                "op": node.op,
                "param": None if node.param is None else to_json(node.param),
                "type": "aggregation",
                "without": node.without,
            }
        case ParenExpr():
            return {"expr": to_json(node.expr), "type": "parenExpr"}
        case UnaryExpr():
            return {"expr": to_json(node.expr), "op": node.op, "type": "unaryExpr"}
        case SubqueryExpr():
            return {
                "expr": to_json(node.expr),
                "offset": node.offset_ms,
                "offsetExpr": _duration(node.offset_expr),
                "range": node.range_ms,
                "rangeExpr": _duration(node.range_expr),
                "startOrEnd": node.start_or_end,
                "step": node.step_ms,
                "stepExpr": _duration(node.step_expr),
                "timestamp": node.timestamp_ms,
                "type": "subquery",
            }
        case StringLiteral():
            return {"type": "stringLiteral", "val": _valid(node.value)}
    raise TypeError(f"not an expression: {node!r}")


def _valid(text: str) -> str:
    """Return text that JSON can carry: bytes that are no UTF-8 become U+FFFD, as in Go."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


def _sorted(fields: dict[str, Any]) -> dict[str, Any]:
    return dict(sorted(fields.items()))


def _selector_fields(node: VectorSelector) -> dict[str, Any]:
    return {
        "anchored": node.anchored,
        "matchers": [
            {"name": _valid(matcher.name), "type": str(matcher.type), "value": _valid(matcher.value)}
            for matcher in node.matchers
        ],
        "name": node.name,
        "offset": node.offset_ms,
        "offsetExpr": _duration(node.offset_expr),
        "smoothed": node.smoothed,
        "startOrEnd": node.start_or_end,
        "timestamp": node.timestamp_ms,
    }


def _matching(matching: VectorMatching) -> dict[str, Any]:
    return {
        "card": str(matching.card),
        "fillValues": {"lhs": matching.fill_left, "rhs": matching.fill_right},
        "include": [_valid(label) for label in matching.include],
        "labels": [_valid(label) for label in matching.labels],
        "on": matching.on,
    }


def _duration(node: NumberLiteral | DurationExpr | None) -> dict[str, Any] | None:
    if node is None:
        return None
    if isinstance(node, NumberLiteral):
        return {"duration": node.duration, "type": "numberLiteral", "val": format_plain(node.value)}
    return {
        "lhs": _duration(node.lhs),
        "op": node.op,
        "rhs": _duration(node.rhs),
        "type": "durationExpr",
        "wrapped": node.wrapped,
    }
