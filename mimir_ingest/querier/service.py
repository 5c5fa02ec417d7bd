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

from mimir_ingest.bucket.discover import BlockCatalog, BlockMeta
from mimir_ingest.errors import QueryError, StorageError
from mimir_ingest.ingester.metadata import FamilyMetadata
from mimir_ingest.ingester.service import Ingester, PartitionCut
from mimir_ingest.model.labels import LabelFrame
from mimir_ingest.model.matchers import Matcher
from mimir_ingest.model.samples import SeriesSamples
from mimir_ingest.promql.engine import evaluate
from mimir_ingest.promql.nodes import Expr
from mimir_ingest.promql.plan import Plan, plan_query
from mimir_ingest.promql.values import QueryResult
from mimir_ingest.querier.hand_over import missing_blocks
from mimir_ingest.querier.merge import merge_frames, merge_samples


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


class Querier:
    """Answers queries of one process. Used from one event loop; holds no state but the catalog's caches."""

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
        self._listed_at: dict[str, float] = {}
        self._listing: dict[str, asyncio.Lock] = {}

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
    ) -> QueryResult:
        """Evaluate an expression at `start_ms`, `start_ms + step_ms`, … up to `end_ms_incl`.

        `step_ms` 0 asks for the one instant `start_ms`. Raises QueryError (limits, time-out, evaluation) and
        StorageError (a block or the bucket cannot be read).
        """
        limit_s = self.limits.timeout_s if timeout_s is None else min(timeout_s, self.limits.timeout_s)
        deadline = self._clock() + limit_s
        try:
            async with asyncio.timeout(limit_s):
                await self._slots.acquire()
        except TimeoutError as error:
            raise QueryError("query timed out in queue", error_type="timeout") from error
        try:
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
                    data = await asyncio.gather(
                        *(self.select(tenant, s.matchers, s.start_ms, s.end_ms) for s in plan.selects)
                    )
            except TimeoutError as error:
                raise QueryError("query timed out in query execution", error_type="timeout") from error
            return await self._evaluate(plan, list(data), deadline)
        finally:
            self._slots.release()

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
        """Return the distinct series that satisfy all matchers, in label order, with their samples in the range."""
        head = await self._ingester.select(tenant, matchers, start_ms, end_ms)
        blocks = await self._blocks(tenant, head.cuts, start_ms, end_ms)
        parts = await asyncio.gather(
            *(asyncio.to_thread(self._read_block, b, matchers, start_ms, end_ms) for b in blocks)
        )
        return await asyncio.to_thread(merge_samples, [*parts, *head.series])

    async def label_frame(self, tenant: str, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> LabelFrame:
        """Return the distinct label sets that satisfy all matchers and may have samples in the range."""
        frames = await self._ingester.label_frame(tenant, matchers, start_ms, end_ms)
        blocks = await self._blocks(tenant, self._ingester.cuts(tenant), start_ms, end_ms)
        parts = await asyncio.gather(
            *(asyncio.to_thread(self._read_labels, b, matchers, start_ms, end_ms) for b in blocks)
        )
        return await asyncio.to_thread(merge_frames, [*parts, *frames])

    async def label_frame_of_any(
        self, tenant: str, selectors: Sequence[Sequence[Matcher]], start_ms: int, end_ms: int
    ) -> LabelFrame:
        """Return the distinct label sets that satisfy all matchers of at least one selector."""
        frames = await asyncio.gather(*(self.label_frame(tenant, s, start_ms, end_ms) for s in selectors))
        return frames[0] if len(frames) == 1 else await asyncio.to_thread(merge_frames, frames)

    def metadata(self, tenant: str) -> dict[str, list[FamilyMetadata]]:
        """Return metric families with what the heads know of them."""
        return self._ingester.metadata(tenant)

    async def _blocks(self, tenant: str, cuts: Sequence[PartitionCut], start_ms: int, end_ms: int) -> list[BlockMeta]:
        """List the blocks that overlap the range; list again, then fail, if one that a head handed over lacks."""
        required = [block for cut in cuts for block in cut.blocks if block.tenant == tenant]
        await self._list_blocks(tenant, oldest_s=self._clock() - self._max_age_s)
        missing = self._missing(tenant, required, start_ms, end_ms)
        if missing:
            await self._list_blocks(tenant, oldest_s=self._clock())
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

    async def _list_blocks(self, tenant: str, *, oldest_s: float) -> None:
        """Make sure that the tenant's list of blocks is not older than `oldest_s` on the monotonic clock."""
        lock = self._listing.setdefault(tenant, asyncio.Lock())
        async with lock:
            if self._listed_at.get(tenant, float("-inf")) < oldest_s:
                began = self._clock()
                await asyncio.to_thread(self._catalog.refresh, tenant)
                self._listed_at[tenant] = began

    def _read_block(self, block: BlockMeta, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> SeriesSamples:
        return self._catalog.open(block).select(matchers, start_ms, end_ms - 1)

    def _read_labels(self, block: BlockMeta, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> LabelFrame:
        return self._catalog.open(block).select_labels(matchers, start_ms, end_ms - 1)
