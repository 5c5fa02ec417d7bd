"""Reads of heads wherever they are: one healthy owner of each partition, the next one when it fails.

    partitions of the tenant ─► plan: grouped by owner, this process first ─► ask all groups at a time
                                  ▲                                             │ failed, or silent for a while
                                  └────────── the same partitions, other owners ┘
    no owner left ─► whole in the bucket? ─► its blocks stand for it, else the read fails (or is partial, if asked for)

An owner answers for all partitions that it is asked for, with what was demanded, or fails as a whole. Errors that are
the client's fault end the read at once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Generic

import structlog

from mimir_ingest.errors import IngestError, OwnerUnavailable
from mimir_ingest.ingester.census import CensusAsk, CensusPart
from mimir_ingest.ingester.drain import Drain, DrainProbe
from mimir_ingest.ingester.exemplars import SeriesExemplars
from mimir_ingest.ingester.lag import PartitionLag
from mimir_ingest.ingester.metadata import FamilyMetadata
from mimir_ingest.model.labels import LabelFrame
from mimir_ingest.model.matchers import Matcher
from mimir_ingest.model.samples import SampleBudget, SeriesSamples
from mimir_ingest.obs.querier_metrics import HeadReadMetrics
from mimir_ingest.querier.checkpoint_cuts import CheckpointCuts
from mimir_ingest.querier.concurrency import cancel_all, run_all
from mimir_ingest.querier.demands import Demands
from mimir_ingest.querier.heads import HeadsAnswer
from mimir_ingest.querier.ingester_client import IngesterClient
from mimir_ingest.querier.owner import Found, HeadAsk, LocalOwner, Owner, OwnerAnswer
from mimir_ingest.querier.read_plan import Targets, Tried, plan_reads
from mimir_ingest.querier.reading import Reading
from mimir_ingest.querier.ring_view import RingView
from mimir_ingest.tsdb.columns_file import ColumnsFileCorrupt
from partitions.errors import PartitionError, TooManyUnhealthyInstances
from partitions.model import InstanceDesc

_log = structlog.get_logger()

LAG_TIMEOUT_S = 10.0
"""How long an owner may take to look through what it has not applied yet."""


@dataclass(frozen=True, slots=True)
class _Work(Generic[Found]):
    """One read of all partitions."""

    ask: HeadAsk
    call: Callable[[Owner, HeadAsk], Awaitable[OwnerAnswer[Found]]]
    targets: Targets
    unread: dict[int, str] | None
    """Where partitions go that cannot be read, with the reason; None: such a partition fails the read."""


class PartitionOwners:
    """The heads of all processes. Used from one event loop.

    Parameters
    ----------
    local_id, local
        Instance id of this process and its own ingester, None without one.
    hedge_s : float
        After this time (s) without an answer the next owner is asked as well; 0 is never.
    """

    def __init__(
        self,
        ring: RingView,
        client: IngesterClient,
        *,
        local_id: str,
        local: LocalOwner | None,
        demands: Demands,
        checkpoints: CheckpointCuts,
        drains: DrainProbe,
        hedge_s: float,
        metrics: HeadReadMetrics,
    ) -> None:
        self._ring, self._client = ring, client
        self._local_id, self._local = local_id, local
        self._demands, self._checkpoints, self._drains = demands, checkpoints, drains
        self._hedge_s, self._metrics = hedge_s, metrics

    # --- reads (see `heads.Heads`) ----------------------------------------------------------------------------------

    async def prepare(self, tenant: str, reading: Reading) -> None:
        """Work out what a request's reads have to contain."""
        await self._demands.prepare(tenant, reading)

    async def select(
        self,
        tenant: str,
        reading: Reading,
        matchers: Sequence[Matcher],
        start_ms: int,
        end_ms: int,
        budget: SampleBudget,
        *,
        newest_only: bool = False,
    ) -> HeadsAnswer[SeriesSamples]:
        """Return the samples of the series that satisfy all matchers; `newest_only` as in `HeadAsk`."""

        async def call(owner: Owner, ask: HeadAsk) -> OwnerAnswer[SeriesSamples]:
            attempt = budget.attempt()
            try:
                return await owner.select(replace(ask, newest_only=newest_only), attempt)
            except BaseException:
                attempt.abandon()
                raise

        with self._metrics.timed("QueryStream"):
            return await self._read_all(tenant, reading, call, matchers, start_ms, end_ms)

    def select_now(
        self,
        tenant: str,
        reading: Reading,
        matchers: Sequence[Matcher],
        start_ms: int,
        end_ms: int,
        budget: SampleBudget,
    ) -> HeadsAnswer[SeriesSamples] | None:
        """Return what `select` does if all of it is here, at hand and small, else None.

        This process is asked before others whatever the ring says of it, so that the ring need not be asked for owners.
        """
        if self._local is None or reading.needs_preparing or reading.wait_offsets:
            return None
        removed_s = self._ring.note_removals()
        partitions = self._ring.partitions_of(tenant) | reading.demanded
        began, before = time.monotonic(), budget.taken
        delay_s = reading.consistency.max_delay_s
        try:
            answer = self._local.select_now(tenant, partitions, matchers, start_ms, end_ms, budget, delay_s)
        except IngestError as error:
            budget.give_back_to(*before)
            if error.blame != "client":
                return None  # another owner may do better
            self._metrics.observe("QueryStream", time.monotonic() - began, failed=True)
            raise
        if answer is None:
            return None
        self._metrics.observe("QueryStream", time.monotonic() - began)
        reading.saw(answer.next_offsets)
        return HeadsAnswer(answer.series, [*answer.cuts, *reading.handed_over], removed_s)

    async def label_frame(
        self, tenant: str, reading: Reading, matchers: Sequence[Matcher], start_ms: int, end_ms: int
    ) -> HeadsAnswer[LabelFrame]:
        """Return the label sets that satisfy all matchers."""
        return await self._read_all(
            tenant, reading, lambda owner, ask: owner.label_frame(ask), matchers, start_ms, end_ms
        )

    async def label_names(
        self, tenant: str, reading: Reading, matchers: Sequence[Matcher], start_ms: int, end_ms: int
    ) -> HeadsAnswer[list[str]]:
        """Return the label names of those."""
        return await self._read_all(
            tenant, reading, lambda owner, ask: owner.label_names(ask), matchers, start_ms, end_ms
        )

    async def label_values(
        self, tenant: str, reading: Reading, name: str, matchers: Sequence[Matcher], start_ms: int, end_ms: int
    ) -> HeadsAnswer[list[str]]:
        """Return the values of a label of those."""
        return await self._read_all(
            tenant, reading, lambda owner, ask: owner.label_values(ask, name), matchers, start_ms, end_ms
        )

    async def metadata(self, tenant: str, reading: Reading) -> HeadsAnswer[dict[str, list[FamilyMetadata]]]:
        """Return what is known of metric families."""
        return await self._read_all(tenant, reading, lambda owner, ask: owner.metadata(ask))

    async def exemplars(
        self, tenant: str, reading: Reading, matchers: Sequence[Matcher], start_ms: int, end_ms: int
    ) -> HeadsAnswer[list[SeriesExemplars]]:
        """Return the exemplars of the series that satisfy all matchers."""
        with self._metrics.timed("QueryExemplars"):
            return await self._read_all(
                tenant, reading, lambda owner, ask: owner.exemplars(ask), matchers, start_ms, end_ms
            )

    async def census(
        self, tenant: str, reading: Reading, matchers: Sequence[Matcher], what: CensusAsk
    ) -> HeadsAnswer[CensusPart]:
        """Count the series in memory that satisfy all matchers, each partition once."""
        return await self._read_all(tenant, reading, lambda owner, ask: owner.census(ask, what), matchers)

    async def lags(self, tenant: str) -> dict[str, list[PartitionLag] | IngestError]:
        """Return, for each healthy owner of the tenant's partitions, how far it is behind in them, or why not."""
        partitions = self._ring.partitions_of(tenant)
        targets = self._ring.targets(partitions)
        owners = {i.id: i for instances in targets.values() for i in instances}

        async def one(instance: InstanceDesc) -> list[PartitionLag] | IngestError:
            try:
                async with asyncio.timeout(LAG_TIMEOUT_S):
                    lags = await self._owner(instance.id, instance.address).lags(tenant)
            except IngestError as error:
                return error
            except TimeoutError:
                return OwnerUnavailable(f"{instance.id} did not answer within {LAG_TIMEOUT_S:g} s")
            return [lag for lag in lags if lag.partition in partitions]

        return dict(zip(owners, await run_all(map(one, owners.values())), strict=True))

    async def _read_all(
        self,
        tenant: str,
        reading: Reading,
        call: Callable[[Owner, HeadAsk], Awaitable[OwnerAnswer[Found]]],
        matchers: Sequence[Matcher] = (),
        start_ms: int = 0,
        end_ms: int = 0,
    ) -> HeadsAnswer[Found]:
        removed_s = self._ring.note_removals()
        partitions = self._ring.partitions_of(tenant) | reading.demanded
        ask = HeadAsk(
            tenant,
            partitions,
            tuple(matchers),
            start_ms,
            end_ms,
            reading.wait_offsets,
            reading.consistency.max_delay_s,
        )
        work = _Work(ask, call, self._ring.targets(partitions), reading.unread if reading.partial else None)
        answers = await self._read(work, partitions, frozenset(), {})
        cuts = [cut for answer in answers for cut in answer.cuts]
        later = {p: offset for answer in answers for p, offset in answer.cut_offsets.items()}
        if later:
            cuts += await self._checkpoints.of(tenant, later)
        for answer in answers:
            reading.saw(answer.next_offsets)
        return HeadsAnswer(
            [part for answer in answers for part in answer.found], [*cuts, *reading.handed_over], removed_s
        )

    # --- choosing ---------------------------------------------------------------------------------------------------

    async def _read(
        self,
        work: _Work[Found],
        partitions: frozenset[int],
        tried: Tried,
        failures: Mapping[int, IngestError | PartitionError],
    ) -> list[OwnerAnswer[Found]]:
        """Read partitions from owners that were not tried; `failures` says what went wrong before."""
        groups, nobody = self._plan(work, partitions, tried)
        if nobody & failures.keys():
            work = await self._with_newest_owners(work, nobody)
            groups, nobody = self._plan(work, partitions, tried)
        reads: list[Coroutine[Any, Any, list[OwnerAnswer[Found]]]] = [
            self._read_group(work, instance, parts, tried, failures) for instance, parts in groups.items()
        ]
        if nobody:
            reads.append(self._read_without_owners(work, nobody, failures))
        if len(reads) == 1:
            return await reads[0]
        return [answer for answers in await run_all(reads) for answer in answers]

    async def _with_newest_owners(self, work: _Work[Found], partitions: frozenset[int]) -> _Work[Found]:
        """Look at the ring again, as it is now: partitions may have changed hands since the read began."""
        try:
            await self._ring.refresh()
        except PartitionError:
            return work  # the ring does not answer; what failed before is what to tell
        return replace(work, targets={**work.targets, **self._ring.targets(partitions)})

    def _plan(
        self, work: _Work, partitions: frozenset[int], tried: Tried
    ) -> tuple[dict[str, frozenset[int]], frozenset[int]]:
        # Also before the ring names it as their owner, or while the ring takes it for dead: it knows better.
        here = frozenset() if self._local is None else self._local.readable()
        return plan_reads(work.targets, partitions, local=here, tried=tried, local_id=self._local_id)

    async def _read_group(
        self,
        work: _Work[Found],
        instance: str,
        partitions: frozenset[int],
        tried: Tried,
        failures: Mapping[int, IngestError | PartitionError],
    ) -> list[OwnerAnswer[Found]]:
        """Ask one owner; go on to others when it fails, and beside it when it is slow."""
        tried |= {(instance, p) for p in partitions}
        try:
            if self._hedge_s > 0 and not self._plan(work, partitions, tried)[1]:
                return await self._ask_hedged(work, instance, partitions, tried, failures)
            return await self._ask(work, instance, partitions)
        except _AllFailed as failed:
            if work.unread is None:
                raise failed.error from failed
            error = failed.error
        except (IngestError, PartitionError) as failed:
            if failed.blame == "client":
                raise
            error = failed
        _log.warning("an owner failed", owner=instance, partitions=sorted(partitions), err=error.message)
        return await self._read(work, partitions, tried, {**failures, **dict.fromkeys(partitions, error)})

    async def _ask_hedged(
        self,
        work: _Work[Found],
        instance: str,
        partitions: frozenset[int],
        tried: Tried,
        failures: Mapping[int, IngestError | PartitionError],
    ) -> list[OwnerAnswer[Found]]:
        """Ask one owner, and after a while without an answer others beside it. Raises _AllFailed."""
        tasks = [asyncio.create_task(self._ask(work, instance, partitions))]
        try:
            await asyncio.wait(tasks, timeout=self._hedge_s)
            if tasks[0].done():
                return tasks[0].result()
            whole = replace(work, unread=None)  # a part is no reason to stop waiting for the whole
            tasks.append(asyncio.create_task(self._read(whole, partitions, tried, failures)))
            return await _first_of(tasks)
        finally:
            await cancel_all(tasks)

    async def _ask(self, work: _Work[Found], instance: str, partitions: frozenset[int]) -> list[OwnerAnswer[Found]]:
        ask = replace(work.ask, partitions=partitions)
        address = next((i.address for owners in work.targets.values() for i in owners if i.id == instance), "")
        return [await work.call(self._owner(instance, address), ask)]

    def _owner(self, instance: str, address: str) -> Owner:
        if instance == self._local_id and self._local is not None:
            return self._local
        return self._client.owner(instance, address)

    async def _read_without_owners(
        self, work: _Work[Found], partitions: frozenset[int], failures: Mapping[int, IngestError | PartitionError]
    ) -> list[OwnerAnswer[Found]]:
        """Let the bucket stand for partitions that nobody answers for, where it has all of them."""
        numbers = sorted(partitions)
        drains = await run_all(map(self._probe, numbers))
        answers: list[OwnerAnswer[Found]] = []
        for partition, drain in zip(numbers, drains, strict=True):
            if drain is not None and drain.drained:
                cut_offsets = {} if drain.cut_offset is None else {partition: drain.cut_offset}
                answers.append(OwnerAnswer([], {partition: drain.end_offset}, cut_offsets=cut_offsets))
                continue
            error = failures.get(partition) or TooManyUnhealthyInstances(partition)
            if work.unread is None:
                raise error
            work.unread[partition] = error.message
        return answers

    async def _probe(self, partition: int) -> Drain | None:
        try:
            return await self._drains.probe(partition)
        except (IngestError, ColumnsFileCorrupt) as error:
            _log.warning("a partition without owners could not be probed", partition=partition, err=error.message)
            return None


class _AllFailed(Exception):
    """The owner and those asked beside it have failed."""

    def __init__(self, error: IngestError | PartitionError) -> None:
        super().__init__(error.message)
        self.error = error
        """What the first owner said."""


async def _first_of(tasks: Sequence[asyncio.Task[Found]]) -> Found:
    """Return the first result. Raises a client's error at once, _AllFailed when every task has failed."""
    waiting = set(tasks)
    while waiting:
        done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in (t for t in tasks if t in done):
            error = task.exception()
            if error is None:
                return task.result()
            if not isinstance(error, IngestError | PartitionError) or error.blame == "client":
                raise error
    raise _AllFailed(tasks[0].exception())
