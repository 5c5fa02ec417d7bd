"""Which blocks took over what an owner has let go of: read from the checkpoints of its cuts, and kept.

A checkpoint never changes, and lists the cuts of two days; older blocks are in every list of blocks. Only its header is
read.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping

from mimir_ingest.bucket.checkpoints import CheckpointStore
from mimir_ingest.bucket.store import Bucket
from mimir_ingest.errors import StoreUnavailable
from mimir_ingest.ingester.checkpoint import decode_front
from mimir_ingest.ingester.cut import CutSummary
from mimir_ingest.ingester.head_answer import PartitionCut
from mimir_ingest.tsdb.columns_file import ColumnsFileCorrupt, header_size

_FRONT_BYTES = 1 << 16
"""why: the header of 100 tenants' cuts of two days; a longer one costs another request."""

_KEPT = 4096
"""Checkpoints kept; one takes some 100 bytes a block."""

_Cuts = tuple[CutSummary, ...]


class CheckpointCuts:
    """Cuts by partition and cut offset. Used from one event loop."""

    def __init__(self, bucket: Bucket, topic_id: Callable[[], str], *, kept: int = _KEPT) -> None:
        """`topic_id` is asked when a checkpoint is read: the log knows it once it has started."""
        self._bucket = bucket
        self._topic_id = topic_id
        self._kept = kept
        self._cuts: OrderedDict[tuple[int, int], _Cuts] = OrderedDict()
        self._reading: dict[tuple[int, int], asyncio.Task[_Cuts]] = {}

    async def of(self, tenant: str, cut_offsets: Mapping[int, int]) -> list[PartitionCut]:
        """Return, for each partition, the tenant's blocks of its cuts up to a cut offset.

        Raises StoreUnavailable, also when no checkpoint covers the offset.
        """
        found = await asyncio.gather(*(self._read(*key) for key in cut_offsets.items()))
        return [
            PartitionCut(
                partition,
                cut_offset,
                tuple(b for cut in cuts if cut.cut_offset <= cut_offset for b in cut.blocks if b.tenant == tenant),
            )
            for (partition, cut_offset), cuts in zip(cut_offsets.items(), found, strict=True)
        ]

    async def _read(self, partition: int, cut_offset: int) -> _Cuts:
        key = partition, cut_offset
        known = self._cuts.get(key)
        if known is not None:
            self._cuts.move_to_end(key)
            return known
        task = self._reading.get(key)
        if task is None:
            task = self._reading[key] = asyncio.create_task(asyncio.to_thread(self._load, *key))
            task.add_done_callback(lambda done: self._keep(key, done))
        return await asyncio.shield(task)

    def _keep(self, key: tuple[int, int], task: asyncio.Task[_Cuts]) -> None:
        del self._reading[key]
        if not task.cancelled() and task.exception() is None:
            self._cuts[key] = task.result()
            while len(self._cuts) > self._kept:
                self._cuts.popitem(last=False)

    def _load(self, partition: int, cut_offset: int) -> _Cuts:
        """Read the checkpoint of the cut, or the first later one: it may have been superseded since."""
        checkpoints = CheckpointStore(self._bucket, self._topic_id(), partition)
        cuts = self._load_one(checkpoints, cut_offset)
        if cuts is not None:
            return cuts
        for later in checkpoints.list():
            cuts = self._load_one(checkpoints, later) if later > cut_offset else None
            if cuts is not None:
                return cuts
        raise StoreUnavailable(f"no checkpoint of partition {partition} covers its cut at offset {cut_offset}")

    @staticmethod
    def _load_one(checkpoints: CheckpointStore, cut_offset: int) -> _Cuts | None:
        front = checkpoints.read_front(cut_offset, _FRONT_BYTES)
        try:
            if front is not None and header_size(front) > len(front) == _FRONT_BYTES:
                front = checkpoints.read_front(cut_offset, header_size(front))
            return None if front is None else decode_front(front).cuts
        except ColumnsFileCorrupt:
            return None  # the owners report it; a later one says the same
