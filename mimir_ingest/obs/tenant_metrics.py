"""What keeps metrics by tenant bounded: tenants that are gone are forgotten, their groups are limited in number."""

from __future__ import annotations

import threading
from collections.abc import Collection
from typing import Any

_OTHER = "other"


def forget_tenants(metrics: Any, tenants: Collection[str]) -> None:
    """Remove the children with one of these values of the label `user` from all metrics of a component's dataclass."""
    for metric in (getattr(metrics, name) for name in metrics.__dataclass_fields__):
        names = getattr(metric, "_labelnames", ())
        if "user" not in names:
            continue
        place = names.index("user")
        # why: the library removes by one tenant at a time, which passes over all children each time.
        for values in [values for values in list(metric._metrics) if values[place] in tenants]:
            metric.remove(*values)


class MetricGroups:
    """Values of the label `group` of a tenant's discard counters: the first `limit` distinct ones, then `other`."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._groups: dict[str, set[str]] = {}

    def of(self, tenant: str, group: str) -> str:
        """Return the value to count under. Any thread."""
        if not group:
            return ""
        with self._lock:
            known = self._groups.setdefault(tenant, set())
            if group not in known:
                if len(known) >= self._limit:
                    return _OTHER
                known.add(group)
        return group

    def forget(self, tenants: Collection[str]) -> None:
        """Drop the groups of tenants that are gone."""
        with self._lock:
            for tenant in tenants:
                self._groups.pop(tenant, None)
