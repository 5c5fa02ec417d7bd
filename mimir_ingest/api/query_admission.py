"""A tenant's limits applied to a request of the query API, before anything is read. Pure.

Source: spec http-api.md 6.1 (time clamps, experimental PromQL), 15 (texts).
"""

from __future__ import annotations

from dataclasses import dataclass

from mimir_ingest.api.params import bad_parameter
from mimir_ingest.config.limits import Limits
from mimir_ingest.model.blocked_queries import parse_blocked_queries
from mimir_ingest.model.frozen import frozen
from mimir_ingest.model.samples import FetchLimits
from mimir_ingest.promql.features import experimental_features, find_disabled_feature
from mimir_ingest.promql.nodes import Expr
from mimir_ingest.promql.parser import parse_expr
from mimir_ingest.promql.printer import format_expr
from mimir_ingest.querier.query_limits import (
    TenantQueryLimits,
    check_blocked,
    check_expression_size,
    check_partial_length,
    check_total_length,
    clamp_labels_range,
    clamp_range,
    earliest_ms,
)


@frozen
class Admitted:
    """A query that may run, for the times that may be asked."""

    start_ms: int
    end_ms_incl: int
    earliest_ms: int | None
    """Time before which no sample is read; None: there is none."""
    limits: TenantQueryLimits


@dataclass(frozen=True, slots=True)
class Question:
    """An expression as it was typed, with what is known of it."""

    text: str
    expression: Expr
    experimental: bool
    """Whether it uses anything that not every tenant has."""

    @classmethod
    def parse(cls, text: str) -> Question:
        """Read an expression. Raises QueryError with the parser's position."""
        expression = parse_expr(text)
        return cls(text, expression, next(experimental_features(expression), None) is not None)


def admit_query(limits: Limits, question: Question, *, start_ms: int, end_ms_incl: int, now_ms: int) -> Admitted | None:
    """Return what a tenant may ask, None if all of its time range is too old.

    Raises QueryError (400): an expression too long or blocked, a time range too long, a feature that the tenant does
    not have.
    """
    text, expression, bounds = question.text, question.expression, _bounds(limits)
    if limits.max_query_expression_size_bytes:
        check_expression_size(text, limits.max_query_expression_size_bytes)
    if bounds.total_length_ms:
        check_total_length(start_ms, end_ms_incl, bounds.total_length_ms)
    if limits.blocked_queries:
        # Mimir compares with the expression as it prints it; rules often hold what somebody typed.
        check_blocked((format_expr(expression), text), parse_blocked_queries(limits.blocked_queries))
    if question.experimental:
        disabled = find_disabled_feature(
            expression,
            enabled_functions=_names(limits.enabled_promql_experimental_functions),
            enabled_extended_range_selectors=_names(limits.enabled_promql_extended_range_selectors),
        )
        if disabled:
            raise bad_parameter("query", disabled.not_enabled)
    if not any(bounds.periods_ms):
        return Admitted(start_ms, end_ms_incl, None, bounds.reads)
    earliest = earliest_ms(now_ms, *bounds.periods_ms)
    clamped = clamp_range(start_ms, end_ms_incl, earliest)
    return None if clamped is None else Admitted(*clamped, earliest, bounds.reads)


@frozen
class _Bounds:
    """What a tenant's limits say of every query."""

    limits: Limits
    total_length_ms: int
    periods_ms: tuple[int, int]
    reads: TenantQueryLimits


_known_bounds: dict[int, _Bounds] = {}
"""By identity of the limits: these are made once, when the configuration is read."""
_MOST_KNOWN = 1000


def _bounds(limits: Limits) -> _Bounds:
    known = _known_bounds.get(id(limits))
    if known is None or known.limits is not limits:
        if len(_known_bounds) >= _MOST_KNOWN:
            _known_bounds.clear()
        reads = TenantQueryLimits(
            fetch=fetch_limits(limits),
            max_partial_length_ms=limits.max_partial_query_length.ms,
            delayed_name_removal=limits.enable_delayed_name_removal,
        )
        known = _Bounds(limits, limits.max_total_query_length.ms, _periods_ms(limits), reads)
        _known_bounds[id(limits)] = known
    return known


def admit_read(
    limits: Limits, selector: str, start_ms: int, end_ms_incl: int, *, now_ms: int
) -> tuple[int, int] | None:
    """Return the times (ms, both inclusive) of a remote read's query that a tenant may see, None: they are too old.

    `selector` is the query's matchers in braces, which is what `blocked_queries` is compared with. Raises QueryError:
    400 for what the front end refuses (blocked, all times too long), 422 for a time range that the querier refuses.
    """
    check_total_length(start_ms, end_ms_incl, limits.max_total_query_length.ms)
    if limits.blocked_queries:
        check_blocked((selector,), parse_blocked_queries(limits.blocked_queries))
    clamped = clamp_range(start_ms, end_ms_incl, earliest_ms(now_ms, *_bounds(limits).periods_ms))
    if clamped is not None:
        check_partial_length(clamped[1] - clamped[0], limits.max_partial_query_length.ms)
    return clamped


@frozen
class Listing:
    """What a request for series, label names or label values may have."""

    times: tuple[int, int] | None
    """`[start, end)` (ms); None: all that was asked for is too old."""
    limit: int
    """Items asked for at most; 0 is no bound."""
    enforced: int
    """Items that the tenant gets at most; 0 is no bound."""
    warnings: tuple[str, ...]


def admit_listing(
    limits: Limits, limit: int, clamped: tuple[int, str | None], *, start_ms: int, end_ms_incl: int, now_ms: int
) -> Listing:
    """Return what a tenant may have that asks for `limit` items; `clamped` is what `clamp_count` makes of that."""
    enforced, warning = clamped
    window = clamp_range(start_ms, end_ms_incl, earliest_ms(now_ms, *_bounds(limits).periods_ms))
    if window is None:
        return Listing(None, limit, 0, ())
    start, end = clamp_labels_range(*window, now_ms=now_ms, max_length_ms=limits.max_labels_query_length.ms)
    return Listing((start, end + 1), limit, enforced if warning else 0, () if warning is None else (warning,))


def fetch_limits(limits: Limits) -> FetchLimits:
    """Return a tenant's bounds on what a query reads."""
    return FetchLimits(
        max_series=limits.max_fetched_series_per_query,
        max_chunks=limits.max_fetched_chunks_per_query,
        max_chunk_bytes=limits.max_fetched_chunk_bytes_per_query,
    )


def _periods_ms(limits: Limits) -> tuple[int, int]:
    """Return how far back a tenant may read, 0 being no bound."""
    return limits.max_query_lookback.ms, limits.compactor_blocks_retention_period.ms


def _names(text: str) -> frozenset[str]:
    return frozenset(part.strip() for part in text.split(","))
