"""The rules that a syntactically good query can still break: types, argument counts, matching, empty selectors.

Checks run after the whole text has been read, in Prometheus's order (`checkAST` of `promql/parser/parse.go`), and the
first broken rule is the error.
"""

from __future__ import annotations

from mimir_ingest.model.labels import METRIC_NAME
from mimir_ingest.promql.binary_modifiers import BinaryModifiers
from mimir_ingest.promql.nodes import (
    COMPARISON_OPERATORS,
    SET_OPERATORS,
    AggregateExpr,
    BinaryExpr,
    Call,
    Cardinality,
    Expr,
    MatrixSelector,
    ParenExpr,
    SubqueryExpr,
    UnaryExpr,
    ValueType,
    VectorSelector,
)
from mimir_ingest.promql.parse_error import ParseError
from mimir_ingest.promql.quoting import quote
from mimir_ingest.promql.token_stream import TokenStream

_VECTOR, _SCALAR = ValueType.VECTOR, ValueType.SCALAR
_SPACES = b" \t\n\r"


class TypeCheck:
    """The checks of one query; remembers what the text said about a binary operation and its node does not."""

    def __init__(self, stream: TokenStream) -> None:
        self.stream = stream
        self.written: dict[int, BinaryModifiers] = {}

    def remember(self, node: BinaryExpr, modifiers: BinaryModifiers) -> None:
        """Keep the modifiers of an operation as they were written."""
        self.written[id(node)] = modifiers

    def fail(self, node: Expr, reason: str) -> ParseError:
        """Return the error to raise at a node."""
        return self.stream.fail(node.pos.start, reason)

    def run(self, node: Expr, *, may_match_all: bool = False) -> ValueType:
        """Check a tree and return its type; `ParseError` at the first broken rule. One Python frame a level."""
        match node:
            case VectorSelector():
                self._selector(node, may_match_all)
                return _VECTOR
            case MatrixSelector():
                self._selector(node.selector, False)
                return ValueType.MATRIX
            case Call():
                self._arguments(node)
                types, last = node.func.arg_types, len(node.func.arg_types) - 1
                for place, arg in enumerate(node.args):
                    found = self.run(arg, may_match_all=place == 1 and node.func.name == "info")
                    wanted = types[min(place, last)]
                    if found is not wanted:
                        raise self.fail(arg, _mismatch(wanted, f'call to function "{node.func.name}"', found))
                return node.func.return_type
            case AggregateExpr():
                self._expect(node.expr, self.run(node.expr), _VECTOR, "aggregation expression")
                if node.param is not None:
                    wanted = ValueType.STRING if node.op == "count_values" else _SCALAR
                    self._expect(node.param, self.run(node.param), wanted, "aggregation parameter")
                return _VECTOR
            case BinaryExpr():
                lhs = self.run(node.lhs)
                rhs = self.run(node.rhs)
                return self._binary(node, lhs, rhs)
            case ParenExpr():
                return self.run(node.expr)
            case UnaryExpr():
                found = self.run(node.expr)
                if found not in (_SCALAR, _VECTOR):
                    raise self.fail(
                        node,
                        "unary expression only allowed on expressions of type scalar or instant vector, "
                        f"got {quote(found.documented)}",
                    )
                return found
            case SubqueryExpr():
                found = self.run(node.expr)
                if found is not _VECTOR:
                    raise self.fail(node, f"subquery is only allowed on instant vector, got {found} instead")
                return ValueType.MATRIX
            case _:
                return node.type

    def _expect(self, node: Expr, found: ValueType, wanted: ValueType, context: str) -> None:
        if found is not wanted:
            raise self.fail(node, _mismatch(wanted, context, found))

    def _selector(self, node: VectorSelector, may_match_all: bool) -> None:
        if node.name:
            for matcher in node.matchers[:-1]:
                if matcher.name == METRIC_NAME:
                    raise self.fail(
                        node, f"metric name must not be set twice: {quote(node.name)} or {quote(matcher.value)}"
                    )
        elif not may_match_all and all(matcher.matches_empty for matcher in node.matchers):
            raise self.fail(node, "vector selector must contain at least one non-empty matcher")

    def _arguments(self, node: Call) -> None:
        func, given = node.func, len(node.args)
        wanted, where = len(func.arg_types), f'argument(s) in call to "{node.func.name}", got {given}'
        if func.variadic == 0:
            if given != wanted:
                raise self.fail(node, f"expected {wanted} {where}")
        elif given < wanted - 1:
            raise self.fail(node, f"expected at least {wanted - 1} {where}")
        elif func.variadic > 0 and given > wanted - 1 + func.variadic:
            raise self.fail(node, f"expected at most {wanted - 1 + func.variadic} {where}")
        if func.name == "info" and given > 1:
            second = node.args[1]
            if second.type is not _VECTOR:
                raise self.fail(node, _mismatch(_VECTOR, 'call to function "info"', second.type))
            if not isinstance(second, VectorSelector):
                raise self.fail(second, "expected label selectors only")
            if second.name:
                raise self.fail(second, "expected label selectors only, got vector selector instead")

    def _operator_at(self, node: BinaryExpr) -> int:
        """Return where the text between the two sides begins."""
        at, query = node.lhs.pos.end, self.stream.query
        while query[at] in _SPACES:
            at += 1
        return at

    def _binary(self, node: BinaryExpr, lhs: ValueType, rhs: ValueType) -> ValueType:
        written = self.written[id(node)]
        matching = written.matching
        fail = self.stream.fail
        both_scalar = lhs is _SCALAR and rhs is _SCALAR
        if node.return_bool and node.op not in COMPARISON_OPERATORS:
            raise fail(self._operator_at(node), "bool modifier can only be used on comparison operators")
        if both_scalar and node.op in COMPARISON_OPERATORS and not node.return_bool:
            raise fail(self._operator_at(node), "comparisons between scalars must use BOOL modifier")
        if matching.on:
            for label in matching.labels:
                if label in matching.include:
                    raise fail(
                        self._operator_at(node),
                        f"label {quote(label)} must not occur in ON and GROUP clause at once",
                    )
        for side, found in ((node.lhs, lhs), (node.rhs, rhs)):
            if found not in (_SCALAR, _VECTOR):
                raise self.fail(side, "binary expression must contain only scalar and instant vector types")
        fills = matching.fill_left is not None or matching.fill_right is not None
        if node.matching is None:
            if matching.labels:
                raise self.fail(node, "vector matching only allowed between instant vectors")
            if fills:
                raise self.fail(node, "filling in missing series only allowed between instant vectors")
        elif node.op in SET_OPERATORS:
            if matching.card is not Cardinality.ONE_TO_ONE:
                raise self.fail(node, f'no grouping allowed for "{node.op}" operation')
            if fills:
                raise self.fail(node, "filling in missing series not allowed for set operators")
        if node.op in SET_OPERATORS and (lhs is _SCALAR or rhs is _SCALAR):
            raise self.fail(node, f'set operator "{node.op}" not allowed in binary scalar expression')
        return _SCALAR if both_scalar else _VECTOR


def _mismatch(wanted: ValueType, context: str, found: ValueType) -> str:
    return f"expected type {wanted.documented} in {context}, got {found.documented}"
