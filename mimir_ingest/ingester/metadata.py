"""Metric metadata in memory: per tenant and family what was last received (spec 9.10). Decides nothing else."""

from __future__ import annotations

import itertools
import threading
from dataclasses import dataclass

from mimir_ingest.model.batch import METRIC_TYPES, MetadataColumns


@dataclass(frozen=True, slots=True)
class FamilyMetadata:
    """One item: type's name, help and unit of a metric family."""

    type: str
    help: str
    unit: str


class MetadataStore:
    """Metadata of all tenants. Any thread."""

    def __init__(self, *, retain_s: float) -> None:
        self._retain_s = retain_s
        self._lock = threading.Lock()
        self._tenants: dict[str, dict[tuple[str, FamilyMetadata], float]] = {}

    def add(self, tenant: str, columns: MetadataColumns, *, now_s: float) -> int:
        """Take the items of a record, received at `now_s` (monotonic). Returns how many."""
        ends, text = columns.offsets.tolist(), columns.text.tobytes()
        strings = [text[a:b].decode("utf-8", "replace") for a, b in itertools.pairwise(ends)]
        with self._lock:
            items = self._tenants.setdefault(tenant, {})
            for i, kind in enumerate(columns.types.tolist()):
                name = METRIC_TYPES[kind] if kind < len(METRIC_TYPES) else METRIC_TYPES[0]
                family, described, unit = strings[3 * i : 3 * i + 3]
                items[family, FamilyMetadata(name, described, unit)] = now_s
        return len(columns)

    def purge(self, *, now_s: float) -> None:
        """Forget what was not received within the retain period."""
        with self._lock:
            for tenant, items in list(self._tenants.items()):
                for key in [k for k, seen in items.items() if now_s - seen > self._retain_s]:
                    del items[key]
                if not items:
                    del self._tenants[tenant]

    def of(self, tenant: str) -> dict[str, list[FamilyMetadata]]:
        """Return family → its distinct items, families ascending."""
        with self._lock:
            known = list(self._tenants.get(tenant, ()))
        families: dict[str, list[FamilyMetadata]] = {}
        for family, item in sorted(known, key=lambda pair: (pair[0], pair[1].type, pair[1].help, pair[1].unit)):
            families.setdefault(family, []).append(item)
        return families

    def count(self) -> int:
        """Return the number of items."""
        with self._lock:
            return sum(len(items) for items in self._tenants.values())
