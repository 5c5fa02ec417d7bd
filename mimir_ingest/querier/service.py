"""The querier's shell: fetch what a plan selects from heads and blocks, then evaluate it.

Evaluation and block reads run in threads, but for what is small (see cost); the kernels release the GIL.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import functools
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from mimir_ingest.bucket.discover import BlockCatalog
from mimir_ingest.errors import IngestError, QueryError
from mimir_ingest.ingester.census import CensusAsk, CensusPart
from mimir_ingest.ingester.exemplars import SeriesExemplars, merge_exemplars
from mimir_ingest.ingester.lag import PartitionLag
from mimir_ingest.ingester.metadata import FamilyMetadata
from mimir_ingest.model.frozen import frozen
from mimir_ingest.model.labels import LabelFrame
from mimir_ingest.model.matchers import Matcher
from mimir_ingest.model.samples import FetchLimits, SeriesSamples
from mimir_ingest.model.spans import while_wanted
from mimir_ingest.promql.engine import evaluate
from mimir_ingest.promql.nodes import Expr
from mimir_ingest.promql.plan import plan_query
from mimir_ingest.promql.values import QueryResult
from mimir_ingest.querier.block_reads import BlockReads
from mimir_ingest.querier.concurrency import Slots, run_all, run_stoppable, run_until
from mimir_ingest.querier.cost import is_small
from mimir_ingest.querier.heads import Heads, HeadsAnswer
from mimir_ingest.querier.merge import merge_frames
from mimir_ingest.querier.owner import names_of, values_of
from mimir_ingest.querier.query_limits import UNLIMITED, TenantQueryLimits, check_partial_lengths
from mimir_ingest.querier.reading import Reading
from mimir_ingest.querier.select_reads import SelectReads
from mimir_ingest.tsdb.block_reader import BlockReader

_Part = TypeVar("_Part")

_FEW_SERIES = 32
"""Series whose exemplars are merged on the event loop. why: as few take less time than going to a thread."""


@dataclass(frozen=True, slots=True)
class QueryLimits:
    """Bounds of one query."""

    max_samples: int
    """Samples that evaluation may hold at a time."""
    timeout_s: float
    """Seconds from the start of the request to its answer."""
    lookback_ms: int
    """How far an instant selector looks back."""
    subquery_step_ms: int
    """Step of subqueries that name none."""


@frozen
class QueryTimings:
    """Where a query's time went (s)."""

    queue_s: float
    """Waiting for its turn."""
    preparation_s: float
    """Planning, and reading what the plan selects."""
    evaluation_s: float


@frozen
class QueryAnswer:
    """A result, and what happened on the way to it."""

    result: QueryResult
    timings: QueryTimings
    warnings: tuple[str, ...]
    """About data that could not be read."""
    deadline: float
    """When the query's time is over (monotonic clock, s)."""


class Querier:
    """Answers queries of one process. Used from one event loop; holds no state but lists and caches of blocks."""

    def __init__(
        self,
        *,
        heads: Heads,
        catalog: BlockCatalog,
        limits: QueryLimits,
        max_concurrent: int,
        block_list_max_age_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._heads = heads
        self._blocks = BlockReads(catalog, max_age_s=block_list_max_age_s, clock=clock)
        self._selects = SelectReads(heads, self._blocks)
        self.limits = limits
        self._slots = Slots(max_concurrent)
        self._clock = clock

    def reading_by(self, wrap: Callable[[SelectReads], SelectReads]) -> Querier:
        """Return this querier, its turns and caches included, with its reads of selectors wrapped."""
        wrapped = copy.copy(self)
        wrapped._selects = wrap(self._selects)
        return wrapped

    async def query(
        self,
        tenant: str,
        expression: Expr,
        *,
        start_ms: int,
        end_ms_incl: int,
        step_ms: int,
        lookback_ms: int | None = None,
        timeout_s: float | None = None,
        reading: Reading | None = None,
        tenant_limits: TenantQueryLimits = UNLIMITED,
        earliest_ms: int | None = None,
        per_step_stats: bool = False,
    ) -> QueryAnswer:
        """Evaluate an expression at `start_ms`, `start_ms + step_ms`, … up to `end_ms_incl`.

        `step_ms` 0 asks for the one instant `start_ms`. `reading` says what has to be seen, and is told what was; no
        sample before `earliest_ms` is read. `per_step_stats` as in `evaluate`.
        Cancelling the call stops the evaluation. Raises QueryError (limits, time-out, evaluation), what `Heads` raises,
        and StorageError (a block or the bucket cannot be read).
        """
        reading = reading or Reading()
        limit_s = self.limits.timeout_s if timeout_s is None else min(timeout_s, self.limits.timeout_s)
        came = self._clock()
        deadline = came + limit_s
        if not self._slots.take():
            try:
                async with asyncio.timeout(limit_s):
                    await self._slots.wait()
            except TimeoutError as error:
                raise QueryError("query timed out in queue", error_type="timeout") from error
        try:
            began = self._clock()
            plan = plan_query(
                expression,
                start_ms=start_ms,
                end_ms=end_ms_incl,
                step_ms=step_ms,
                lookback_ms=self.limits.lookback_ms if lookback_ms is None else lookback_ms,
                default_subquery_step_ms=self.limits.subquery_step_ms,
            )
            if tenant_limits.max_partial_length_ms:
                check_partial_lengths(plan.selects, tenant_limits.max_partial_length_ms)
            try:
                data = await self._selects.each(
                    tenant,
                    reading,
                    plan.selects,
                    max_samples=self.limits.max_samples,
                    fetch=tenant_limits.fetch,
                    earliest_ms=earliest_ms,
                    left_s=max(0.0, deadline - self._clock()),
                )
            except TimeoutError as error:
                raise QueryError("query timed out in query execution", error_type="timeout") from error
            prepared = self._clock()
            if prepared >= deadline:  # a read that never waits does not see its time-out
                raise QueryError("query timed out in query execution", error_type="timeout")
            evaluated = functools.partial(
                evaluate,
                plan,
                data,
                max_samples=self.limits.max_samples,
                deadline=deadline,
                delayed_name_removal=tenant_limits.delayed_name_removal,
                per_step_stats=per_step_stats,
            )
            if is_small(expression, plan, data):
                result = evaluated()
            else:  # the query's slot is not free before its thread has stopped
                result = await run_stoppable(lambda stopped: evaluated(cancelled=stopped))
            timings = QueryTimings(began - came, prepared - began, self._clock() - prepared)
            return QueryAnswer(result, timings, tuple(reading.warnings) if reading.unread else (), deadline)
        finally:
            self._slots.give_back()

    async def select(
        self,
        tenant: str,
        matchers: Sequence[Matcher],
        start_ms: int,
        end_ms: int,
        *,
        reading: Reading | None = None,
        fetch: FetchLimits | None = None,
    ) -> SeriesSamples:
        """Return the distinct series that satisfy all matchers, in label order, with their samples in the range.

        Raises QueryError for more than `max_samples` or `fetch` allow, what `Heads` raises, StorageError.
        """
        key = (matchers, start_ms, end_ms)
        return await self._selects.one(
            tenant, reading or Reading(), key, max_samples=self.limits.max_samples, fetch=fetch
        )

    async def label_frame(
        self,
        tenant: str,
        selectors: Sequence[Sequence[Matcher]],
        start_ms: int,
        end_ms: int,
        *,
        reading: Reading | None = None,
    ) -> LabelFrame:
        """Return the distinct label sets of series that satisfy all matchers of at least one selector.

        They may have samples in the range. Raises what `Heads` raises, StorageError.
        """

        def ask(reading: Reading, matchers: Sequence[Matcher]) -> Awaitable[HeadsAnswer[LabelFrame]]:
            return self._heads.label_frame(tenant, reading, matchers, start_ms, end_ms)

        frames = await self._read_labels(tenant, reading, selectors, start_ms, end_ms, ask, lambda frame: frame)
        return await asyncio.to_thread(merge_frames, frames)

    async def label_names(
        self,
        tenant: str,
        selectors: Sequence[Sequence[Matcher]],
        start_ms: int,
        end_ms: int,
        *,
        reading: Reading | None = None,
    ) -> list[str]:
        """Return the label names of those series, ascending."""

        def ask(reading: Reading, matchers: Sequence[Matcher]) -> Awaitable[HeadsAnswer[list[str]]]:
            return self._heads.label_names(tenant, reading, matchers, start_ms, end_ms)

        lists = await self._read_labels(tenant, reading, selectors, start_ms, end_ms, ask, names_of)
        return sorted(set().union(*lists))

    async def label_values(
        self,
        tenant: str,
        name: str,
        selectors: Sequence[Sequence[Matcher]],
        start_ms: int,
        end_ms: int,
        *,
        reading: Reading | None = None,
    ) -> list[str]:
        """Return the values of a label of those series, ascending."""

        def ask(reading: Reading, matchers: Sequence[Matcher]) -> Awaitable[HeadsAnswer[list[str]]]:
            return self._heads.label_values(tenant, reading, name, matchers, start_ms, end_ms)

        def of_frame(frame: LabelFrame) -> list[str]:
            return values_of(frame, name)

        lists = await self._read_labels(tenant, reading, selectors, start_ms, end_ms, ask, of_frame)
        if len(lists) == 1:
            return lists[0]
        return await asyncio.to_thread(lambda: sorted(set().union(*lists)))

    async def _read_labels(
        self,
        tenant: str,
        reading: Reading | None,
        selectors: Sequence[Sequence[Matcher]],
        start_ms: int,
        end_ms: int,
        ask: Callable[[Reading, Sequence[Matcher]], Awaitable[HeadsAnswer[_Part]]],
        of_frame: Callable[[LabelFrame], _Part],
    ) -> list[_Part]:
        """Return what the heads say when asked for each selector, and the same of each block's label sets."""

        async def one(reading: Reading, matchers: Sequence[Matcher]) -> list[_Part]:
            heads = await ask(reading, matchers)

            def read(reader: BlockReader) -> _Part:
                return of_frame(reader.select_labels(matchers, start_ms, end_ms - 1, check))

            with while_wanted() as check:
                return [*await self._blocks.read(tenant, heads, start_ms, end_ms, read), *heads.found]

        return await self._read_each(tenant, reading, selectors, one)

    async def lags(self, tenant: str) -> dict[str, list[PartitionLag] | IngestError]:
        """Return, for each healthy owner of the tenant's partitions, how far it is behind in them, or why not."""
        return await self._heads.lags(tenant)

    async def _read_each(
        self,
        tenant: str,
        reading: Reading | None,
        selectors: Sequence[Sequence[Matcher]],
        one: Callable[[Reading, Sequence[Matcher]], Coroutine[Any, Any, list[_Part]]],
    ) -> list[_Part]:
        """Return the parts that all selectors give."""
        reading = reading or Reading()
        async with self._deadline():
            await self._heads.prepare(tenant, reading)
            found = await run_all(one(reading, matchers) for matchers in selectors)
        return [part for parts in found for part in parts]

    @contextlib.asynccontextmanager
    async def _deadline(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self.limits.timeout_s):
                yield
        except TimeoutError as error:
            raise QueryError("query timed out in query execution", error_type="timeout") from error

    async def exemplars(
        self,
        tenant: str,
        selectors: Sequence[Sequence[Matcher]],
        start_ms: int,
        end_ms: int,
        *,
        reading: Reading | None = None,
    ) -> list[SeriesExemplars]:
        """Return the exemplars in `[start_ms, end_ms)` of the series of a selector. Raises what `Heads` raises."""
        deadline = self._clock() + self.limits.timeout_s

        async def one(reading: Reading, matchers: Sequence[Matcher]) -> list[SeriesExemplars]:
            heads = await self._heads.exemplars(tenant, reading, matchers, start_ms, end_ms)
            return [series for part in heads.found for series in part]

        found = await self._read_each(tenant, reading, selectors, one)
        if len(found) <= _FEW_SERIES:
            return merge_exemplars(found)
        return await run_until(deadline, lambda check: merge_exemplars(found, check))

    async def census(
        self, tenant: str, matchers: Sequence[Matcher], what: CensusAsk, *, reading: Reading | None = None
    ) -> list[CensusPart]:
        """Return what the heads count of the series that satisfy all matchers. Raises what `Heads` raises."""
        reading = reading or Reading()
        async with self._deadline():
            await self._heads.prepare(tenant, reading)
            return (await self._heads.census(tenant, reading, matchers, what)).found

    async def metadata(self, tenant: str, *, reading: Reading | None = None) -> dict[str, list[FamilyMetadata]]:
        """Return metric families, ascending, with what the heads know of them. Raises what `Heads` raises."""
        reading = reading or Reading()
        async with self._deadline():
            await self._heads.prepare(tenant, reading)
            heads = await self._heads.metadata(tenant, reading)
        families: dict[str, set[FamilyMetadata]] = {}
        for part in heads.found:
            for family, items in part.items():
                families.setdefault(family, set()).update(items)
        return {f: sorted(families[f], key=lambda i: (i.type, i.help, i.unit)) for f in sorted(families)}
