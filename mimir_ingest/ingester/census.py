"""What an ingester answers when it is asked about a tenant's series, instead of its samples.

Only heads are looked at, never blocks. Every partition counts by itself; a partition is asked of one owner only, so
nothing is counted twice. Source: spec http-api.md 6.10 to 6.14.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from mimir_ingest.errors import QueryError
from mimir_ingest.ingester.ingestion_rates import NO_RATES, IngestionRates, Rates
from mimir_ingest.ingester.partition import PartitionState
from mimir_ingest.model.matchers import Matcher
from mimir_ingest.model.spans import Check
from mimir_ingest.tsdb.tally import Counted


class CensusKind(StrEnum):
    """What is counted."""

    TOTALS = "totals"
    """Nothing but the number of series."""
    PAIRS = "pairs"
    """Series of each label pair; one column of counts, which add up."""
    SERIES = "series"
    """Label sets; no counts."""
    HISTOGRAMS = "histograms"
    """Metrics with native histograms; counts are those of `tsdb.census`."""

    @property
    def columns(self) -> tuple[int, int]:
        """Return (columns of counts, how many of them add up)."""
        return {"totals": (0, 0), "pairs": (1, 1), "series": (0, 0), "histograms": (4, 2)}[self]


@dataclass(frozen=True, slots=True)
class CensusAsk:
    """What is wanted, besides tenant and selector."""

    kind: CensusKind
    active: bool = False
    """Only series that got a sample within the ingester's idle timeout."""
    names: frozenset[str] | None = None
    """Label names whose pairs are counted; None: all."""
    max_bytes: int = 0
    """Bytes of labels that an answer may have; 0 is no bound."""


@dataclass(frozen=True, slots=True)
class CensusPart:
    """One owner's answer, for the partitions that it was asked for."""

    series: int
    """Series of the tenant (the active ones if so asked), whatever the selector."""
    rates: Rates
    counted: Counted
    """Entries may come several times, once a partition."""


def count_partition(
    state: PartitionState,
    tenant: str,
    matchers: Sequence[Matcher],
    ask: CensusAsk,
    since_ms: int,
    check: Check | None = None,
) -> tuple[int, Counted]:
    """Return (series of a tenant in a partition, what was asked for of those that satisfy all matchers).

    Active is what got a sample at `since_ms` or later. `check` is called between parts of the work. Raises QueryError
    (413) for an answer over its bound.
    """
    head = state.heads.get(tenant)
    if head is None:
        return 0, Counted.empty(ask.kind.columns[0])
    census = head.census(matchers)
    since = since_ms if ask.active else None
    everything = census.select((), since)
    if ask.kind is CensusKind.TOTALS:
        return len(everything), Counted.empty(0)
    refs = census.select(matchers, since, check) if matchers else everything
    match ask.kind:
        case CensusKind.PAIRS:
            counted = census.pairs(refs, ask.names, check)
        case CensusKind.SERIES:
            counted = census.series(refs)
        case _:
            counted = census.histograms(refs)
    if 0 < ask.max_bytes < counted.nbytes:
        raise census_too_large(ask)
    return len(everything), counted


def join_parts(parts: Sequence[tuple[int, Counted]], rates: Rates, kind: CensusKind) -> CensusPart:
    """Return several partitions' answers as one owner's."""
    if len(parts) == 1:
        return CensusPart(parts[0][0], rates, parts[0][1])
    counted = [part for _, part in parts if len(part)] or [Counted.empty(kind.columns[0])]
    starts = np.cumsum([0, *(part.nbytes for part in counted)])
    offsets = [part.offsets[:-1] + start for part, start in zip(counted, starts, strict=False)]
    joined = Counted(
        np.concatenate([part.labels for part in counted]),
        np.concatenate([*offsets, starts[-1:]]),
        np.concatenate([part.counts for part in counted]),
    )
    return CensusPart(sum(series for series, _ in parts), rates, joined)


@dataclass(frozen=True, slots=True)
class TenantTotals:
    """A tenant in the partitions of one ingester, or of several."""

    series: int = 0
    rates: Rates = NO_RATES

    def plus(self, other: TenantTotals) -> TenantTotals:
        """Return both together."""
        return TenantTotals(self.series + other.series, self.rates.plus(other.rates))


def total_tenants(states: Mapping[int, PartitionState], rates: IngestionRates) -> dict[str, TenantTotals]:
    """Return tenant → its series and rates in these partitions; tenants with series only."""
    series: dict[str, int] = {}
    for state in states.values():
        for tenant, head in list(state.heads.items()):
            if head.live_count:
                series[tenant] = series.get(tenant, 0) + head.live_count
    return {tenant: TenantTotals(count, rates.of(tenant, states)) for tenant, count in sorted(series.items())}


def census_too_large(ask: CensusAsk) -> QueryError:
    """Return the error of an answer with more bytes of labels than asked for, with Mimir's text."""
    if ask.kind is CensusKind.SERIES or ask.kind is CensusKind.HISTOGRAMS:
        text = "response too large: try increasing the requested shard count"
        return QueryError(text, http_status=413)
    text = f"size of distinct label names and values is greater than {ask.max_bytes} bytes"
    return QueryError(text, error_type="internal", http_status=500)
