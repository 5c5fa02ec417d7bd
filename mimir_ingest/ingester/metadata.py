"""Metric metadata in memory: per tenant and family what was last received (spec 9.10, 8.7). Decides nothing else."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from dataclasses import dataclass

from mimir_ingest.model.batch import METRIC_TYPES, MetadataColumns


@dataclass(frozen=True, slots=True)
class FamilyMetadata:
    """One item: type's name, help and unit of a metric family."""

    type: str
    help: str
    unit: str


@dataclass(frozen=True, slots=True)
class MetadataLimits:
    """How much of a tenant this process keeps; 0 is no limit."""

    max_families: int = 0
    max_items_of_family: int = 0


@dataclass(slots=True)
class TakenMetadata:
    """What became of a record's items."""

    taken: int = 0
    over_user: int = 0
    """Of families that are over the tenant's limit."""
    over_metric: int = 0
    """Over the limit of their family."""


class MetadataStore:
    """Metadata of all tenants. Any thread.

    Parameters
    ----------
    retain_s
        How long an item is kept after it was last received.
    limits_of
        A tenant's limits; asked once a record.
    """

    def __init__(self, *, retain_s: float, limits_of: Callable[[str], MetadataLimits] | None = None) -> None:
        self._retain_s = retain_s
        self._limits_of = limits_of or (lambda _: MetadataLimits())
        self._lock = threading.Lock()
        self._tenants: dict[str, dict[str, dict[FamilyMetadata, float]]] = {}

    def add(self, tenant: str, columns: MetadataColumns, *, now_s: float) -> TakenMetadata:
        """Take the items of a record, received at `now_s` (monotonic), as far as the limits allow.

        An item that is known is always taken again.
        """
        ends, text = columns.offsets.tolist(), columns.text.tobytes()
        strings = [text[a:b].decode("utf-8", "replace") for a, b in itertools.pairwise(ends)]
        limits, result = self._limits_of(tenant), TakenMetadata()
        with self._lock:
            families = self._tenants.setdefault(tenant, {})
            for i, kind in enumerate(columns.types.tolist()):
                name = METRIC_TYPES[kind] if kind < len(METRIC_TYPES) else METRIC_TYPES[0]
                family, described, unit = strings[3 * i : 3 * i + 3]
                item, items = FamilyMetadata(name, described, unit), families.get(family)
                if items is None and 0 < limits.max_families <= len(families):
                    result.over_user += 1
                elif items is not None and item not in items and 0 < limits.max_items_of_family <= len(items):
                    result.over_metric += 1
                else:
                    families.setdefault(family, {})[item] = now_s
                    result.taken += 1
        return result

    def purge(self, *, now_s: float) -> None:
        """Forget what was not received within the retain period."""
        with self._lock:
            for tenant, families in list(self._tenants.items()):
                for family, items in list(families.items()):
                    for item in [item for item, seen in items.items() if now_s - seen > self._retain_s]:
                        del items[item]
                    if not items:
                        del families[family]
                if not families:
                    del self._tenants[tenant]

    def of(self, tenant: str) -> dict[str, list[FamilyMetadata]]:
        """Return family → its distinct items, families ascending."""
        with self._lock:
            known = {family: list(items) for family, items in self._tenants.get(tenant, {}).items()}
        return {f: sorted(known[f], key=lambda item: (item.type, item.help, item.unit)) for f in sorted(known)}

    def count(self) -> int:
        """Return the number of items."""
        with self._lock:
            return sum(len(items) for families in self._tenants.values() for items in families.values())
