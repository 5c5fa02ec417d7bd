"""What limits a request of several tenants (spec http-api.md 1.4). Pure but for what is remembered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from mimir_ingest.config.limits import Limits
from mimir_ingest.querier.federation import SEPARATOR

_SMALLEST = (
    "max_total_query_length",
    "max_partial_query_length",
    "max_query_lookback",
    "max_labels_query_length",
    "compactor_blocks_retention_period",
    "max_query_expression_size_bytes",
    "max_fetched_series_per_query",
    "max_fetched_chunks_per_query",
    "max_fetched_chunk_bytes_per_query",
    "max_series_query_limit",
    "max_label_names_limit",
    "max_label_values_limit",
)
"""Limits of which 0 is none."""
_ALLOWED = ("enabled_promql_experimental_functions", "enabled_promql_extended_range_selectors")
_MOST_REMEMBERED = 256


def strictest(several: Sequence[Limits]) -> Limits:
    """Return the smallest of every limit of requests that is set; of what may be allowed, what all may.

    A query that one of the tenants may not ask is blocked, and reads are strong if one of them wants that. Names are
    dropped at the end of a query if all of them want that.
    """
    changed: dict[str, Any] = {}
    for name in _SMALLEST:
        values = [value for value in (getattr(limits, name) for limits in several) if _number(value) > 0]
        if values:
            changed[name] = min(values, key=_number)
    for name in _ALLOWED:
        allowed = [{part.strip() for part in getattr(limits, name).split(",")} for limits in several]
        narrow = [names for names in allowed if "all" not in names]
        changed[name] = ",".join(sorted(set.intersection(*narrow))) if narrow else "all"
    changed["blocked_queries"] = [rule for limits in several for rule in limits.blocked_queries or ()]
    if any(limits.ingest_storage_read_consistency == "strong" for limits in several):
        changed["ingest_storage_read_consistency"] = "strong"
    changed["enable_delayed_name_removal"] = all(limits.enable_delayed_name_removal for limits in several)
    return replace(several[0], **changed)


def limits_of_all(limits_for: Callable[[str], Limits]) -> Callable[[str], Limits]:
    """Return `limits_for` that knows tenants written `a|b`, too; theirs are made again when one of them changes."""
    remembered: dict[str, tuple[list[Limits], Limits]] = {}

    def found(tenant: str) -> Limits:
        if SEPARATOR not in tenant:
            return limits_for(tenant)
        several = [limits_for(one) for one in tenant.split(SEPARATOR)]
        known = remembered.get(tenant)
        if known is None or any(a is not b for a, b in zip(known[0], several, strict=True)):
            if len(remembered) >= _MOST_REMEMBERED:
                remembered.clear()
            known = remembered[tenant] = several, strictest(several)
        return known[1]

    return found


def _number(value: Any) -> float:
    return getattr(value, "ms", value)
