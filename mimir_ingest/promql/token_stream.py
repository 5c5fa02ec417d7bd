"""The parser's view of the tokens: one token of look-ahead, read only when asked for."""

from __future__ import annotations

from typing import NoReturn

from mimir_ingest.promql.lexer import DURATION, NUMBER, Lexer, Token, describe
from mimir_ingest.promql.literals import LiteralError, parse_duration, parse_number, seconds
from mimir_ingest.promql.nodes import NumberLiteral, PosRange
from mimir_ingest.promql.parse_error import ParseError


class TokenStream:
    """Tokens of one query with one of look-ahead.

    The moment of looking matters: a lexer error is raised at the first look at its token, and the first error is the
    answer, so callers finish the checks of a construct that ends with its last token before they look further.
    """

    __slots__ = ("aggregations_open", "closing", "lexer", "max_depth", "query", "token")

    def __init__(self, query: bytes, *, max_depth: int) -> None:
        self.query = query
        self.lexer = Lexer(query)
        self.token: Token | None = None
        self.closing = 0
        """Byte position after the last bracket, number or duration taken."""
        self.aggregations_open = 0
        """Aggregations being parsed; they give syntax errors their context."""
        self.max_depth = max_depth

    def peek(self) -> str:
        """Return the kind of the next token."""
        if self.token is None:
            self.token = self.lexer.next()
        return self.token[0]

    def take(self) -> Token:
        """Return the next token and go past it."""
        token = self.token or self.lexer.next()
        self.token = None
        if token[0] in _CLOSING:
            self.closing = token[1] + len(token[2])
        return token

    def expect(self, kind: str, context: str = "", expected: str = "") -> Token:
        """Take the next token, which must be of a kind."""
        if self.peek() != kind:
            self.unexpected(context, expected)
        return self.take()

    def unexpected(self, context: str = "", expected: str = "") -> NoReturn:
        """Complain about the next token; without a context, the aggregation around is the context."""
        self.peek()
        assert self.token is not None
        reason = f"unexpected {describe(self.token)}"
        if not context and self.aggregations_open:
            context = "aggregation"
        if context:
            reason += f" in {context}"
        if expected:
            reason += f", expected {expected}"
        raise self.fail(self.token[1], reason)

    def fail(self, at: int, reason: str) -> ParseError:
        """Return the error to raise for a byte position."""
        return ParseError(self.query, at, reason)

    def too_deep(self, at: int) -> ParseError:
        """Return the error for a query that nests deeper than the limit."""
        return self.fail(at, f"expression is nested deeper than the limit of {self.max_depth} levels")

    def number(self) -> NumberLiteral:
        """Take a number or duration token."""
        kind, at, text = self.take()
        try:
            if kind == NUMBER:
                return NumberLiteral(parse_number(text), False, PosRange(at, at + len(text)))
            return NumberLiteral(seconds(parse_duration(text)), True, PosRange(at, at + len(text)))
        except LiteralError as error:
            raise self.fail(at, str(error)) from None


_CLOSING = frozenset((")", "]", "}", NUMBER, DURATION))
