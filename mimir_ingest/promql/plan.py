"""From an expression and a query's times to a plan: what to read, and the tree to evaluate over it.

Pure. Resolves duration expressions, `@`, offsets and the functions `start end range step`; finds the exact time range
of every selector, through any nesting of subqueries; marks what is the same at every step.
Source: Prometheus 3.14 `promql/engine.go` `PreprocessExpr`, `getTimeRangesForSelector`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mimir_ingest.errors import InvariantViolated, QueryError
from mimir_ingest.model.frozen import frozen
from mimir_ingest.model.labels import METRIC_NAME
from mimir_ingest.model.matchers import Matcher, MatchType
from mimir_ingest.promql import nodes
from mimir_ingest.promql import plan_nodes as planned
from mimir_ingest.promql.depth import make_room
from mimir_ingest.promql.durations import resolve_duration_ms
from mimir_ingest.promql.nodes import TRIM_OPERATORS, ValueType
from mimir_ingest.promql.plan_nodes import Plan, PlanNode, Select, SelectHints, Shift
from mimir_ingest.promql.values import Steps

_DATE_FUNCTIONS = {"day_of_month", "day_of_week", "day_of_year", "days_in_month", "hour", "minute", "month", "year"}
_STATISTICS = frozenset(("histogram_avg", "histogram_count", "histogram_sum"))
_BUCKETS = frozenset(("histogram_fraction", "histogram_quantile", "histogram_quantiles"))
_VARIES_WITH_STEP = frozenset(_DATE_FUNCTIONS | {"predict_linear", "time", "timestamp"})
"""Functions whose result depends on the evaluation time even where their arguments do not."""


def plan_query(
    expr: nodes.Expr,
    *,
    start_ms: int,
    end_ms: int,
    step_ms: int,
    lookback_ms: int,
    default_subquery_step_ms: int = 60_000,
) -> Plan:
    """Plan a query.

    Parameters
    ----------
    expr : Expr
        As the parser returns it.
    start_ms, end_ms : int
        First step, and the last time at which a step may lie (inclusive).
    step_ms : int
        Distance of the steps; 0 for an instant query, whose `start_ms` and `end_ms` are equal.
    lookback_ms : int
        How far an instant selector looks back, exclusive.
    default_subquery_step_ms : int
        Step of subqueries that name none.

    Raises
    ------
    QueryError
        A range query that is no vector or scalar.
    DurationError
        A duration expression that gives no valid duration.
    """
    instant = step_ms == 0
    key = (id(expr), end_ms - start_ms, step_ms, lookback_ms, default_subquery_step_ms)
    known = _known_plans.get(key)
    if known is not None and known.expr is expr:
        return known.moved_to(start_ms)
    make_room()
    if not instant and expr.type not in (ValueType.VECTOR, ValueType.SCALAR):
        raise QueryError(
            f'invalid expression type "{expr.type.documented}" for range query, must be Scalar or instant Vector',
            error_type="bad_data",
        )
    planner = _Planner(start_ms, end_ms, step_ms, lookback_ms, default_subquery_step_ms)
    outcome = planner.visit(expr, _Context())
    plan = Plan(
        root=outcome.wrapped(),
        type=expr.type,
        steps=Steps.spanning(start_ms, end_ms, step_ms or 1),
        instant=instant,
        selects=tuple(planner.selects),
        lookback_ms=lookback_ms,
    )
    if not planner.bound and expr.pos.end - expr.pos.start <= _REMEMBERED_CHARS:
        if len(_known_plans) >= _MOST_KNOWN:
            _known_plans.clear()
        _known_plans[key] = _KnownPlan(expr, plan, tuple(planner.stays))
    return plan


@frozen
class _KnownPlan:
    """A plan that is the same at other times, but for the times of steps and reads."""

    expr: nodes.Expr
    """Held, so that no other one gets its identity."""
    plan: Plan
    stays: tuple[bool, ...]
    """Whether a select reads the same times, as `@` says, whenever the query begins."""

    def moved_to(self, start_ms: int) -> Plan:
        """Return the plan of the query as it begins at `start_ms`."""
        plan = self.plan
        steps, by_ms = plan.steps, start_ms - plan.steps.start_ms
        selects = []
        for select, stays in zip(plan.selects, self.stays, strict=True):
            times = (select.start_ms, select.end_ms) if stays else (select.start_ms + by_ms, select.end_ms + by_ms)
            selects.append(Select(select.matchers, *times, select.hints))
        steps = Steps(start_ms, steps.step_ms, steps.count, steps.at_once)
        return Plan(plan.root, plan.type, steps, plan.instant, tuple(selects), plan.lookback_ms)


_known_plans: dict[tuple[int, ...], _KnownPlan] = {}
"""Of the last expressions by identity, for a panel asks the same one of the last hour again and again. Used by any
thread: entries are set and read in one step, and whoever finds none makes the plan."""
_MOST_KNOWN, _REMEMBERED_CHARS = 256, 1000


@frozen
class _Context:
    """What stands around an expression."""

    offset_ms: int = 0
    range_ms: int = 0
    at_ms: int | None = None
    """Sums over the subqueries around it, since the innermost one with `@`; that one's time."""
    step_ms: int | None = None
    """Of the innermost subquery."""
    function: str = ""
    grouping: tuple[str, ...] = ()
    by: bool = False
    statistics: bool = False
    """Whether a function around it takes only counts and sums of histograms."""
    buckets: bool = False
    """Whether something around it, however far, takes their buckets."""


@frozen
class _Outcome:
    """A planned expression: whether it is the same at every step, and is to be wrapped so if nothing above it is."""

    node: PlanNode
    invariant: bool = False
    wrap: bool = False

    def wrapped(self) -> PlanNode:
        """Return the node, marked as step-invariant where that is due."""
        return planned.StepInvariant(self.node) if self.wrap else self.node


class _Planner:
    """Walks one expression; collects its selects in the order of the text."""

    def __init__(self, start_ms: int, end_ms: int, step_ms: int, lookback_ms: int, subquery_step_ms: int) -> None:
        self.selects: list[Select] = []
        self.stays: list[bool] = []
        """Whether `@` says what each reads."""
        self.bound = False
        """Whether the tree holds a time of this query."""
        self._start_ms, self._end_ms, self._step_ms = start_ms, end_ms, step_ms
        self._lookback_ms, self._subquery_step_ms = lookback_ms, subquery_step_ms

    def visit(self, expr: nodes.Expr, context: _Context) -> _Outcome:
        """Plan one expression."""
        match expr:
            case nodes.NumberLiteral():
                return _Outcome(planned.Number(expr.value, expr.pos), True)
            case nodes.StringLiteral():
                return _Outcome(planned.Text(expr.value, expr.pos), True)
            case nodes.ParenExpr():
                return self.visit(expr.expr, context)
            case nodes.VectorSelector():
                node = self._instant_select(expr, context)
                return _Outcome(node, node.shift.at_ms is not None, node.shift.at_ms is not None)
            case nodes.MatrixSelector():
                node = self._range_select(expr, context)
                return _Outcome(node, node.shift.at_ms is not None)
            case nodes.SubqueryExpr():
                return self._subquery(expr, context)
            case nodes.UnaryExpr():
                inner = self.visit(expr.expr, context)
                sign = planned.Plus if expr.op == "+" else planned.Negate
                return replace(inner, node=sign(inner.node, expr.pos))
            case nodes.BinaryExpr():
                return self._binary(expr, context)
            case nodes.AggregateExpr():
                return self._aggregate(expr, context)
            case nodes.Call():
                return self._call(expr, context)
        raise InvariantViolated(f"no plan for {type(expr).__name__}")

    def _duration(self, expr: nodes.DurationExpr | None, literal_ms: int, *, negative: bool = False) -> int:
        return resolve_duration_ms(
            expr,
            literal_ms,
            step_ms=self._step_ms,
            query_range_ms=self._end_ms - self._start_ms,
            negative=negative,
        )

    def _shift(self, expr: nodes.VectorSelector | nodes.SubqueryExpr) -> Shift:
        self.bound |= expr.start_or_end is not None
        at_ms = {"start": self._start_ms, "end": self._end_ms}.get(expr.start_or_end or "", expr.timestamp_ms)
        return Shift(self._duration(expr.offset_expr, expr.offset_ms, negative=True), at_ms)

    def _add_select(
        self,
        matchers: Sequence[Matcher],
        shift: Shift,
        context: _Context,
        *,
        before_ms: int,
        after_ms: int = 0,
        range_ms: int = 0,
        newest_only: bool = False,
    ) -> int:
        """Add a read of `(first - before_ms, last + after_ms]`; first and last are the outermost reference times."""
        if shift.at_ms is not None:
            start = end = shift.at_ms
        else:
            start, end = (self._start_ms, self._end_ms) if context.at_ms is None else (context.at_ms, context.at_ms)
            start -= context.offset_ms + context.range_ms
            end -= context.offset_ms
        step_ms = self._step_ms if context.step_ms is None else context.step_ms
        newest_only &= start == end
        hints = SelectHints(step_ms, range_ms, context.function, context.grouping, context.by, newest_only)
        first, last = start - shift.offset_ms - before_ms, end - shift.offset_ms + after_ms
        self.selects.append(Select(tuple(matchers), first + 1, last + 1, hints))
        self.stays.append(shift.at_ms is not None or context.at_ms is not None)
        return len(self.selects) - 1

    def _instant_select(self, expr: nodes.VectorSelector, context: _Context) -> planned.InstantSelect:
        shift = self._shift(expr)
        select = self._add_select(
            expr.matchers,
            shift,
            context,
            before_ms=self._lookback_ms,
            after_ms=self._lookback_ms if expr.smoothed else 0,
            newest_only=not expr.smoothed,
        )
        statistics = context.statistics and not context.buckets
        return planned.InstantSelect(select, expr.matchers, shift, expr.smoothed, expr.pos, statistics)

    def _range_select(self, expr: nodes.MatrixSelector, context: _Context) -> planned.RangeSelect:
        selector = expr.selector
        shift, range_ms = self._shift(selector), self._duration(expr.range_expr, expr.range_ms)
        extended = self._lookback_ms if selector.anchored or selector.smoothed else 0
        select = self._add_select(
            selector.matchers,
            shift,
            context,
            before_ms=range_ms + extended,
            after_ms=self._lookback_ms if selector.smoothed else 0,
            range_ms=range_ms,
        )
        return planned.RangeSelect(
            select,
            selector.matchers,
            shift,
            range_ms,
            selector.anchored,
            selector.smoothed,
            expr.pos,
            context.statistics and not context.buckets,
        )

    def _subquery(self, expr: nodes.SubqueryExpr, context: _Context) -> _Outcome:
        # In this order Prometheus finds durations that are not valid.
        shift = self._shift(expr)
        step_ms = self._duration(expr.step_expr, expr.step_ms) or self._subquery_step_ms
        range_ms = self._duration(expr.range_expr, expr.range_ms)
        if shift.at_ms is None:
            inside = replace(
                context, offset_ms=context.offset_ms + shift.offset_ms, range_ms=context.range_ms + range_ms
            )
        else:
            inside = replace(context, offset_ms=shift.offset_ms, range_ms=range_ms, at_ms=shift.at_ms)
        # Resets between the steps of a subquery are found by the buckets.
        child = self.visit(expr.expr, replace(inside, step_ms=step_ms, grouping=(), by=False, buckets=True))
        node = planned.StepInvariant(child.node) if child.invariant else child.node
        return _Outcome(planned.Subquery(node, range_ms, step_ms, shift, expr.pos), shift.at_ms is not None)

    def _binary(self, expr: nodes.BinaryExpr, context: _Context) -> _Outcome:
        inside = replace(
            context, function="", grouping=(), by=False, buckets=context.buckets or expr.op in TRIM_OPERATORS
        )
        lhs, rhs = self.visit(expr.lhs, inside), self.visit(expr.rhs, inside)
        invariant = lhs.invariant and rhs.invariant
        left, right = (lhs.node, rhs.node) if invariant else (lhs.wrapped(), rhs.wrapped())
        node = planned.Binary(expr.op, left, right, expr.matching, expr.return_bool, expr.pos)
        return _Outcome(node, invariant, invariant)

    def _aggregate(self, expr: nodes.AggregateExpr, context: _Context) -> _Outcome:
        inside = replace(context, function=expr.op, grouping=expr.grouping, by=not expr.without)
        child = self.visit(expr.expr, inside)
        param = None if expr.param is None else self.visit(expr.param, inside).wrapped()
        node = planned.Aggregate(expr.op, child.node, param, tuple(sorted(set(expr.grouping))), expr.without, expr.pos)
        return replace(child, node=node)

    def _call(self, expr: nodes.Call, context: _Context) -> _Outcome:
        name = expr.func.name
        constants = {
            "start": self._start_ms / 1000,
            "end": self._end_ms / 1000,
            "range": (self._end_ms - self._start_ms) / 1000,
            "step": self._step_ms / 1000 if self._start_ms != self._end_ms else 0.0,
        }
        if name in constants:
            self.bound |= name in ("start", "end")
            return _Outcome(planned.Number(constants[name], expr.pos), True)
        inside = replace(
            context,
            function=name,
            grouping=(),
            by=False,
            statistics=context.statistics or name in _STATISTICS,
            buckets=context.buckets or name in _BUCKETS,
        )
        if name == "info":
            return self._info(expr, inside)
        args = [self.visit(arg, inside) for arg in expr.args]
        of_selectors = all(a.invariant and isinstance(a.node, planned.InstantSelect) for a in args)
        invariant = all(a.invariant for a in args) and (
            name not in _VARIES_WITH_STEP or (name == "timestamp" and of_selectors)
        )
        arguments = tuple(a.node if invariant else a.wrapped() for a in args)
        return _Outcome(planned.Call(name, arguments, expr.pos), invariant, invariant)

    def _info(self, expr: nodes.Call, context: _Context) -> _Outcome:
        child = self.visit(expr.args[0], context)
        selector = expr.args[1] if len(expr.args) > 1 else nodes.VectorSelector()
        names = _info_metrics([m for m in selector.matchers if m.name == METRIC_NAME])
        wanted = tuple(m for m in selector.matchers if m.name != METRIC_NAME)
        shift = _first_shift(child.node)
        select = self._add_select((*names, *wanted), shift, context, before_ms=self._lookback_ms)
        invariant = child.invariant and len(expr.args) == 1
        node = planned.InfoJoin(child.node if invariant else child.wrapped(), select, names, wanted, shift, expr.pos)
        return _Outcome(node, invariant, invariant)


def _info_metrics(matchers: list[Matcher]) -> tuple[Matcher, ...]:
    """Return the matchers that name info metrics: `target_info` by default, `.+_info` where only names are excluded."""
    if not matchers:
        return (Matcher(MatchType.EQUAL, METRIC_NAME, "target_info"),)
    if any(not m.negative for m in matchers):
        return tuple(matchers)
    return (Matcher(MatchType.REGEXP, METRIC_NAME, ".+_info"), *matchers)


def _first_shift(node: PlanNode) -> Shift:
    """Return the time shift of the first selector in a tree, subqueries around it included up to one with `@`."""
    shift = _find_shift(node)
    return shift or Shift()


def _find_shift(node: PlanNode) -> Shift | None:
    match node:
        case planned.InstantSelect() | planned.RangeSelect():
            return node.shift
        case planned.Subquery():
            inner = _find_shift(node.child)
            if inner is None or inner.at_ms is not None:
                return inner
            return Shift(inner.offset_ms + node.shift.offset_ms, node.shift.at_ms)
        case planned.StepInvariant() | planned.Negate() | planned.Plus() | planned.InfoJoin() | planned.Aggregate():
            return _find_shift(node.child)
        case planned.Binary():
            return _find_shift(node.lhs) or _find_shift(node.rhs)
        case planned.Call():
            return next((s for s in map(_find_shift, node.args) if s is not None), None)
    return None
