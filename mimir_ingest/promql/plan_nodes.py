"""What a plan consists of: an expression with all times, durations and positions resolved.

The tree mirrors the expression's, without parentheses. Operators (`promql/operators`) evaluate it.
"""

from __future__ import annotations

from dataclasses import dataclass

from mimir_ingest.model.frozen import frozen
from mimir_ingest.model.matchers import Matcher
from mimir_ingest.promql.nodes import PosRange, ValueType, VectorMatching
from mimir_ingest.promql.values import Steps


@frozen
class Shift:
    """Where a selector looks at a step: at `at_ms`, or else at the step's time, less `offset_ms`."""

    offset_ms: int = 0
    at_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Number:
    """A constant."""

    value: float
    pos: PosRange


@dataclass(frozen=True, slots=True)
class Text:
    """A string."""

    value: str
    pos: PosRange


@frozen
class InstantSelect:
    """An instant-vector selector."""

    select: int
    """Index into the plan's selects."""
    matchers: tuple[Matcher, ...]
    shift: Shift
    smoothed: bool
    pos: PosRange
    statistics: bool = False
    """Whether of native histograms only count and sum are asked for; their buckets are left out then."""


@frozen
class RangeSelect:
    """A range-vector selector."""

    select: int
    matchers: tuple[Matcher, ...]
    shift: Shift
    range_ms: int
    anchored: bool
    smoothed: bool
    pos: PosRange
    statistics: bool = False
    """As in `InstantSelect`."""


@dataclass(frozen=True, slots=True)
class Subquery:
    """An instant-vector expression evaluated at steps of its own."""

    child: PlanNode
    range_ms: int
    step_ms: int
    shift: Shift
    pos: PosRange


@dataclass(frozen=True, slots=True)
class StepInvariant:
    """An expression that is the same at every step, so evaluated at the first only."""

    child: PlanNode

    @property
    def pos(self) -> PosRange:
        """Position of the child."""
        return self.child.pos


@dataclass(frozen=True, slots=True)
class Call:
    """A function call."""

    name: str
    args: tuple[PlanNode, ...]
    pos: PosRange


@dataclass(frozen=True, slots=True)
class InfoJoin:
    """The function `info`: labels of info series joined to a vector."""

    child: PlanNode
    select: int
    """Index into the plan's selects: the info series."""
    name_matchers: tuple[Matcher, ...]
    """Which metrics are info metrics."""
    label_matchers: tuple[Matcher, ...]
    """Which of their labels are wanted (all, if empty), and with which values."""
    shift: Shift
    pos: PosRange


@dataclass(frozen=True, slots=True)
class Aggregate:
    """An aggregation over series."""

    op: str
    child: PlanNode
    param: PlanNode | None
    grouping: tuple[str, ...]
    without: bool
    pos: PosRange


@dataclass(frozen=True, slots=True)
class Binary:
    """A binary operation; `matching` is set where both sides are vectors."""

    op: str
    lhs: PlanNode
    rhs: PlanNode
    matching: VectorMatching | None
    return_bool: bool
    pos: PosRange


@dataclass(frozen=True, slots=True)
class Plus:
    """Unary plus: what it stands before, with a position of its own, and no selector any more."""

    child: PlanNode
    pos: PosRange


@dataclass(frozen=True, slots=True)
class Negate:
    """Unary minus."""

    child: PlanNode
    pos: PosRange


PlanNode = (
    Number
    | Text
    | InstantSelect
    | RangeSelect
    | Subquery
    | StepInvariant
    | Call
    | InfoJoin
    | Aggregate
    | Binary
    | Negate
    | Plus
)


@frozen
class SelectHints:
    """What is known of a select's use; a reader may ignore it (Prometheus `storage.SelectHints`)."""

    step_ms: int
    """Of the query or the innermost subquery; 0 for an instant query."""
    range_ms: int
    """Of the range vector; 0 for an instant vector."""
    function: str
    """Innermost function or aggregation around the selector, "" if there is none or a binary operator is nearer."""
    grouping: tuple[str, ...] = ()
    """Labels of the aggregation directly around the selector."""
    by: bool = False
    newest_only: bool = False
    """Whether of each series only the newest sample matters: an instant selector that is evaluated at one time."""


@frozen
class Select:
    """One read: the series that satisfy all matchers, with their samples in `[start_ms, end_ms)`."""

    matchers: tuple[Matcher, ...]
    start_ms: int
    end_ms: int
    hints: SelectHints


@frozen
class Plan:
    """A query ready to be evaluated, once `selects` have been read."""

    root: PlanNode
    type: ValueType
    """Of the result: for a range query always a matrix, whatever this says."""
    steps: Steps
    instant: bool
    selects: tuple[Select, ...]
    lookback_ms: int
