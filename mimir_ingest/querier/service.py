"""The querier's shell: fetch what a plan selects from heads and blocks, then evaluate it.

Owners are asked first and blocks afterwards, so that what a head let go of meanwhile is found in the bucket; the answer
is complete or an error, never silently less (see hand_over). Evaluation and block reads run in threads; the kernels
release the GIL.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from mimir_ingest.bucket.discover import BlockCatalog, BlockMeta
from mimir_ingest.errors import BlockNotFound, QueryError, StorageError
from mimir_ingest.ingester.metadata import FamilyMetadata
from mimir_ingest.ingester.service import Ingester, PartitionCut
from mimir_ingest.model.labels import LabelFrame
from mimir_ingest.model.matchers import Matcher
from mimir_ingest.model.samples import SampleBudget, SeriesSamples
from mimir_ingest.promql.engine import evaluate
from mimir_ingest.promql.nodes import Expr
from mimir_ingest.promql.plan import plan_query
from mimir_ingest.promql.plan_nodes import Plan, Select
from mimir_ingest.promql.values import QueryResult
from mimir_ingest.querier.hand_over import missing_blocks
from mimir_ingest.querier.listings import BlockListings
from mimir_ingest.querier.merge import merge_frames, merge_samples
from mimir_ingest.tsdb.block_reader import BlockReader

_Part = TypeVar("_Part")


class BlocksMissing(StorageError):
    """Blocks that the heads handed over are not in the bucket's list, even after looking again."""

    error_id = "err-mimir-store-consistency-check-failed"

    def __init__(self, ulids: Sequence[str]) -> None:
        super().__init__(f"failed to fetch some blocks ({self.error_id}). The failed blocks are: {' '.join(ulids)}")
        self.ulids = tuple(ulids)


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


@dataclass(frozen=True, slots=True)
class QueryTimings:
    """Where a query's time went (s)."""

    queue_s: float
    """Waiting for its turn."""
    preparation_s: float
    """Planning, and reading what the plan selects."""
    evaluation_s: float


@dataclass(frozen=True, slots=True)
class QueryAnswer:
    """A result, and what happened on the way to it."""

    result: QueryResult
    timings: QueryTimings
    warnings: tuple[str, ...]
    """About data that could not be read."""


class Querier:
    """Answers queries of one process. Used from one event loop; holds no state but lists and caches of blocks."""

    def __init__(
        self,
        *,
        ingester: Ingester,
        catalog: BlockCatalog,
        limits: QueryLimits,
        max_concurrent: int,
        block_list_max_age_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ingester = ingester
        self._catalog = catalog
        self.limits = limits
        self._slots = asyncio.Semaphore(max_concurrent)
        self._max_age_s = block_list_max_age_s
        self._clock = clock
        self._listings = BlockListings(catalog, clock=clock)

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
    ) -> QueryAnswer:
        """Evaluate an expression at `start_ms`, `start_ms + step_ms`, … up to `end_ms_incl`.

        `step_ms` 0 asks for the one instant `start_ms`. Cancelling the call stops the evaluation. Raises QueryError
        (limits, time-out, evaluation) and StorageError (a block or the bucket cannot be read).
        """
        limit_s = self.limits.timeout_s if timeout_s is None else min(timeout_s, self.limits.timeout_s)
        came = self._clock()
        deadline = came + limit_s
        try:
            async with asyncio.timeout(limit_s):
                await self._slots.acquire()
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
            try:
                async with asyncio.timeout(max(0.0, deadline - self._clock())):
                    data, warnings = await self._select_each(tenant, plan.selects)
            except TimeoutError as error:
                raise QueryError("query timed out in query execution", error_type="timeout") from error
            prepared = self._clock()
            result = await self._evaluate(plan, data, deadline)
            return QueryAnswer(result, QueryTimings(began - came, prepared - began, self._clock() - prepared), warnings)
        finally:
            self._slots.release()

    async def _select_each(self, tenant: str, selects: Sequence[Select]) -> tuple[list[SeriesSamples], tuple[str, ...]]:
        """Read what each of a plan's selects needs; equal ones are read once."""
        budget = SampleBudget(self.limits.max_samples)
        keys = [(s.matchers, s.start_ms, s.end_ms) for s in selects]
        distinct = list(dict.fromkeys(keys))
        found = await asyncio.gather(*(self._select(tenant, *key, budget=budget) for key in distinct))
        by_key = {key: samples for key, (samples, _) in zip(distinct, found, strict=True)}
        warnings = dict.fromkeys(text for _, texts in found for text in texts)
        return [by_key[key] for key in keys], tuple(warnings)

    async def _evaluate(self, plan: Plan, data: list[SeriesSamples], deadline: float) -> QueryResult:
        cancelled = threading.Event()
        try:
            return await asyncio.to_thread(
                evaluate,
                plan,
                data,
                max_samples=self.limits.max_samples,
                deadline=deadline,
                cancelled=cancelled.is_set,
            )
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async def select(self, tenant: str, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> SeriesSamples:
        """Return the distinct series that satisfy all matchers, in label order, with their samples in the range.

        Raises QueryError for more samples than `max_samples`, StorageError.
        """
        budget = SampleBudget(self.limits.max_samples)
        samples, _ = await self._select(tenant, matchers, start_ms, end_ms, budget=budget, in_label_order=True)
        return samples

    async def _select(
        self,
        tenant: str,
        matchers: Sequence[Matcher],
        start_ms: int,
        end_ms: int,
        *,
        budget: SampleBudget,
        in_label_order: bool = False,
    ) -> tuple[SeriesSamples, list[str]]:
        """Return the distinct series and warnings; a single source's series stay in its order unless told otherwise."""
        head = await self._ingester.select(tenant, matchers, start_ms, end_ms, budget)

        def read(reader: BlockReader) -> SeriesSamples:
            return reader.select(matchers, start_ms, end_ms - 1, budget)

        _, parts = await self._read_blocks(tenant, head.cuts, start_ms, end_ms, read)
        warnings: list[str] = []
        sources = [s for s in (*parts, *head.series) if s.series_count]
        if not sources:
            return SeriesSamples.empty(), warnings
        if len(sources) == 1 and not in_label_order:
            return sources[0], warnings
        return await asyncio.to_thread(merge_samples, sources), warnings

    async def label_frame(self, tenant: str, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> LabelFrame:
        """Return the distinct label sets that satisfy all matchers and may have samples in the range."""
        frames = await self._ingester.label_frame(tenant, matchers, start_ms, end_ms)
        cuts = self._ingester.cuts(tenant)

        def read(reader: BlockReader) -> LabelFrame:
            return reader.select_labels(matchers, start_ms, end_ms - 1)

        _, parts = await self._read_blocks(tenant, cuts, start_ms, end_ms, read)
        return await asyncio.to_thread(merge_frames, [*parts, *frames])

    async def label_frame_of_any(
        self, tenant: str, selectors: Sequence[Sequence[Matcher]], start_ms: int, end_ms: int
    ) -> LabelFrame:
        """Return the distinct label sets that satisfy all matchers of at least one selector."""
        frames = await asyncio.gather(*(self.label_frame(tenant, s, start_ms, end_ms) for s in selectors))
        return frames[0] if len(frames) == 1 else await asyncio.to_thread(merge_frames, frames)

    async def metadata(self, tenant: str) -> dict[str, list[FamilyMetadata]]:
        """Return metric families with what the heads know of them. Raises LogUnavailable."""
        return await self._ingester.metadata(tenant)

    async def _read_blocks(
        self,
        tenant: str,
        cuts: Sequence[PartitionCut],
        start_ms: int,
        end_ms: int,
        read: Callable[[BlockReader], _Part],
    ) -> tuple[list[BlockMeta], list[_Part]]:
        """Return the blocks that overlap the range and what `read` gets from each.

        One that a compactor deleted after the listing was merged into another: the list is made anew, once. Raises
        StorageError.
        """
        oldest_s = self._clock() - self._max_age_s

        def open_and_read(block: BlockMeta) -> _Part:
            try:
                return read(self._catalog.open(block))
            except BlockNotFound:
                self._catalog.drop(block)
                raise

        blocks = await self._blocks(tenant, cuts, start_ms, end_ms, oldest_s)
        try:
            return blocks, await asyncio.gather(*(asyncio.to_thread(open_and_read, b) for b in blocks))
        except BlockNotFound:
            blocks = await self._blocks(tenant, cuts, start_ms, end_ms, self._clock())
            return blocks, await asyncio.gather(*(asyncio.to_thread(open_and_read, b) for b in blocks))

    async def _blocks(
        self, tenant: str, cuts: Sequence[PartitionCut], start_ms: int, end_ms: int, oldest_s: float
    ) -> list[BlockMeta]:
        """List the blocks that overlap the range; list again, then fail, if one that a head handed over lacks."""
        required = [block for cut in cuts for block in cut.blocks if block.tenant == tenant]
        await self._listings.refresh(tenant, oldest_s=oldest_s)
        missing = self._missing(tenant, required, start_ms, end_ms)
        if missing:
            await self._listings.refresh(tenant, oldest_s=self._clock())
            missing = self._missing(tenant, required, start_ms, end_ms)
        if missing:
            raise BlocksMissing(missing)
        return sorted(self._catalog.blocks(tenant, start_ms, end_ms), key=lambda b: (b.start_offset, b.ulid))

    def _missing(self, tenant: str, required: Sequence, start_ms: int, end_ms: int) -> list[str]:
        if not required:
            return []
        return missing_blocks(
            required, self._catalog.blocks(tenant, start_ms, end_ms), start_ms=start_ms, end_ms=end_ms
        )
