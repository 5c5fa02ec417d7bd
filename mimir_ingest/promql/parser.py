"""PromQL text to nodes: the language of Prometheus 3.14 with every option on, its error texts and positions included.

An operator-precedence parser with an explicit stack: nesting costs no Python recursion, and a tree is never higher
than `max_depth`. The first error is the answer, so the order of looking ahead and of checking follows Prometheus's LALR
grammar (`promql/parser/generated_parser.y`): a construct whose last token is certain is checked before the next token
is read.

Binding, weakest first: `or` · `and unless` · comparisons and trims · `+ -` · `* / % atan2` and signs · `^` (to the
right) · modifiers and `[…]`. So `-2^2` is `-(2^2)`, and `-x offset 5m` shifts `x`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from mimir_ingest.model.matchers import Matcher
from mimir_ingest.promql.binary_modifiers import (
    METRIC_NAME_KINDS,
    OPERAND_KINDS,
    BinaryModifiers,
    parse_binary_modifiers,
)
from mimir_ingest.promql.functions_table import AGGREGATIONS, FUNCTIONS, PARAMETER_AGGREGATIONS
from mimir_ingest.promql.lexer import (
    DURATION,
    END,
    IDENTIFIER,
    NUMBER,
    PREPROCESSORS,
    STRING,
    Token,
)
from mimir_ingest.promql.literals import unquote
from mimir_ingest.promql.nodes import (
    AggregateExpr,
    BinaryExpr,
    Call,
    Expr,
    NumberLiteral,
    ParenExpr,
    PosRange,
    StringLiteral,
    UnaryExpr,
    VectorSelector,
)
from mimir_ingest.promql.postfix import POSTFIX, parse_postfix
from mimir_ingest.promql.quoting import quote
from mimir_ingest.promql.selector_parser import named_selector, parse_label_list, parse_selector
from mimir_ingest.promql.token_stream import TokenStream
from mimir_ingest.promql.typecheck import TypeCheck

MAX_DEPTH = 400
"""Default limit on the height of a tree. Walks that use up to two Python frames a level stay within Python's limit."""

_PRECEDENCE = {
    **dict.fromkeys(("or",), 1),
    **dict.fromkeys(("and", "unless"), 2),
    **dict.fromkeys(("==", "!=", "<=", "<", ">=", ">", "</", ">/"), 3),
    **dict.fromkeys(("+", "-"), 4),
    **dict.fromkeys(("*", "/", "%", "atan2"), 5),
    "^": 6,
}
_SIGN_PRECEDENCE = 5
_LITERALS = (NUMBER, DURATION)

_CALLABLE_KINDS = PREPROCESSORS | {IDENTIFIER}


def encode_query(text: str) -> bytes:
    """Return the bytes of a query; lone surrogates become the bytes they stand for."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogateescape" if _only_bytes(text) else "surrogatepass")


def _only_bytes(text: str) -> bool:
    return all("\udc80" <= char <= "\udcff" for char in text if "\ud800" <= char <= "\udfff")


def parse_expr(text: str, *, max_depth: int = MAX_DEPTH) -> Expr:
    """Parse and type-check a query.

    Raises
    ------
    ParseError
        With Prometheus's text and position, or if the tree would be higher than `max_depth`.
    """
    stream = TokenStream(encode_query(text), max_depth=max_depth)
    if stream.peek() == END:
        raise stream.fail(0, "no expression found in input")
    return _ExprParser(stream).run()


def parse_metric_selector(text: str) -> tuple[Matcher, ...]:
    """Parse an instant-vector selector without modifiers, such as a `match[]` parameter.

    Raises
    ------
    ParseError
        With Prometheus's text and position. A selector that matches everything is not refused here.
    """
    stream = TokenStream(encode_query(text), max_depth=MAX_DEPTH)
    kind = stream.peek()
    if kind != "{" and kind not in METRIC_NAME_KINDS:
        stream.unexpected()
    selector = _selector(stream)
    stream.expect(END)
    return selector.matchers


def _selector(stream: TokenStream, name: Token | None = None) -> VectorSelector:
    if name is None and stream.peek() != "{":
        name = stream.take()
    if name is None:
        assert stream.token is not None
        return parse_selector(stream, "", stream.token[1])
    _, start, word = name
    if stream.peek() == "{":
        return parse_selector(stream, word, start)
    return named_selector(word, (), PosRange(start, start + len(word)))


@dataclass(slots=True)
class _Open:
    """A construct whose next operand is being read."""

    token: Token
    """Its sign, operator, parenthesis, or function or aggregation name."""
    kind: str
    """`sign`, `binary`, `paren`, `call` or `aggregation`."""
    precedence: int = 0
    """0 for what only a bracket closes."""
    height: int = 0
    """Height of its highest operand so far."""
    lhs: Expr | None = None
    modifiers: BinaryModifiers | None = None
    args: list[Expr] = field(default_factory=list)
    grouping: tuple[bool, tuple[str, ...]] | None = None
    """Of an aggregation that has it in front: (without, labels)."""


class _ExprParser:
    def __init__(self, stream: TokenStream) -> None:
        self.stream = stream
        self.stack: list[_Open] = []
        self.height = 0
        """Height of the operand read last."""
        self.check = TypeCheck(stream)

    def run(self) -> Expr:
        """Parse to the end of the text."""
        while True:
            node = self._operand()
            if node is None:
                continue
            node = self._close_while_possible(node)
            if node is not None:
                if self.stream.peek() != END:
                    self.stream.unexpected()
                self.check.run(node)
                return node

    def _close_while_possible(self, node: Expr) -> Expr | None:
        """Combine an operand with what is open. Return the whole expression, or None if another operand must follow."""
        stream, stack = self.stream, self.stack
        while True:
            kind = stream.peek()
            while kind in POSTFIX:
                node = parse_postfix(stream, node)
                if kind == "[":
                    self._grow(0, node.pos.start)
                kind = stream.peek()
            precedence = _PRECEDENCE.get(kind, 0)
            while stack and _binds(stack[-1].precedence, precedence):
                node = self._reduce(stack.pop(), node)
            if precedence:
                operator = stream.take()
                modifiers = parse_binary_modifiers(stream)
                self._push(_Open(operator, "binary", precedence, self.height, node, modifiers))
                return None
            if not stack:
                return node
            closed = self._bracket(stack[-1], kind, node)
            if closed is None:
                return None
            node = closed

    def _push(self, opened: _Open) -> None:
        if len(self.stack) >= self.stream.max_depth:
            raise self.stream.too_deep(opened.token[1])
        self.stack.append(opened)

    def _grow(self, others: int, at: int) -> None:
        self.height = max(self.height, others) + 1
        if self.height > self.stream.max_depth:
            raise self.stream.too_deep(at)

    def _operand(self) -> Expr | None:
        """Take an operand, or open what comes before one and return None."""
        stream = self.stream
        kind = stream.peek()
        self.height = 1
        if kind in METRIC_NAME_KINDS:
            return self._word(kind)
        if kind in _LITERALS:
            return stream.number()
        if kind == "{":
            return _selector(stream)
        if kind == "(":
            self._push(_Open(stream.take(), "paren"))
        elif kind == "+" or kind == "-":
            self._push(_Open(stream.take(), "sign", _SIGN_PRECEDENCE))
        elif kind == STRING:
            _, start, text = stream.take()
            return StringLiteral(unquote(text), PosRange(start, start + len(text)))
        else:
            stream.unexpected()
        return None

    def _word(self, kind: str) -> Expr | None:
        stream = self.stream
        name = stream.take()
        after = stream.peek()
        if after == "(" and kind in _CALLABLE_KINDS:
            return self._open_args(_Open(name, "call"))
        if kind in AGGREGATIONS and after in ("(", "by", "without"):
            stream.aggregations_open += 1
            opened = _Open(name, "aggregation")
            if after != "(":
                opened.grouping = self._grouping()
            if stream.peek() != "(":
                stream.unexpected()
            return self._open_args(opened)
        return _selector(stream, name)

    def _grouping(self) -> tuple[bool, tuple[str, ...]]:
        without = self.stream.take()[0] == "without"
        return without, parse_label_list(self.stream)

    def _open_args(self, opened: _Open) -> Expr | None:
        self.stream.take()
        if self.stream.peek() == ")":
            self.height = 0
            return self._finish_args(opened)
        self._push(opened)
        return None

    def _bracket(self, top: _Open, kind: str, node: Expr) -> Expr | None:
        """Close what only a bracket closes, or go on to its next argument and return None."""
        stream = self.stream
        if kind == ")":
            self.stack.pop()
            if top.kind == "paren":
                self._grow(0, top.token[1])
                stream.take()
                return ParenExpr(node, PosRange(top.token[1], stream.closing))
            top.args.append(node)
            self.height = max(self.height, top.height)
            return self._finish_args(top)
        if kind != "," or top.kind == "paren":
            stream.unexpected()
        comma = stream.take()
        if stream.peek() not in OPERAND_KINDS:
            raise stream.fail(comma[1], "trailing commas not allowed in function call args")
        top.args.append(node)
        top.height = max(self.height, top.height)
        return None

    def _finish_args(self, opened: _Open) -> Expr:
        stream = self.stream
        stream.take()
        self._grow(0, opened.token[1])
        if opened.kind == "aggregation":
            return self._aggregation(opened)
        _, start, name = opened.token
        function = FUNCTIONS.get(name)
        if function is None:
            raise stream.fail(start, f"unknown function with name {quote(name)}")
        return Call(function, tuple(opened.args), PosRange(start, stream.closing))

    def _aggregation(self, opened: _Open) -> AggregateExpr:
        stream, args = self.stream, opened.args
        op, start, _ = opened.token
        end = stream.closing
        grouping = opened.grouping
        if grouping is None and stream.peek() in ("by", "without"):
            grouping = self._grouping()
            end = stream.closing
        without, labels = grouping or (False, ())
        wanted = 2 if op in PARAMETER_AGGREGATIONS else 1
        if not args:
            raise stream.fail(start, "no arguments for aggregate expression provided")
        if len(args) != wanted:
            raise stream.fail(
                start,
                f"wrong number of arguments for aggregate expression provided, expected {wanted}, got {len(args)}",
            )
        stream.aggregations_open -= 1
        param = args[0] if wanted == 2 else None
        return AggregateExpr(op, args[-1], param, labels, without, PosRange(start, end))

    def _reduce(self, top: _Open, node: Expr) -> Expr:
        _, at, text = top.token
        if top.kind == "sign":
            pos = PosRange(at, node.pos.end)
            if isinstance(node, NumberLiteral):
                return NumberLiteral(-node.value if text == "-" else node.value, node.duration, pos)
            self._grow(0, at)
            return UnaryExpr(text, node, pos)
        self._grow(top.height, at)
        assert top.lhs is not None
        assert top.modifiers is not None
        modifiers = top.modifiers
        pos = PosRange(top.lhs.pos.start, node.pos.end)
        matching = modifiers.matching_for(top.token[0], top.lhs.type, node.type)
        binary = BinaryExpr(top.token[0], top.lhs, node, matching, modifiers.return_bool, pos)
        self.check.remember(binary, modifiers)
        return binary


def _binds(before: int, after: int) -> bool:
    """Whether the operator before an operand takes it, and not the one after; all but `^` bind to the left."""
    return before > after or (before == after and 0 < after < _PRECEDENCE["^"])
