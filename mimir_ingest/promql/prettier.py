"""Nodes to text on several lines, as `format_query` answers (`promql/parser/prettier.go` of Prometheus 3.14).

A node whose one-line form is longer than 100 bytes is broken up, its children two spaces further in.
"""

from __future__ import annotations

from mimir_ingest.promql.nodes import AggregateExpr, BinaryExpr, Call, Expr, ParenExpr, SubqueryExpr, UnaryExpr
from mimir_ingest.promql.printer import format_aggregation, format_expr, format_operator, format_subquery_suffix

MAX_LINE_BYTES = 100
_SPACES = " \t\n\r\v\f"


def prettify(node: Expr, level: int = 0) -> str:
    """Print an expression, broken into lines where it is long. One Python frame a level."""
    indent = "  " * level
    if isinstance(node, UnaryExpr):
        return indent + node.op + prettify(node.expr, level).strip(_SPACES)
    line = format_expr(node)
    long = len(line) > MAX_LINE_BYTES or (not line.isascii() and len(line.encode()) > MAX_LINE_BYTES)
    if isinstance(node, SubqueryExpr):
        # A short subquery is not indented, whatever its level (as in Prometheus).
        return prettify(node.expr, level) + format_subquery_suffix(node) if long else line
    if not long:
        return indent + line
    match node:
        case BinaryExpr():
            lhs, rhs = prettify(node.lhs, level + 1), prettify(node.rhs, level + 1)
            return f"{lhs}\n{indent}{format_operator(node)}\n{rhs}"
        case AggregateExpr():
            param = "" if node.param is None else f"{prettify(node.param, level + 1)},\n"
            return f"{indent}{format_aggregation(node)}(\n{param}{prettify(node.expr, level + 1)}\n{indent})"
        case Call():
            args = []
            for arg in node.args:
                args.append(prettify(arg, level + 1))
            inside = ",\n".join(args)
            return f"{indent}{node.func.name}(\n{inside}\n{indent})"
        case ParenExpr():
            return f"{indent}(\n{prettify(node.expr, level + 1)}\n{indent})"
    return indent + line
