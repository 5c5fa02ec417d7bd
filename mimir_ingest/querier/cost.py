"""Whether a query is so small that going to a thread and back would take longer than evaluating it: a pure estimate."""

from __future__ import annotations

from collections.abc import Sequence

from mimir_ingest.model.samples import SeriesSamples
from mimir_ingest.promql.nodes import BinaryExpr, Call, Expr, SubqueryExpr, walk
from mimir_ingest.promql.operators.elementwise import GO_FUNCTIONS
from mimir_ingest.promql.plan_nodes import Plan

SMALL_NODES = 30
"""Operators of a small query. why: one costs 10 to 50 microseconds, whatever it works on."""
SMALL_VALUES = 50_000
"""Values that a small query passes over. why: the slowest operators take 10 ns each."""


def is_small(expression: Expr, plan: Plan, data: Sequence[SeriesSamples]) -> bool:
    """Whether evaluating `plan`, made of `expression`, over `data` (as for `evaluate`) takes about 1 ms at most.

    Subqueries, whose steps are their own, and native histograms are never small; nor are mathematical functions, whose
    kernels are made at their first call.
    """
    nodes = _small_nodes(expression)
    if nodes is None:
        return False
    steps = plan.steps.count
    values = nodes * steps
    for select, samples in zip(plan.selects, data, strict=True):
        if samples.histograms is not None:
            return False
        held = samples.sample_count
        values += held + nodes * samples.series_count * steps
        if select.hints.range_ms:
            # Each step's window passes over its share of the samples.
            span_ms = max(1, select.end_ms - select.start_ms)
            values += steps * (held * min(select.hints.range_ms, span_ms) // span_ms)
    return values <= SMALL_VALUES


_known_nodes: dict[int, tuple[Expr, int | None]] = {}
"""Small operators of expressions, by identity: what is asked again has one tree."""
_MOST_KNOWN, _REMEMBERED_CHARS = 256, 1000
"""As of plans (`promql.plan`), for a tree is held as long as it is known."""


def _small_nodes(expression: Expr) -> int | None:
    """Return how many operators there are, None if they are too many or one of them is never small."""
    known = _known_nodes.get(id(expression))
    if known is not None and known[0] is expression:
        return known[1]
    nodes = _count_small(expression)
    if expression.pos.end - expression.pos.start <= _REMEMBERED_CHARS:
        if len(_known_nodes) >= _MOST_KNOWN:
            _known_nodes.clear()
        _known_nodes[id(expression)] = expression, nodes
    return nodes


def _count_small(expression: Expr) -> int | None:
    nodes = 0
    for node in walk(expression):
        nodes += 1
        if nodes > SMALL_NODES or isinstance(node, SubqueryExpr) or _needs_go_math(node):
            return None
    return nodes


def _needs_go_math(node: Expr) -> bool:
    match node:
        case Call():
            return node.func.name in GO_FUNCTIONS
        case BinaryExpr():
            return node.op in ("^", "atan2")
    return False
