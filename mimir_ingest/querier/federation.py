"""Queries of several tenants at once: each tenant is read alone, and every series says whose it is.

The label `__tenant_id__` is added to whatever is read; one of that name that a series has already becomes
`original___tenant_id__`. Matchers on it choose tenants, and are taken away before these are read. A tenant that cannot
be read fails the request. Source: spec http-api.md 1.4.
"""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from mimir_ingest.errors import IngestError
from mimir_ingest.ingester.exemplars import SeriesExemplars, merge_exemplars
from mimir_ingest.ingester.metadata import FamilyMetadata
from mimir_ingest.model.labels import LabelFrame
from mimir_ingest.model.matchers import Matcher
from mimir_ingest.model.samples import FetchLimits, SampleBudget, SeriesSamples
from mimir_ingest.promql.nodes import Expr
from mimir_ingest.promql.plan_nodes import Select
from mimir_ingest.querier.concurrency import run_all
from mimir_ingest.querier.merge import merge_frames, merge_samples
from mimir_ingest.querier.reading import Reading
from mimir_ingest.querier.select_reads import Key, SelectReads
from mimir_ingest.querier.service import Querier, QueryAnswer, QueryLimits
from partitions.errors import PartitionError

TENANT_LABEL = "__tenant_id__"
ORIGINAL_LABEL = f"original_{TENANT_LABEL}"
SEPARATOR = "|"
"""Between the tenants of a request, as in its header."""

Selectors = Sequence[Sequence[Matcher]]
_Part = TypeVar("_Part")


def of_tenant(frame: LabelFrame, tenant: str) -> LabelFrame:
    """Return label sets that say whose they are."""
    own = frame.column(TENANT_LABEL)
    if own is not None:
        frame = frame.with_column(ORIGINAL_LABEL, *own)
    return frame.with_column(TENANT_LABEL, np.zeros(frame.n, np.int32), (tenant,))


def matchers_for(tenant: str, matchers: Sequence[Matcher]) -> tuple[Matcher, ...] | None:
    """Return what a selector asks of one tenant's series, None if it leaves that tenant out."""
    if all(m.matches(tenant) for m in matchers if m.name == TENANT_LABEL):
        return tuple(m for m in matchers if m.name != TENANT_LABEL)
    return None


def selectors_for(tenant: str, selectors: Selectors) -> list[tuple[Matcher, ...]]:
    """Return what several selectors ask of one tenant's series; none if all leave it out."""
    asked = (matchers_for(tenant, matchers) for matchers in selectors)
    return [matchers for matchers in asked if matchers is not None]


async def each_tenant(
    tenants: Sequence[str],
    reading: Reading,
    read: Callable[[str, Reading], Awaitable[_Part]],
    *,
    max_concurrent: int,
) -> list[_Part]:
    """Return what `read` gives for each tenant, in order; a bounded number of them are read at a time.

    Each has a reading of its own, of which `reading` is told. Raises what `read` does, with the tenant in the message.
    """
    turns = asyncio.Semaphore(max_concurrent)

    async def one(tenant: str) -> _Part:
        own = reading.again()
        async with turns:
            try:
                return await read(tenant, own)
            except (IngestError, PartitionError) as error:
                named = copy.copy(error)
                named.message = f"error querying tenant_id {tenant}: {error.message}"
                raise named from error
            finally:
                reading.join(own)

    return await run_all(one(tenant) for tenant in tenants)


class FederatedSelects(SelectReads):
    """`SelectReads` for tenants that are written `a|b`."""

    def __init__(self, selects: SelectReads, *, max_concurrent: int) -> None:
        """Read no more than `max_concurrent` tenants of a request at a time."""
        self._selects, self._max_concurrent = selects, max_concurrent

    async def each(
        self,
        tenant: str,
        reading: Reading,
        selects: Sequence[Select],
        *,
        max_samples: int,
        left_s: float,
        **limits: Any,
    ) -> list[SeriesSamples]:
        """As `SelectReads.each`; the limits on what is fetched are each tenant's, that on samples is of all."""
        deadline = time.monotonic() + left_s

        async def read(tenant: str, own: Reading) -> list[tuple[int, SeriesSamples]]:
            asked = [(i, matchers_for(tenant, select.matchers)) for i, select in enumerate(selects)]
            wanted = [(i, replace(selects[i], matchers=matchers)) for i, matchers in asked if matchers is not None]
            found = await self._selects.each(
                tenant,
                own,
                [select for _, select in wanted],
                max_samples=max_samples,
                left_s=max(0.0, deadline - time.monotonic()),
                **limits,
            )
            return [(i, _labelled(samples, tenant)) for (i, _), samples in zip(wanted, found, strict=True)]

        parts = await self._each(tenant, reading, read)
        sources: list[list[SeriesSamples]] = [[] for _ in selects]
        for index, samples in (item for part in parts for item in part):
            sources[index].append(samples)
        return await asyncio.to_thread(_join, sources, SampleBudget(max_samples))

    async def one(
        self, tenant: str, reading: Reading, key: Key, *, max_samples: int, fetch: FetchLimits | None
    ) -> SeriesSamples:
        """As `SelectReads.one`."""
        matchers, start_ms, end_ms = key

        async def read(tenant: str, own: Reading) -> list[SeriesSamples]:
            asked = matchers_for(tenant, matchers)
            if asked is None:
                return []
            its_key = (asked, start_ms, end_ms)
            found = await self._selects.one(tenant, own, its_key, max_samples=max_samples, fetch=fetch)
            return [_labelled(found, tenant)]

        sources = [samples for part in await self._each(tenant, reading, read) for samples in part]
        [joined] = await asyncio.to_thread(_join, [sources], SampleBudget(max_samples))
        return joined

    async def _each(
        self, tenant: str, reading: Reading, read: Callable[[str, Reading], Awaitable[_Part]]
    ) -> list[_Part]:
        return await each_tenant(tenant.split(SEPARATOR), reading, read, max_concurrent=self._max_concurrent)


def _labelled(samples: SeriesSamples, tenant: str) -> SeriesSamples:
    return replace(samples, labels=of_tenant(samples.labels, tenant))


def _join(sources: Sequence[Sequence[SeriesSamples]], budget: SampleBudget) -> list[SeriesSamples]:
    """Return each select's series of all tenants in label order. Raises QueryError: together they are too many."""
    for samples in (part for parts in sources for part in parts):
        budget.take(samples.sample_count + samples.histogram_count)
    return [merge_samples(parts, budget) for parts in sources]


class FederatedQuerier:
    """A `Querier` for tenants that are written `a|b`."""

    def __init__(self, querier: Querier, *, max_concurrent: int) -> None:
        """Read no more than `max_concurrent` tenants of a request at a time."""
        self._querier, self._max_concurrent = querier, max_concurrent
        self._joined = querier.reading_by(lambda selects: FederatedSelects(selects, max_concurrent=max_concurrent))

    @property
    def limits(self) -> QueryLimits:
        """Bounds of one query."""
        return self._querier.limits

    async def query(self, tenant: str, expression: Expr, **asked: Any) -> QueryAnswer:
        """As `Querier.query`."""
        return await self._joined.query(tenant, expression, **asked)

    async def select(
        self, tenant: str, matchers: Sequence[Matcher], start_ms: int, end_ms: int, **asked: Any
    ) -> SeriesSamples:
        """As `Querier.select`."""
        return await self._joined.select(tenant, matchers, start_ms, end_ms, **asked)

    async def label_frame(
        self, tenant: str, selectors: Selectors, start_ms: int, end_ms: int, *, reading: Reading
    ) -> LabelFrame:
        """As `Querier.label_frame`."""

        async def read(tenant: str, own: Reading) -> LabelFrame:
            asked = selectors_for(tenant, selectors)
            frame = await self._querier.label_frame(tenant, asked, start_ms, end_ms, reading=own)
            return of_tenant(frame, tenant)

        return await asyncio.to_thread(merge_frames, await self._each(tenant, reading, read))

    async def label_names(
        self, tenant: str, selectors: Selectors, start_ms: int, end_ms: int, *, reading: Reading
    ) -> list[str]:
        """As `Querier.label_names`."""

        async def read(tenant: str, own: Reading) -> list[str]:
            asked = selectors_for(tenant, selectors)
            return await self._querier.label_names(tenant, asked, start_ms, end_ms, reading=own)

        names = set().union(*await self._each(tenant, reading, read))
        return sorted({*names, TENANT_LABEL, *([ORIGINAL_LABEL] if TENANT_LABEL in names else [])})

    async def label_values(
        self, tenant: str, name: str, selectors: Selectors, start_ms: int, end_ms: int, *, reading: Reading
    ) -> list[str]:
        """As `Querier.label_values`; those of `__tenant_id__` are the tenants."""
        if name == TENANT_LABEL:
            return [one for one in tenant.split(SEPARATOR) if selectors_for(one, selectors)]
        stored = TENANT_LABEL if name == ORIGINAL_LABEL else name

        async def read(tenant: str, own: Reading) -> list[str]:
            asked = selectors_for(tenant, selectors)
            return await self._querier.label_values(tenant, stored, asked, start_ms, end_ms, reading=own)

        return sorted(set().union(*await self._each(tenant, reading, read)))

    async def exemplars(
        self, tenant: str, selectors: Selectors, start_ms: int, end_ms: int, *, reading: Reading
    ) -> list[SeriesExemplars]:
        """As `Querier.exemplars`."""

        async def read(tenant: str, own: Reading) -> list[SeriesExemplars]:
            asked = selectors_for(tenant, selectors)
            found = await self._querier.exemplars(tenant, asked, start_ms, end_ms, reading=own)
            return [SeriesExemplars(_named(series.labels, tenant), series.exemplars) for series in found]

        return merge_exemplars([series for part in await self._each(tenant, reading, read) for series in part])

    async def metadata(self, tenant: str, *, reading: Reading) -> dict[str, list[FamilyMetadata]]:
        """As `Querier.metadata`: what any of the tenants has."""

        async def read(tenant: str, own: Reading) -> dict[str, list[FamilyMetadata]]:
            return await self._querier.metadata(tenant, reading=own)

        families: dict[str, set[FamilyMetadata]] = {}
        for part in await self._each(tenant, reading, read):
            for family, items in part.items():
                families.setdefault(family, set()).update(items)
        return {f: sorted(families[f], key=lambda i: (i.type, i.help, i.unit)) for f in sorted(families)}

    async def _each(
        self, tenant: str, reading: Reading, read: Callable[[str, Reading], Awaitable[_Part]]
    ) -> list[_Part]:
        return await each_tenant(tenant.split(SEPARATOR), reading, read, max_concurrent=self._max_concurrent)


def _named(labels: dict[str, str], tenant: str) -> dict[str, str]:
    renamed = {ORIGINAL_LABEL if name == TENANT_LABEL else name: value for name, value in labels.items()}
    return {**renamed, TENANT_LABEL: tenant}
