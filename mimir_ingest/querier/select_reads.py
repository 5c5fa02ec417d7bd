"""What selectors name, read from heads first and then from blocks.

Owners are asked first and blocks afterwards, so that what a head let go of meanwhile is found in the bucket; the answer
is complete or an error, never silently less (see hand_over). What is here, at hand and small is read without a timer,
a task or a thread, which would take longer than reading it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from mimir_ingest.model.matchers import Matcher
from mimir_ingest.model.samples import FetchLimits, SampleBudget, SeriesSamples
from mimir_ingest.promql.plan_nodes import Select
from mimir_ingest.querier.block_reads import BlockReads
from mimir_ingest.querier.concurrency import run_all
from mimir_ingest.querier.heads import Heads, HeadsAnswer
from mimir_ingest.querier.merge import check_distinct_series, merge_samples
from mimir_ingest.querier.reading import Reading
from mimir_ingest.tsdb.block_reader import BlockReader

_NO_TIME = -(1 << 63)
_FEW_SELECTS, _FEW_SAMPLES = 8, 1 << 14
"""What is read and merged where the request is. why: about 1 ms at most."""

Key = tuple[Sequence[Matcher], int, int]
"""Matchers, and times in `[start_ms, end_ms)`."""
_Read = tuple[Sequence[Matcher], int, int, bool]
"""A key, and whether of each series only the newest sample is wanted."""
_Found = SeriesSamples | HeadsAnswer[SeriesSamples] | None


class SelectReads:
    """Reads of selectors. Used from one event loop."""

    def __init__(self, heads: Heads, blocks: BlockReads) -> None:
        self._heads, self._blocks = heads, blocks

    async def each(
        self,
        tenant: str,
        reading: Reading,
        selects: Sequence[Select],
        *,
        max_samples: int,
        fetch: FetchLimits,
        earliest_ms: int | None,
        left_s: float,
    ) -> list[SeriesSamples]:
        """Read what each of a plan's selects needs, no sample before `earliest_ms`; equal ones are read once.

        Raises TimeoutError when `left_s` are over, QueryError, what `Heads` raises, StorageError.
        """
        budget = SampleBudget(max_samples, fetch)
        first_ms = _NO_TIME if earliest_ms is None else earliest_ms
        keys: list[_Read] = [(s.matchers, max(s.start_ms, first_ms), s.end_ms, s.hints.newest_only) for s in selects]
        distinct = keys if len(keys) < 2 else list(dict.fromkeys(keys))
        found: list[_Found] = [None] * len(distinct)
        try:
            if len(distinct) <= _FEW_SELECTS and not reading.needs_preparing:
                for i, key in enumerate(distinct):
                    found[i] = self._read_now(tenant, reading, key, budget)
            rest = [i for i, samples in enumerate(found) if not isinstance(samples, SeriesSamples)]
            if rest:
                async with asyncio.timeout(left_s):
                    await self._heads.prepare(tenant, reading)
                    reads = (self._read(tenant, reading, distinct[i], budget, found[i]) for i in rest)
                    for i, samples in zip(rest, await run_all(reads), strict=True):
                        found[i] = samples
        finally:
            _end(budget, reading)
        for samples in found:
            reading.fetched_series += samples.series_count
        if budget.limits_series:
            await _check_distinct(found, budget)
        if len(distinct) == len(keys):
            return found
        by_key = dict(zip(distinct, found, strict=True))
        return [by_key[key] for key in keys]

    def _read_now(self, tenant: str, reading: Reading, key: _Read, budget: SampleBudget) -> _Found:
        """Return what can be had at once, or what only lacks blocks, or None."""
        matchers, start_ms, end_ms, _ = key
        if start_ms >= end_ms:
            return SeriesSamples.empty()
        answer = self._heads.select_now(tenant, reading, matchers, start_ms, end_ms, budget)
        if answer is None:
            return None
        sources = answer.found
        few = len(sources) < 2 or sum(s.sample_count + s.histogram_count for s in sources) <= _FEW_SAMPLES
        if not few or not self._blocks.needs_none(tenant, answer, start_ms, end_ms):
            return answer
        if len(sources) == 1:
            return sources[0]
        return merge_samples(sources, budget) if sources else SeriesSamples.empty()

    async def one(
        self, tenant: str, reading: Reading, key: Key, *, max_samples: int, fetch: FetchLimits | None
    ) -> SeriesSamples:
        """Return the distinct series of one selector in label order. Raises as `each`, but no TimeoutError."""
        budget = SampleBudget(max_samples, fetch)
        await self._heads.prepare(tenant, reading)
        try:
            found = await self._read(tenant, reading, (*key, False), budget, in_label_order=True)
        finally:
            _end(budget, reading)
        reading.fetched_series += found.series_count
        budget.check_series(found.series_count)
        return found

    async def _read(
        self,
        tenant: str,
        reading: Reading,
        key: _Read,
        budget: SampleBudget,
        heads: HeadsAnswer[SeriesSamples] | None = None,
        *,
        in_label_order: bool = False,
    ) -> SeriesSamples:
        """Return the distinct series; a single source's series stay in its order unless told otherwise."""
        matchers, start_ms, end_ms, newest_only = key
        if start_ms >= end_ms:
            return SeriesSamples.empty()
        if heads is None:
            times = start_ms, end_ms
            heads = await self._heads.select(tenant, reading, matchers, *times, budget, newest_only=newest_only)

        def read(reader: BlockReader) -> SeriesSamples:
            return reader.select(matchers, start_ms, end_ms - 1, budget)

        parts = await self._blocks.read(tenant, heads, start_ms, end_ms, read)
        sources = [s for s in (*parts, *heads.found) if s.series_count]
        if not sources:
            return SeriesSamples.empty()
        if len(sources) == 1 and not in_label_order:
            return sources[0]
        return await asyncio.to_thread(merge_samples, sources, budget)


def _end(budget: SampleBudget, reading: Reading) -> None:
    """Stop a thread that still reads, for a query whose time is over, and note what was read."""
    budget.end()
    _, chunks, chunk_bytes = budget.taken
    reading.fetched_chunks += chunks
    reading.fetched_chunk_bytes += chunk_bytes


async def _check_distinct(found: Sequence[SeriesSamples], budget: SampleBudget) -> None:
    """Raise QueryError if there are more distinct series than the budget has."""
    if len(found) == 1:
        budget.check_series(found[0].series_count)
    else:
        await asyncio.to_thread(check_distinct_series, [samples.labels for samples in found], budget)
