"""What a tenant's limits say of a query: whether it is answered, for which times, and with which texts it is refused.

Pure: times and limits are arguments; 0 is no limit. Source: spec ingest-storage.md 10.6b, http-api.md 6.1 and 15.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from mimir_ingest.config.durations import format_duration
from mimir_ingest.errors import QueryError
from mimir_ingest.model.blocked_queries import BlockedQuery
from mimir_ingest.model.samples import FetchLimits
from mimir_ingest.promql.plan_nodes import Select


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantQueryLimits:
    """What one tenant's limits say of reading and evaluating a query."""

    fetch: FetchLimits = field(default_factory=FetchLimits)
    max_partial_length_ms: int = 0
    """Longest time range of one selector, windows and look-back included."""
    delayed_name_removal: bool = False
    """Whether metric names are dropped at the end of the query and not in each function."""


UNLIMITED = TenantQueryLimits()


def check_blocked(texts: Sequence[str], rules: Sequence[BlockedQuery]) -> None:
    """Raise QueryError (400) if a rule matches one of the forms of an expression."""
    for rule in rules:
        if any(map(rule.matches, texts)):
            reason = f" {rule.reason}" if rule.reason else ""
            text = f"the request has been blocked by the cluster administrator{reason} (err-mimir-query-blocked)"
            raise QueryError(text, error_type="bad_data")


def check_expression_size(expression: str, max_bytes: int) -> None:
    """Raise QueryError (400) for an expression of more than `max_bytes`."""
    size = len(expression.encode("utf-8", "surrogateescape"))
    if 0 < max_bytes < size:
        raise QueryError(
            _adjustable(
                f"the raw query size in bytes exceeds the limit (query size: {size}, limit: {max_bytes})",
                "max-query-expression-size-bytes",
                "query-frontend.max-query-expression-size-bytes",
            ),
            error_type="bad_data",
        )


def check_total_length(start_ms: int, end_ms: int, max_ms: int) -> None:
    """Raise QueryError (400) if a query's steps span more than `max_ms`."""
    if 0 < max_ms < end_ms - start_ms:
        raise QueryError(
            _adjustable(
                f"the total query time range exceeds the limit ({_lengths(end_ms - start_ms, max_ms)})",
                "max-total-query-length",
                "query-frontend.max-total-query-length",
            ),
            error_type="bad_data",
        )


def check_partial_lengths(selects: Iterable[Select], max_ms: int) -> None:
    """Raise QueryError (422) if a selector reads more than `max_ms`, windows and look-back included."""
    check_partial_length(max((s.end_ms - s.start_ms for s in selects), default=0), max_ms)


def check_partial_length(length_ms: int, max_ms: int) -> None:
    """Raise QueryError (422) if a selector reads `length_ms`, which is more than `max_ms`."""
    if 0 < max_ms < length_ms:
        raise QueryError(
            _adjustable(
                f"the query time range exceeds the limit ({_lengths(length_ms, max_ms)})",
                "max-query-length",
                "querier.max-partial-query-length",
            )
        )


def earliest_ms(now_ms: int, *periods_ms: int) -> int | None:
    """Return the time before which nothing is read, None where no period limits it; the shortest period counts."""
    limits = [period for period in periods_ms if period > 0]
    return now_ms - min(limits) if limits else None


def clamp_range(start_ms: int, end_ms: int, earliest: int | None) -> tuple[int, int] | None:
    """Return an inclusive time range without what is too old; None if that is all of it."""
    if earliest is None:
        return start_ms, end_ms
    return None if end_ms < earliest else (max(start_ms, earliest), end_ms)


def clamp_labels_range(start_ms: int, end_ms: int, *, now_ms: int, max_length_ms: int) -> tuple[int, int]:
    """Return the inclusive time range of a request for labels, not longer than `max_length_ms`; its end stays."""
    if max_length_ms <= 0:
        return start_ms, end_ms
    end_ms = max(min(end_ms, now_ms), start_ms)
    return max(start_ms, end_ms - max_length_ms), end_ms


def clamp_count(limit: int, max_count: int, flag: str) -> tuple[int, str | None]:
    """Return how many items a request for labels or series gets (0: all), and the warning if that is not its limit.

    Source: http-api.md 15: the number that is told as requested is one more than the limit, as Prometheus hands it on.
    """
    requested = limit + 1 if limit else 0
    if max_count <= 0 or 0 < requested <= max_count:
        return limit, None
    told = f"results may be truncated due to {flag} (requested limit: {requested}, enforced: {max_count})"
    return (min(limit, max_count) if limit else max_count), told


def _adjustable(text: str, error_id: str, flag: str) -> str:
    return (
        f"{text} (err-mimir-{error_id}). To adjust the related per-tenant limit, configure -{flag}, or contact your "
        "service administrator."
    )


def _lengths(length_ms: int, limit_ms: int) -> str:
    length, limit = (format_duration(ms * 1_000_000) for ms in (length_ms, limit_ms))
    return f"query length: {length}, limit: {limit}"
