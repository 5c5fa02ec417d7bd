"""Asking one process for what it has in memory of some partitions: the contract, and this process's own ingester.

An owner answers for every partition that it is asked for, with what is demanded, or fails as a whole. Its answer says
how far each partition goes, and what it has let go of: that is in blocks, which either stand in the answer or in the
checkpoint of a cut.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import field
from typing import Generic, Protocol, TypeVar

import numpy as np

from mimir_ingest.errors import LogUnavailable
from mimir_ingest.ingester.census import CensusAsk, CensusPart, TenantTotals
from mimir_ingest.ingester.exemplars import SeriesExemplars
from mimir_ingest.ingester.head_answer import HeadAnswer, PartitionCut
from mimir_ingest.ingester.lag import PartitionLag
from mimir_ingest.ingester.metadata import FamilyMetadata
from mimir_ingest.ingester.read_gate import Demand
from mimir_ingest.ingester.service import Ingester
from mimir_ingest.model.frozen import frozen
from mimir_ingest.model.labels import LabelFrame
from mimir_ingest.model.matchers import Matcher
from mimir_ingest.model.samples import SampleBudget, SeriesSamples

Found = TypeVar("Found")


@frozen
class HeadAsk:
    """What is wanted of a tenant's heads."""

    tenant: str
    partitions: frozenset[int]
    matchers: tuple[Matcher, ...] = ()
    start_ms: int = 0
    end_ms: int = 0
    """Times in `[start_ms, end_ms)`."""
    wait_offsets: Mapping[int, int] = field(default_factory=dict)
    """Partition → first offset that need not be contained; the owner waits for the rest."""
    max_delay_s: float | None = None
    """Age (s) of the newest write that may be missing, where nothing is waited for."""
    newest_only: bool = False
    """Whether of each series only the newest sample is wanted; the others may be left out."""

    @property
    def demand(self) -> Demand:
        """Return what `Ingester`'s reads are told."""
        wanted = {p: offset for p, offset in self.wait_offsets.items() if p in self.partitions}
        return Demand(self.partitions, wanted or None, self.max_delay_s)


@frozen
class OwnerAnswer(Generic[Found]):
    """What one owner has."""

    found: list[Found]
    """Parts in order of precedence; series and names may be in several of them."""
    next_offsets: Mapping[int, int]
    """Partition → first offset that may be missing."""
    cuts: list[PartitionCut] = field(default_factory=list)
    """What it has let go of, with the blocks."""
    cut_offsets: Mapping[int, int] = field(default_factory=dict)
    """The same where the blocks still have to be looked up: partition → cut offset."""


class Owner(Protocol):
    """A process that owns partitions.

    Every call raises LogUnavailable, OwnerError, ReadConsistencyUnmet (another owner may do better) or a ClientError.
    Cancelling one ends its work.
    """

    async def select(self, ask: HeadAsk, budget: SampleBudget) -> OwnerAnswer[SeriesSamples]:
        """Return the samples of the series that satisfy all matchers. Raises QueryError for too many of them."""

    async def label_frame(self, ask: HeadAsk) -> OwnerAnswer[LabelFrame]:
        """Return the label sets that satisfy all matchers."""

    async def label_names(self, ask: HeadAsk) -> OwnerAnswer[list[str]]:
        """Return the label names of those, ascending."""

    async def label_values(self, ask: HeadAsk, name: str) -> OwnerAnswer[list[str]]:
        """Return the values of a label of those, ascending."""

    async def metadata(self, ask: HeadAsk) -> OwnerAnswer[dict[str, list[FamilyMetadata]]]:
        """Return what is known of metric families."""

    async def exemplars(self, ask: HeadAsk) -> OwnerAnswer[list[SeriesExemplars]]:
        """Return the exemplars of the series that satisfy all matchers."""

    async def census(self, ask: HeadAsk, what: CensusAsk) -> OwnerAnswer[CensusPart]:
        """Count the series that satisfy all matchers. Raises QueryError for an answer over its bound."""

    async def tenant_totals(self) -> dict[str, TenantTotals]:
        """Return tenant → series and rates in all its partitions."""

    async def lags(self, tenant: str) -> list[PartitionLag]:
        """Return how far each of its partitions is behind the log."""


def names_of(frame: LabelFrame) -> list[str]:
    """Return the label names that are in use, ascending."""
    return [name for name, codes in zip(frame.names, frame.codes, strict=True) if (codes >= 0).any()]


def values_of(frame: LabelFrame, name: str) -> list[str]:
    """Return the values of a label that are in use, ascending."""
    column = frame.column(name)
    if column is None:
        return []
    codes, dictionary = column
    return sorted({dictionary[code] for code in np.unique(codes).tolist() if code >= 0})


class LocalOwner:
    """This process's own ingester, asked without HTTP."""

    def __init__(self, ingester: Ingester) -> None:
        self._ingester = ingester

    def readable(self) -> frozenset[int]:
        """Return the partitions that have caught up."""
        return frozenset(self._ingester.next_offsets())

    def select_now(
        self,
        tenant: str,
        partitions: frozenset[int],
        matchers: Sequence[Matcher],
        start_ms: int,
        end_ms: int,
        budget: SampleBudget,
        max_delay_s: float | None,
    ) -> HeadAnswer | None:
        """Return what `select` does if it is at hand and small, else None. Raises QueryError."""
        demand = Demand(partitions, None, max_delay_s)
        return self._ingester.select_now(tenant, matchers, start_ms, end_ms, budget, demand)

    async def select(self, ask: HeadAsk, budget: SampleBudget) -> OwnerAnswer[SeriesSamples]:
        """See `Owner`."""
        answer = await self._ingester.select(
            ask.tenant,
            ask.matchers,
            ask.start_ms,
            ask.end_ms,
            budget,
            demand=ask.demand,
            newest_only=ask.newest_only,
        )
        return OwnerAnswer(answer.series, answer.next_offsets, answer.cuts)

    async def label_frame(self, ask: HeadAsk) -> OwnerAnswer[LabelFrame]:
        """See `Owner`."""
        before = self._ingester.next_offsets(ask.partitions)
        frames = await self._ingester.label_frame(ask.tenant, ask.matchers, ask.start_ms, ask.end_ms, demand=ask.demand)
        # What waiting has brought may be more than was there before; never less.
        waited = {p: max(offset, ask.wait_offsets.get(p, 0)) for p, offset in before.items()}
        cuts = self._ingester.cuts(ask.tenant, ask.partitions)
        after = self._ingester.next_offsets(ask.partitions)
        lost = sorted(p for p in ask.partitions if p not in before or p not in after or after[p] < waited[p])
        if lost:
            raise LogUnavailable(f"partitions {lost} began to recover while they were read")
        return OwnerAnswer(frames, waited, cuts)

    async def label_names(self, ask: HeadAsk) -> OwnerAnswer[list[str]]:
        """See `Owner`."""
        answer = await self.label_frame(ask)
        return OwnerAnswer([names_of(frame) for frame in answer.found], answer.next_offsets, answer.cuts)

    async def label_values(self, ask: HeadAsk, name: str) -> OwnerAnswer[list[str]]:
        """See `Owner`."""
        answer = await self.label_frame(ask)
        values = await asyncio.to_thread(lambda: [values_of(frame, name) for frame in answer.found])
        return OwnerAnswer(values, answer.next_offsets, answer.cuts)

    async def metadata(self, ask: HeadAsk) -> OwnerAnswer[dict[str, list[FamilyMetadata]]]:
        """See `Owner`."""
        found = await self._ingester.metadata(ask.tenant, demand=ask.demand)
        return OwnerAnswer([found], self._ingester.next_offsets(ask.partitions))

    async def exemplars(self, ask: HeadAsk) -> OwnerAnswer[list[SeriesExemplars]]:
        """See `Owner`."""
        found = await self._ingester.exemplars(ask.tenant, ask.matchers, ask.start_ms, ask.end_ms, demand=ask.demand)
        return OwnerAnswer([found], self._ingester.next_offsets(ask.partitions))

    async def census(self, ask: HeadAsk, what: CensusAsk) -> OwnerAnswer[CensusPart]:
        """See `Owner`."""
        found = await self._ingester.census(ask.tenant, ask.matchers, what, demand=ask.demand)
        return OwnerAnswer([found], self._ingester.next_offsets(ask.partitions))

    async def tenant_totals(self) -> dict[str, TenantTotals]:
        """See `Owner`."""
        return self._ingester.tenant_totals()

    async def lags(self, tenant: str) -> list[PartitionLag]:
        """See `Owner`."""
        return await self._ingester.lags(tenant)
