"""Nodes to text: the one canonical form of an expression (`promql/parser/printer.go` of Prometheus 3.14).

`parse_expr(format_expr(node))` gives an equal node. Labels of a selector are sorted, numbers are printed without
exponent, durations with the largest units, comments and spaces are gone.
"""

from __future__ import annotations

from mimir_ingest.model.labels import METRIC_NAME
from mimir_ingest.model.matchers import Matcher, MatchType
from mimir_ingest.model.numbers import format_default, format_plain
from mimir_ingest.promql.literals import INT64_MIN, format_duration, go_int64
from mimir_ingest.promql.nodes import (
    AggregateExpr,
    BinaryExpr,
    Call,
    Cardinality,
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
from mimir_ingest.promql.quoting import quote, quote_name

_GROUP = {Cardinality.MANY_TO_ONE: "left", Cardinality.ONE_TO_MANY: "right"}


def format_expr(node: Expr) -> str:
    """Print an expression on one line. One Python frame a level."""
    match node:
        case VectorSelector():
            return _format_selector(node)
        case NumberLiteral():
            return _format_number(node)
        case Call():
            return f"{node.func.name}({', '.join(map(format_expr, node.args))})"
        case MatrixSelector():
            return _format_matrix(node)
        case BinaryExpr():
            return f"{format_expr(node.lhs)} {format_operator(node)} {format_expr(node.rhs)}"
        case AggregateExpr():
            param = "" if node.param is None else f"{format_expr(node.param)}, "
            return f"{format_aggregation(node)}({param}{format_expr(node.expr)})"
        case ParenExpr():
            return f"({format_expr(node.expr)})"
        case UnaryExpr():
            return node.op + format_expr(node.expr)
        case SubqueryExpr():
            return format_expr(node.expr) + format_subquery_suffix(node)
        case StringLiteral():
            return quote(node.value)
        case DurationExpr():
            return format_duration_expr(node)
    raise TypeError(f"not an expression: {node!r}")


def format_duration_expr(node: NumberLiteral | DurationExpr) -> str:
    """Print a duration expression."""
    if isinstance(node, NumberLiteral):
        return _format_number(node)
    if node.op in ("step", "range"):
        text = f"{node.op}()"
    else:
        assert node.rhs is not None
        rhs = format_duration_expr(node.rhs)
        if node.lhs is None:
            text = f"-{rhs}" if node.op == "-" else rhs
        else:
            lhs = format_duration_expr(node.lhs)
            text = f"{node.op}({lhs}, {rhs})" if node.op in ("min_of", "max_of") else f"{lhs} {node.op} {rhs}"
    return f"({text})" if node.wrapped else text


def format_operator(node: BinaryExpr) -> str:
    """Print a binary operator with its modifiers."""
    text = f"{node.op} bool" if node.return_bool else node.op
    return text if node.matching is None else text + _format_matching(node.matching)


def format_aggregation(node: AggregateExpr) -> str:
    """Print an aggregation without its arguments."""
    if node.without:
        return f"{node.op} without ({_format_labels(node.grouping)}) "
    return f"{node.op} by ({_format_labels(node.grouping)}) " if node.grouping else node.op


def format_subquery_suffix(node: SubqueryExpr) -> str:
    """Print range, step and modifiers of a subquery."""
    step = ""
    if node.step_ns:
        step = format_duration(node.step_ns)
    elif node.step_expr is not None:
        step = format_duration_expr(node.step_expr)
    return f"[{_format_range(node)}:{step}]{_format_at(node)}{_format_offset(node)}"


def _format_number(node: NumberLiteral) -> str:
    if not node.duration:
        return format_plain(node.value)
    if node.value < 0:
        return f"-{format_duration(go_int64(-node.value * 1e9))}"
    return format_duration(go_int64(node.value * 1e9))


def _format_labels(labels: tuple[str, ...]) -> str:
    return ", ".join(map(quote_name, labels))


def _format_matching(matching: VectorMatching) -> str:
    text, group = "", _GROUP.get(matching.card)
    if matching.labels or matching.on or group:
        text = f" {'on' if matching.on else 'ignoring'} ({_format_labels(matching.labels)})"
    if group:
        text += f" group_{group} ({_format_labels(matching.include)})"
    left, right = matching.fill_left, matching.fill_right
    if left is not None and left == right:
        return f"{text} fill ({format_default(left)})"
    if left is not None:
        text += f" fill_left ({format_default(left)})"
    if right is not None:
        text += f" fill_right ({format_default(right)})"
    return text


def format_matcher(matcher: Matcher) -> str:
    """Print a matcher; a name that is no legacy label name is quoted."""
    return f"{quote_name(matcher.name)}{matcher.type}{quote(matcher.value)}"


def _format_name_and_labels(node: VectorSelector) -> str:
    labels = [
        format_matcher(matcher)
        for matcher in node.matchers
        if not (
            matcher.name == METRIC_NAME
            and matcher.type is MatchType.EQUAL
            and matcher.value == node.name
            and matcher.value
        )
    ]
    return f"{node.name}{{{','.join(sorted(labels))}}}" if labels else node.name


def _format_selector(node: VectorSelector) -> str:
    return _format_name_and_labels(node) + _format_at(node) + _format_extended(node) + _format_offset(node)


def _format_matrix(node: MatrixSelector) -> str:
    selector = node.selector
    modifiers = _format_extended(selector) + _format_at(selector) + _format_offset(selector)
    return f"{_format_name_and_labels(selector)}[{_format_range(node)}]{modifiers}"


def _format_range(node: MatrixSelector | SubqueryExpr) -> str:
    return format_duration(node.range_ns) if node.range_expr is None else format_duration_expr(node.range_expr)


def _format_extended(node: VectorSelector) -> str:
    return " anchored" if node.anchored else " smoothed" if node.smoothed else ""


def _format_at(node: VectorSelector | SubqueryExpr) -> str:
    if node.timestamp_ms is not None:
        return f" @ {node.timestamp_ms / 1000:.3f}"
    return f" @ {node.start_or_end}()" if node.start_or_end else ""


def _format_offset(node: VectorSelector | SubqueryExpr) -> str:
    if node.offset_expr is not None:
        return f" offset {format_duration_expr(node.offset_expr)}"
    if not node.offset_ns:
        return ""
    sign = "-" if node.offset_ns < 0 else ""
    # The negative of the least int64, which comes out of `NaN`, overflows to itself, as in Prometheus.
    size_ns = node.offset_ns if node.offset_ns == INT64_MIN else abs(node.offset_ns)
    return f" offset {sign}{format_duration(size_ns)}"
