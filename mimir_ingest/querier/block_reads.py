"""The bucket's part of a read: which blocks it needs, and whether they are all there.

Blocks are listed after the heads have answered, so that what a head let go of meanwhile is found (see hand_over).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

from mimir_ingest.bucket.discover import BlockCatalog, BlockMeta
from mimir_ingest.errors import BlockNotFound, StorageError
from mimir_ingest.ingester.cut import BlockRef
from mimir_ingest.ingester.head_answer import PartitionCut
from mimir_ingest.querier.hand_over import missing_blocks
from mimir_ingest.querier.heads import HeadsAnswer
from mimir_ingest.querier.listings import BlockListings
from mimir_ingest.tsdb.block_reader import BlockReader

_Part = TypeVar("_Part")


class BlocksMissing(StorageError):
    """Blocks that the heads handed over are not in the bucket's list, even after looking again."""

    error_id = "err-mimir-store-consistency-check-failed"

    def __init__(self, ulids: Sequence[str]) -> None:
        super().__init__(f"failed to fetch some blocks ({self.error_id}). The failed blocks are: {' '.join(ulids)}")
        self.ulids = tuple(ulids)


class BlockReads:
    """Reads a tenant's blocks. Used from one event loop; holds lists, and what the catalog keeps open."""

    def __init__(self, catalog: BlockCatalog, *, max_age_s: float, clock: Callable[[], float]) -> None:
        """`max_age_s` is how old (s) a list may be that nothing demands to be newer."""
        self._catalog = catalog
        self._max_age_s = max_age_s
        self._clock = clock
        self._listings = BlockListings(catalog, clock=clock)

    def needs_none(self, tenant: str, heads: HeadsAnswer, start_ms: int, end_ms: int) -> bool:
        """Whether no block is to be read for the range, as the list says that is at hand and new enough."""
        oldest_s = max(self._clock() - self._max_age_s, heads.listed_since_s)
        if not self._listings.is_newer(tenant, oldest_s) or self._catalog.blocks(tenant, start_ms, end_ms):
            return False
        return not heads.cuts or not self._missing(tenant, _handed_over(tenant, heads.cuts), start_ms, end_ms)

    async def read(
        self,
        tenant: str,
        heads: HeadsAnswer,
        start_ms: int,
        end_ms: int,
        read: Callable[[BlockReader], _Part],
    ) -> list[_Part]:
        """Return what `read` gets from each block that overlaps the range, those that the heads name among them.

        One that a compactor deleted after the listing was merged into another: the list is made anew, once. Raises
        StorageError.
        """
        oldest_s = max(self._clock() - self._max_age_s, heads.listed_since_s)

        def open_and_read(block: BlockMeta) -> _Part:
            try:
                return read(self._catalog.open(block))
            except BlockNotFound:
                self._catalog.drop(block)
                raise

        blocks = await self._list(tenant, heads.cuts, start_ms, end_ms, oldest_s)
        if not blocks:
            return []
        try:
            return await asyncio.gather(*(asyncio.to_thread(open_and_read, b) for b in blocks))
        except BlockNotFound:
            blocks = await self._list(tenant, heads.cuts, start_ms, end_ms, self._clock())
            return await asyncio.gather(*(asyncio.to_thread(open_and_read, b) for b in blocks))

    async def _list(
        self, tenant: str, cuts: Sequence[PartitionCut], start_ms: int, end_ms: int, oldest_s: float
    ) -> list[BlockMeta]:
        """List the blocks that overlap the range; list again, then fail, if one that a head handed over lacks."""
        required = _handed_over(tenant, cuts)
        await self._listings.refresh(tenant, oldest_s=oldest_s)
        missing = self._missing(tenant, required, start_ms, end_ms)
        if missing:
            await self._listings.refresh(tenant, oldest_s=self._clock())
            missing = self._missing(tenant, required, start_ms, end_ms)
        if missing:
            raise BlocksMissing(missing)
        return sorted(self._catalog.blocks(tenant, start_ms, end_ms), key=lambda b: (b.start_offset, b.ulid))

    def _missing(self, tenant: str, required: Sequence[BlockRef], start_ms: int, end_ms: int) -> list[str]:
        if not required:
            return []
        return missing_blocks(
            required, self._catalog.blocks(tenant, start_ms, end_ms), start_ms=start_ms, end_ms=end_ms
        )


def _handed_over(tenant: str, cuts: Sequence[PartitionCut]) -> list[BlockRef]:
    return [block for cut in cuts for block in cut.blocks if block.tenant == tenant]
