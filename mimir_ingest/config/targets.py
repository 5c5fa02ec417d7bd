"""What `-target` names: components, and the names that stand for several of them. Pure.

    all = distributor, ingester, querier, bucket-upkeep
    write = distributor, ingester      read = querier      backend = bucket-upkeep

The groups are Mimir's, restricted to what is here (https://grafana.com/docs/mimir: deployment modes). What a component
needs of the process (log, ring, bucket, listeners) is the composition root's table, in `modules`.
"""

from __future__ import annotations

from collections.abc import Mapping

COMPONENTS = ("bucket-upkeep", "distributor", "ingester", "querier")
"""What a process can be made of, ascending."""
GROUPS: Mapping[str, tuple[str, ...]] = {
    "all": COMPONENTS,
    "backend": ("bucket-upkeep",),
    "read": ("querier",),
    "write": ("distributor", "ingester"),
}
"""Names of several components."""
MIMIR_ONLY = frozenset(
    {"alertmanager", "compactor", "continuous-test", "flusher", "overrides-exporter", "query-frontend"}
    | {"query-scheduler", "ruler", "store-gateway", "usage-tracker"}
)
"""Targets of Mimir's whose work is done elsewhere, or not, here."""


def names(target: str) -> list[str]:
    """Return the names in a comma-separated target, in their order."""
    return [name.strip() for name in target.split(",") if name.strip()]


def components(target: str) -> frozenset[str]:
    """Return the components that a target runs; a name that is neither component nor group is one of its own."""
    return frozenset(c for name in names(target) for c in GROUPS.get(name, (name,)))


def listing() -> list[str]:
    """Return every name that `-target` takes, ascending; those that `all` contains are marked with a star."""
    return sorted([*GROUPS, *(f"{name} *" for name in GROUPS["all"])])
