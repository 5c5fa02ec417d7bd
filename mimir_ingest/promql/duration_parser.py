"""Duration expressions: what stands in `[…]` and after `offset`.

    duration := number | ("+" | "-") duration | duration ("+" | "-" | "*" | "/" | "%" | "^") duration
              | "(" duration ")" | ("step" | "range") "(" ")" | ("min_of" | "max_of") "(" duration "," duration ")"

A number is an operand of its own or, under an operator, a part of a `DurationExpr`. After `offset` only the first
operand counts, unless it stands in parentheses or has two signs: `x offset 5m * 2` is `(x offset 5m) * 2`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from mimir_ingest.promql.lexer import DURATION, NUMBER, Token
from mimir_ingest.promql.nodes import DurationExpr, NumberLiteral, PosRange
from mimir_ingest.promql.token_stream import TokenStream

_PRECEDENCE = {"+": 1, "-": 1, "*": 2, "/": 2, "%": 2, "^": 3}
_SIGN_PRECEDENCE = 2
_SIGNS = ("+", "-")
_LITERALS = (NUMBER, DURATION)
_RANGE_S = (1 << 63) / 1e9
OFFSET_CONTEXT = ("offset", "number, duration, step(), or range()")

Duration = NumberLiteral | DurationExpr


def parse_duration_expr(stream: TokenStream, context: str, expected: str) -> Duration:
    """Parse one duration expression up to the first token that does not belong to it.

    `context` and `expected` are the words of a syntax error.
    """
    return _Operands(stream, context, expected).run()


def parse_positive_duration(stream: TokenStream, context: str, expected: str) -> Duration:
    """Parse a range or step; a literal one must be greater than 0."""
    duration = parse_duration_expr(stream, context, expected)
    if isinstance(duration, NumberLiteral) and duration.value <= 0:
        raise stream.fail(duration.pos.start, "duration must be greater than 0")
    return duration


def parse_offset_duration(stream: TokenStream) -> Duration:
    """Parse what stands after `offset`."""
    kind = stream.peek()
    sign = stream.take() if kind in _SIGNS else None
    kind = stream.peek()
    operands = _Operands(stream, *OFFSET_CONTEXT)
    if kind in _LITERALS:
        literal = stream.number()
        return _in_range(stream, literal) if sign is None else _signed(stream, sign, literal)
    if kind in ("step", "range", "min_of", "max_of"):
        operand = operands.function()
        if sign is None:
            return operand
        return DurationExpr(sign[2], None, operand, pos=PosRange(sign[1], operand.pos.end))
    if sign is not None and kind == "(":
        stream.take()
        content = operands.run()
        operands.expect(")")
        return _signed(stream, sign, _in_parens(content, content.pos.start))
    return operands.run(sign)


def _in_range(stream: TokenStream, literal: NumberLiteral) -> NumberLiteral:
    if literal.value > _RANGE_S or literal.value < -_RANGE_S:
        raise stream.fail(literal.pos.start, "duration out of range")
    return literal


def _signed(stream: TokenStream, sign: Token, operand: Duration) -> Duration:
    if isinstance(operand, NumberLiteral):
        value = -operand.value if sign[0] == "-" else operand.value
        return _in_range(stream, NumberLiteral(value, operand.duration, PosRange(sign[1], operand.pos.end)))
    if sign[0] == "+":
        return operand
    return DurationExpr("-", None, operand, pos=PosRange(sign[1], operand.pos.end))


def _in_parens(content: Duration, start: int) -> DurationExpr:
    """Mark as parenthesised; a literal has no such mark and gets a unary plus around it."""
    if isinstance(content, DurationExpr):
        return replace(content, wrapped=True)
    return DurationExpr("+", None, content, wrapped=True, pos=PosRange(start, content.pos.end))


def _binary(stream: TokenStream, operator: Token, lhs: Duration, rhs: Duration) -> DurationExpr:
    if operator[0] in ("/", "%") and isinstance(rhs, NumberLiteral) and rhs.value == 0:
        raise stream.fail(operator[1], f"{'division' if operator[0] == '/' else 'modulo'} by zero")
    return DurationExpr(operator[0], lhs, rhs, pos=PosRange(lhs.pos.start, rhs.pos.end))


def _binds(before: int, after: int) -> bool:
    """Whether the operator before an operand takes it, and not the one after; all but `^` bind to the left."""
    return before > after or (before == after and 0 < after < _PRECEDENCE["^"])


@dataclass(slots=True)
class _Open:
    """A construct whose last operand is still being read."""

    token: Token
    """Its sign, operator, parenthesis or function name."""
    precedence: int
    """0 for what only a bracket closes."""
    lhs: Duration | None = None
    height: int = 0


class _Operands:
    """Operator-precedence parser with an explicit stack, so that nesting costs no recursion."""

    def __init__(self, stream: TokenStream, context: str, expected: str) -> None:
        self.stream, self.context, self.expected = stream, context, expected

    def expect(self, kind: str) -> Token:
        return self.stream.expect(kind, self.context, self.expected)

    def function(self) -> DurationExpr:
        """Parse `step()`, `range()`, `min_of(a, b)` or `max_of(a, b)`, and look no further."""
        name = self.stream.take()
        self.expect("(")
        if name[0] in ("step", "range"):
            return DurationExpr(name[0], pos=PosRange(name[1], self.expect(")")[1] + 1))
        lhs = self.run()
        self.expect(",")
        rhs = self.run()
        self.expect(")")
        return DurationExpr(name[0], lhs, rhs, pos=PosRange(lhs.pos.start, rhs.pos.end))

    def run(self, sign: Token | None = None) -> Duration:
        """Parse up to the first token that does not belong to the expression; `sign` has been taken already."""
        stream = self.stream
        stack = [] if sign is None else [_Open(sign, _SIGN_PRECEDENCE)]
        while True:
            node = self._operand(stack)
            if node is None:
                continue
            height = 1
            while True:
                kind = stream.peek()
                precedence = _PRECEDENCE.get(kind, 0)
                while stack and _binds(stack[-1].precedence, precedence):
                    node, height = self._reduce(stack.pop(), node, height)
                if precedence:
                    stack.append(_Open(stream.take(), precedence, node, height))
                    break
                if not stack:
                    return node
                top = stack[-1]
                height = max(height, top.height) + 1
                if kind == "," and top.token[0] != "(" and top.lhs is None:
                    stream.take()
                    top.lhs, top.height = node, height
                    break
                if kind != ")" or (top.token[0] != "(" and top.lhs is None):
                    stream.unexpected(self.context, self.expected)
                stream.take()
                node = self._close(stack.pop(), node)

    def _operand(self, stack: list[_Open]) -> Duration | None:
        """Take an operand, or put what comes before one on the stack."""
        stream = self.stream
        kind = stream.peek()
        if kind in _LITERALS:
            return _in_range(stream, stream.number())
        if kind in ("step", "range"):
            return self.function()
        if kind in _SIGNS:
            stack.append(_Open(stream.take(), _SIGN_PRECEDENCE))
        elif kind == "(":
            stack.append(_Open(stream.take(), 0))
        elif kind in ("min_of", "max_of"):
            stack.append(_Open(stream.take(), 0))
            self.expect("(")
        else:
            stream.unexpected(self.context, self.expected)
        if len(stack) > stream.max_depth:
            raise stream.too_deep(stack[-1].token[1])
        return None

    def _reduce(self, top: _Open, node: Duration, height: int) -> tuple[Duration, int]:
        height = max(height, top.height) + 1
        if height > self.stream.max_depth:
            raise self.stream.too_deep(top.token[1])
        if top.lhs is None:
            return _signed(self.stream, top.token, node), height
        return _binary(self.stream, top.token, top.lhs, node), height

    def _close(self, top: _Open, node: Duration) -> Duration:
        if top.lhs is None:
            return _in_parens(node, top.token[1])
        return DurationExpr(top.token[0], top.lhs, node, pos=PosRange(top.lhs.pos.start, node.pos.end))
