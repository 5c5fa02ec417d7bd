"""Which experimental features a query uses, and whether a tenant has them.

Mimir's two per-tenant switches are lists of names, or `all`; both are empty by default:
`enabled_promql_experimental_functions` (functions and aggregations) and `enabled_promql_extended_range_selectors`
(`anchored`, `smoothed`). Duration expressions and `fill` modifiers have no switch.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from mimir_ingest.promql.functions_table import EXPERIMENTAL_AGGREGATIONS
from mimir_ingest.promql.nodes import AggregateExpr, Call, Expr, VectorSelector, walk

ALL = "all"
FUNCTION, AGGREGATION, SELECTOR_MODIFIER = "function", "aggregation", "extended range selector modifier"


@dataclass(frozen=True, slots=True)
class ExperimentalFeature:
    """One experimental feature, as a query uses it."""

    kind: str
    """`function`, `aggregation` or `extended range selector modifier`."""
    name: str

    @property
    def not_enabled(self) -> str:
        """Mimir's reason for refusing it."""
        return f'experimental {self.kind} "{self.name}" is not enabled for tenant'


def experimental_features(expr: Expr) -> Iterator[ExperimentalFeature]:
    """Yield the experimental features that an expression uses, outer ones first, left to right."""
    for node in walk(expr):
        match node:
            case Call() if node.func.experimental:
                yield ExperimentalFeature(FUNCTION, node.func.name)
            case AggregateExpr() if node.op in EXPERIMENTAL_AGGREGATIONS:
                yield ExperimentalFeature(AGGREGATION, node.op)
            case VectorSelector(anchored=True):
                yield ExperimentalFeature(SELECTOR_MODIFIER, "anchored")
            case VectorSelector(smoothed=True):
                yield ExperimentalFeature(SELECTOR_MODIFIER, "smoothed")


def find_disabled_feature(
    expr: Expr, *, enabled_functions: Collection[str], enabled_extended_range_selectors: Collection[str]
) -> ExperimentalFeature | None:
    """Return the first experimental feature of an expression that a tenant does not have, or None."""
    for feature in experimental_features(expr):
        enabled = enabled_extended_range_selectors if feature.kind == SELECTOR_MODIFIER else enabled_functions
        if ALL not in enabled and feature.name not in enabled:
            return feature
    return None
