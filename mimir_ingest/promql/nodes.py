"""What a PromQL expression is: immutable nodes, as Prometheus 3.14 has them (`promql/parser/ast.go`).

Rules that hold for every tree the parser returns:

- It is type-correct: `BinaryExpr.matching` is set exactly where both sides are instant vectors, the argument of every
  function has its declared type, set operators are many-to-many.
- It is at most `parser.MAX_DEPTH` nodes high, so a walk that recurses once or twice a level is safe.
- Durations are kept in nanoseconds, as written; the `…_ms` properties truncate towards zero, as the engine wants them.
- Strings that are not valid UTF-8 (`"\\xff"`) hold their odd bytes as lone surrogates (`surrogateescape`).

Two nodes are equal when they mean the same: `pos` does not take part. Comparing, hashing and `repr` recurse several
times a level, so they are for small trees (tests, single selectors).
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from mimir_ingest.model.matchers import Matcher


class ValueType(enum.StrEnum):
    """The type of an expression, a function argument or a result."""

    NONE = "none"
    VECTOR = "vector"
    SCALAR = "scalar"
    MATRIX = "matrix"
    STRING = "string"

    @property
    def documented(self) -> str:
        """The name that error texts use."""
        return _DOCUMENTED.get(self, self.value)


_DOCUMENTED = {ValueType.VECTOR: "instant vector", ValueType.MATRIX: "range vector"}


class PosRange(NamedTuple):
    """Half-open range of byte positions in the UTF-8 text of the query."""

    start: int
    end: int


NO_POS = PosRange(0, 0)


class Cardinality(enum.StrEnum):
    """How many series of each side of a binary operation may match one of the other."""

    ONE_TO_ONE = "one-to-one"
    MANY_TO_ONE = "many-to-one"
    ONE_TO_MANY = "one-to-many"
    MANY_TO_MANY = "many-to-many"


@dataclass(frozen=True, slots=True)
class Function:
    """The signature of a function."""

    name: str
    arg_types: tuple[ValueType, ...]
    return_type: ValueType
    variadic: int = 0
    """0: exactly `arg_types`; else the last argument may be missing, or stand up to n times (n), or any number (-1)."""
    experimental: bool = False


@dataclass(frozen=True, slots=True)
class VectorMatching:
    """How the series of two instant vectors find each other."""

    card: Cardinality = Cardinality.ONE_TO_ONE
    labels: tuple[str, ...] = ()
    """Labels of `on` or `ignoring`, as written."""
    on: bool = False
    """Whether `labels` are the ones to match on, and not the ones to leave out."""
    include: tuple[str, ...] = ()
    """Labels of `group_left` or `group_right`."""
    fill_left: float | None = None
    """Value that stands for a missing series of the left side; None: no result there."""
    fill_right: float | None = None
    """Value that stands for a missing series of the right side."""


def truncate_ms(duration_ns: int) -> int:
    """Return whole milliseconds, truncated towards zero."""
    return duration_ns // 1_000_000 if duration_ns >= 0 else -(-duration_ns // 1_000_000)


@dataclass(frozen=True, slots=True)
class NumberLiteral:
    """A number, or a duration that stands for its seconds."""

    value: float
    duration: bool = False
    """Whether it was written as a duration, and prints as one."""
    pos: PosRange = field(default=NO_POS, compare=False)

    @property
    def type(self) -> ValueType:
        """Scalar."""
        return ValueType.SCALAR


@dataclass(frozen=True, slots=True)
class StringLiteral:
    """A string, unquoted."""

    value: str
    pos: PosRange = field(default=NO_POS, compare=False)

    @property
    def type(self) -> ValueType:
        """String."""
        return ValueType.STRING


@dataclass(frozen=True, slots=True)
class DurationExpr:
    """Arithmetic over durations; stands in ranges, steps and offsets only.

    `op` is `+ - * / % ^` with two operands, `+ -` with `rhs` only, `min_of max_of` with two, `step range` with none.
    """

    op: str
    lhs: NumberLiteral | DurationExpr | None = None
    rhs: NumberLiteral | DurationExpr | None = None
    wrapped: bool = False
    """Whether it stood in parentheses."""
    pos: PosRange = field(default=NO_POS, compare=False)

    @property
    def type(self) -> ValueType:
        """Scalar."""
        return ValueType.SCALAR


@dataclass(frozen=True, slots=True)
class VectorSelector:
    """An instant-vector selector; inside a `MatrixSelector` it carries that one's modifiers."""

    name: str = ""
    """Metric name written in front of the braces; then the last matcher is `__name__="<name>"`."""
    matchers: tuple[Matcher, ...] = ()
    offset_ns: int = 0
    offset_expr: DurationExpr | None = None
    """Set instead of `offset_ns` when the offset has to be computed."""
    timestamp_ms: int | None = None
    """Of `@ <timestamp>`."""
    start_or_end: str | None = None
    """`start` or `end` of `@ start()` and `@ end()`."""
    anchored: bool = False
    smoothed: bool = False
    pos: PosRange = field(default=NO_POS, compare=False)

    @property
    def type(self) -> ValueType:
        """Instant vector."""
        return ValueType.VECTOR

    @property
    def offset_ms(self) -> int:
        """The literal offset (ms), 0 without one."""
        return truncate_ms(self.offset_ns)


@dataclass(frozen=True, slots=True)
class MatrixSelector:
    """A range-vector selector; offset, `@`, `anchored` and `smoothed` are on `selector`."""

    selector: VectorSelector
    range_ns: int = 0
    range_expr: DurationExpr | None = None
    """Set instead of `range_ns` when the range has to be computed."""
    pos: PosRange = field(default=NO_POS, compare=False)

    @property
    def type(self) -> ValueType:
        """Range vector."""
        return ValueType.MATRIX

    @property
    def range_ms(self) -> int:
        """The literal range (ms)."""
        return truncate_ms(self.range_ns)


@dataclass(frozen=True, slots=True)
class SubqueryExpr:
    """`<expr>[<range>:<step>]` with its modifiers."""

    expr: Expr
    range_ns: int = 0
    range_expr: DurationExpr | None = None
    step_ns: int = 0
    """0 without `step_expr`: the default resolution."""
    step_expr: DurationExpr | None = None
    offset_ns: int = 0
    offset_expr: DurationExpr | None = None
    timestamp_ms: int | None = None
    start_or_end: str | None = None
    pos: PosRange = field(default=NO_POS, compare=False)

    @property
    def type(self) -> ValueType:
        """Range vector."""
        return ValueType.MATRIX

    @property
    def range_ms(self) -> int:
        """The literal range (ms)."""
        return truncate_ms(self.range_ns)

    @property
    def step_ms(self) -> int:
        """The literal step (ms), 0 for the default resolution."""
        return truncate_ms(self.step_ns)

    @property
    def offset_ms(self) -> int:
        """The literal offset (ms), 0 without one."""
        return truncate_ms(self.offset_ns)


@dataclass(frozen=True, slots=True)
class Call:
    """A function call."""

    func: Function
    args: tuple[Expr, ...] = ()
    pos: PosRange = field(default=NO_POS, compare=False)

    @property
    def type(self) -> ValueType:
        """What the function returns."""
        return self.func.return_type


@dataclass(frozen=True, slots=True)
class AggregateExpr:
    """An aggregation; `op` is its lower-case name."""

    op: str
    expr: Expr
    param: Expr | None = None
    """First argument of the aggregations that take two (`functions_table.PARAMETER_AGGREGATIONS`)."""
    grouping: tuple[str, ...] = ()
    without: bool = False
    """Whether `grouping` names the labels to drop, and not the ones to keep."""
    pos: PosRange = field(default=NO_POS, compare=False)

    @property
    def type(self) -> ValueType:
        """Instant vector."""
        return ValueType.VECTOR


@dataclass(frozen=True, slots=True)
class BinaryExpr:
    """A binary operation; `op` is one of `+ - * / % ^ atan2 == != <= < >= > </ >/ and or unless`."""

    op: str
    lhs: Expr
    rhs: Expr
    matching: VectorMatching | None = None
    """Set exactly when both sides are instant vectors."""
    return_bool: bool = False
    pos: PosRange = field(default=NO_POS, compare=False)

    @property
    def type(self) -> ValueType:
        """Scalar if both sides are, else instant vector."""
        if self.matching is not None or self.rhs.type is not ValueType.SCALAR:
            return ValueType.VECTOR
        return ValueType.SCALAR if self.lhs.type is ValueType.SCALAR else ValueType.VECTOR


@dataclass(frozen=True, slots=True)
class UnaryExpr:
    """`+` or `-` before an expression that is no number literal."""

    op: str
    expr: Expr
    pos: PosRange = field(default=NO_POS, compare=False)

    @property
    def type(self) -> ValueType:
        """Type of the operand."""
        return self.expr.type


@dataclass(frozen=True, slots=True)
class ParenExpr:
    """An expression in parentheses."""

    expr: Expr
    pos: PosRange = field(default=NO_POS, compare=False)

    @property
    def type(self) -> ValueType:
        """Type of the content."""
        return self.expr.type


Expr = (
    NumberLiteral
    | StringLiteral
    | VectorSelector
    | MatrixSelector
    | SubqueryExpr
    | Call
    | AggregateExpr
    | BinaryExpr
    | UnaryExpr
    | ParenExpr
    | DurationExpr
)

COMPARISON_OPERATORS = frozenset(("==", "!=", "<=", "<", ">=", ">"))
TRIM_OPERATORS = frozenset(("</", ">/"))
"""Operators that cut off a part of a native histogram."""

SET_OPERATORS = frozenset(("and", "or", "unless"))


def children(node: Expr) -> tuple[Expr, ...]:
    """Return the direct sub-expressions, in Prometheus's order (an aggregation's expression before its parameter)."""
    match node:
        case BinaryExpr():
            return node.lhs, node.rhs
        case Call():
            return node.args
        case AggregateExpr():
            return (node.expr,) if node.param is None else (node.expr, node.param)
        case ParenExpr() | UnaryExpr() | SubqueryExpr():
            return (node.expr,)
        case MatrixSelector():
            return (node.selector,)
        case _:
            return ()


def walk(root: Expr) -> Iterator[Expr]:
    """Yield every node, parents before children, left to right; needs no stack depth."""
    stack = [root]
    while stack:
        node = stack.pop()
        yield node
        stack.extend(reversed(children(node)))
