"""Which blocks a tenant has in the bucket, and open readers over them.

A folder is a block once it has `meta.json`; one marked for deletion is read until it is gone, as its marker's delay is
there to allow. Lists are replaced as a whole, so a reader sees the old one or the new one. Two caches are bounded by
bytes: the open blocks (index and tables), least recently used first out. What nobody has asked for in a while goes,
lists too. Methods block; call them in threads.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from mimir_ingest.bucket.layout import CLUSTER_FOLDER, block_file, meta_file, tenant_folder
from mimir_ingest.bucket.store import Bucket
from mimir_ingest.errors import BlockCorrupt, BlockNotFound
from mimir_ingest.tsdb.block_meta import INDEX_FILE, TOMBSTONES_FILE, MetaFile, decode_meta, read_meta
from mimir_ingest.tsdb.block_reader import BlockReader
from mimir_ingest.tsdb.chunk_files import segment_path
from mimir_ingest.tsdb.ulid import is_ulid

OPEN_BLOCKS_BYTES = 512 << 20
"""Default bound of open blocks; an index takes about 120 bytes a series."""

IDLE_S = 3600.0
"""Default of how long lists and open blocks are kept that nobody asks for."""

_LEAST_IDLE_S = 60.0
"""why: who has refreshed a list asks for its blocks next, and must find it."""

_TIDY_S = 60.0
"""why: a pass over ten thousand tenants takes a millisecond."""

_LOCKS = 256
"""why: one a tenant would have to be kept for as long as anybody might wait for it. Tenants that share one wait for
each other's list."""

_FETCHES = 16
"""`meta.json` files read at a time. why: one takes a round trip, and there is no other cost."""


@dataclass(frozen=True, slots=True)
class BlockMeta:
    """A block in the bucket."""

    tenant: str
    file: MetaFile

    @property
    def ulid(self) -> str:
        """Name of the block."""
        return self.file.ulid

    @property
    def min_time_ms(self) -> int:
        """Time of its first sample."""
        return self.file.min_time_ms

    @property
    def max_time_ms(self) -> int:
        """Time after its last sample."""
        return self.file.max_time_ms

    @property
    def sources(self) -> tuple[str, ...]:
        """ULIDs of the blocks that were merged into it, itself if none were."""
        return self.file.sources

    @property
    def start_offset(self) -> int:
        """First offset of the log that it was cut from; -1 for a block that was merged or came from elsewhere."""
        return self.file.partition_range.start_offset if self.file.partition_range else -1


@dataclass(slots=True)
class _Listing:
    blocks: dict[str, BlockMeta]
    """By ULID, ascending."""
    corrupt: dict[str, str]
    asked_s: float
    """When somebody asked last."""


class BlockCatalog:
    """The blocks of a bucket, by tenant. Any number of threads may share it."""

    def __init__(
        self,
        bucket: Bucket,
        *,
        open_blocks_bytes: int = OPEN_BLOCKS_BYTES,
        list_idle_s: float = IDLE_S,
        open_idle_s: float = IDLE_S,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Start empty: `refresh` a tenant before asking for its blocks. An `open_idle_s` of 0 is for ever."""
        self._bucket = bucket
        self._list_idle_s, self._open_idle_s = list_idle_s, open_idle_s
        self._clock = clock
        self._listings: dict[str, _Listing] = {}
        self._refreshing = tuple(threading.Lock() for _ in range(_LOCKS))
        self._open = _ReaderCache(open_blocks_bytes, clock)
        self._tidy_s = clock() + _TIDY_S

    def _lock_of(self, tenant: str) -> threading.Lock:
        return self._refreshing[hash(tenant) % _LOCKS]

    def tenants(self) -> list[str]:
        """Return all tenants that have a folder in the bucket, ascending."""
        return [name[:-1] for name in self._bucket.list() if name.endswith("/") and name[:-1] != CLUSTER_FOLDER]

    def refresh(self, tenant: str) -> None:
        """List the tenant's blocks anew; `meta.json` is read once a block.

        Raises `StoreUnavailable`, and then the old list stays.
        """
        self._forget_idle()
        with self._lock_of(tenant):
            old = self._listings.get(tenant, _Listing({}, {}, 0.0))
            names = self._bucket.list(tenant_folder(tenant))
            ulids = [name[:-1] for name in names if name.endswith("/") and is_ulid(name[:-1])]
            new = [ulid for ulid in ulids if ulid not in old.blocks]
            with ThreadPoolExecutor(_FETCHES) if len(new) > 1 else _Inline() as pool:
                found = dict(zip(new, pool.map(lambda ulid: self._read_meta(tenant, ulid), new), strict=True))
            known = {**old.blocks, **found}
            blocks = {u: meta for u in sorted(ulids) if isinstance(meta := known.get(u), BlockMeta)}
            corrupt = {ulid: reason for ulid, reason in found.items() if isinstance(reason, str)}
            self._listings[tenant] = _Listing(blocks, corrupt, self._clock())
            for ulid in old.blocks.keys() - blocks.keys():
                self._open.drop((tenant, ulid))

    def drop(self, block: BlockMeta) -> None:
        """Take a block that could not be read out of the list; a refresh puts it back if it is whole."""
        with self._lock_of(block.tenant):
            listing = self._listings.get(block.tenant)
            if listing is not None:
                rest = {ulid: meta for ulid, meta in listing.blocks.items() if ulid != block.ulid}
                self._listings[block.tenant] = _Listing(rest, listing.corrupt, listing.asked_s)
            self._open.drop((block.tenant, block.ulid))

    def forget_empty(self, tenant: str) -> None:
        """Drop what is held of a tenant that has no blocks; its list stays the same, an empty one."""
        with self._lock_of(tenant):
            listing = self._listings.get(tenant)
            if listing is None or listing.blocks or listing.corrupt:
                return
            del self._listings[tenant]

    def _forget_idle(self) -> None:
        """Drop the lists and open blocks that nobody has asked for, now and then."""
        now_s = self._clock()
        if now_s < self._tidy_s:
            return
        self._tidy_s = now_s + _TIDY_S
        for tenant, listing in list(self._listings.items()):
            if now_s - listing.asked_s >= max(self._list_idle_s, _LEAST_IDLE_S):
                with self._lock_of(tenant):
                    if self._listings.get(tenant) is listing:
                        del self._listings[tenant]
        if self._open_idle_s:
            self._open.drop_idle(self._open_idle_s)

    def is_listed(self, tenant: str) -> bool:
        """Whether there is a list, an empty one too."""
        return tenant in self._listings

    def blocks(self, tenant: str, start_ms: int, end_ms: int) -> list[BlockMeta]:
        """Return the listed blocks that may have samples in `[start_ms, end_ms)`, by ULID."""
        listing = self._listings.get(tenant)
        if listing is None:
            return []
        listing.asked_s = self._clock()
        return [block for block in listing.blocks.values() if block.file.overlaps(start_ms, end_ms)]

    def corrupt(self, tenant: str) -> dict[str, str]:
        """Return the blocks whose `meta.json` cannot be understood, with the reason; they are in no list."""
        listing = self._listings.get(tenant)
        return dict(listing.corrupt) if listing else {}

    def open(self, block: BlockMeta) -> BlockReader:
        """Return a reader of a block, an open one if there is.

        Raises `BlockNotFound` (it was deleted meanwhile), `BlockCorrupt`, `StoreUnavailable`.
        """
        return self._open.get((block.tenant, block.ulid), lambda: self._open_block(block))

    def _open_block(self, block: BlockMeta) -> BlockReader:
        tenant, ulid = block.tenant, block.ulid

        def read_segment(segment: int, start: int, end: int) -> bytes:
            return self._bucket.read_range(block_file(tenant, ulid, segment_path(segment)), start, end)

        try:
            tombstones = self._bucket.read(block_file(tenant, ulid, TOMBSTONES_FILE))
        except BlockNotFound:
            tombstones = None  # Mimir does not ship the file
        try:
            index = self._bucket.read(block_file(tenant, ulid, INDEX_FILE))
            return BlockReader(index, block.file.document, read_segment, tombstones)
        except BlockCorrupt as error:
            raise BlockCorrupt(f"block {tenant}/{ulid}: {error.message}") from error

    def _read_meta(self, tenant: str, ulid: str) -> BlockMeta | str | None:
        """A block's facts, the reason why it has none, or None for a folder that is not a block yet."""
        try:
            file = read_meta(decode_meta(self._bucket.read(meta_file(tenant, ulid))))
        except BlockNotFound:
            return None
        except BlockCorrupt as error:
            return error.message
        if file.ulid != ulid:
            return f"meta.json: ulid is {file.ulid}, the folder {ulid}"
        return BlockMeta(tenant, file)


class _Inline:
    """Stands in for a pool where one would cost more than it saves."""

    map = staticmethod(map)

    def __enter__(self) -> _Inline:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class _ReaderCache:
    """Open readers by (tenant, ULID); each is opened by one thread, the others wait for it."""

    def __init__(self, limit_bytes: int, clock: Callable[[], float]) -> None:
        self._limit_bytes, self._clock = limit_bytes, clock
        self._readers: OrderedDict[tuple[str, str], _Opened] = OrderedDict()
        self._opening: dict[tuple[str, str], threading.Lock] = {}
        self._lock = threading.Lock()

    def get(self, key: tuple[str, str], open_block: Callable[[], BlockReader]) -> BlockReader:
        with self._lock:
            reader = self._hit(key)
            if reader is not None:
                return reader
            opening = self._opening.setdefault(key, threading.Lock())
        try:
            with opening:
                with self._lock:
                    reader = self._hit(key)
                if reader is None:
                    reader = open_block()
                    self._add(key, reader)
            return reader
        finally:
            with self._lock:
                self._opening.pop(key, None)

    def drop(self, key: tuple[str, str]) -> None:
        with self._lock:
            self._readers.pop(key, None)

    def drop_idle(self, idle_s: float) -> None:
        """Close what was not used for so long."""
        before_s = self._clock() - idle_s
        with self._lock:
            for key in [key for key, opened in self._readers.items() if opened.used_s <= before_s]:
                del self._readers[key]

    def _hit(self, key: tuple[str, str]) -> BlockReader | None:
        opened = self._readers.get(key)
        if opened is None:
            return None
        opened.used_s = self._clock()
        self._readers.move_to_end(key)
        return opened.reader

    def _add(self, key: tuple[str, str], reader: BlockReader) -> None:
        with self._lock:
            self._readers[key] = _Opened(reader, self._clock())
            held = sum(each.reader.memory_bytes for each in self._readers.values())
            while held > self._limit_bytes and len(self._readers) > 1:
                _, oldest = self._readers.popitem(last=False)
                held -= oldest.reader.memory_bytes


@dataclass(slots=True)
class _Opened:
    reader: BlockReader
    used_s: float
