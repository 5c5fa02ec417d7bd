"""Checkpoints of partitions in the bucket, as opaque bytes; what is in them is the ingester's to say.

A checkpoint's bytes are a function of the log, so several owners may write the same one. The newest one is what an
owner resumes from; older ones are kept as places for a replay to begin at.
"""

from __future__ import annotations

from collections.abc import Mapping

from mimir_ingest.bucket.layout import checkpoint_file, checkpoint_folder, parse_checkpoint_name
from mimir_ingest.bucket.store import Bucket
from mimir_ingest.errors import BlockNotFound, StoreUnavailable

KEPT_NEWEST = 4
"""why: one is enough to resume; the ones before it stand in should it turn out to be damaged."""

_DAY_MS = 24 * 3_600_000
_KEPT_DAYS = 8
"""why: a replay reads a day of the log at most before it is where it was asked to begin; Kafka keeps seven days unless
it is told otherwise."""


def find_superseded(written_ms: Mapping[int, int]) -> list[int]:
    """Return the checkpoints that may go: all but the newest ones and, for some days, the first of each day.

    `written_ms` are all of a partition's cut offsets with the time (ms since the Unix epoch) each was written.
    """
    offsets = sorted(written_ms)
    days: set[int] = set()
    superseded = []
    for offset in offsets[:-KEPT_NEWEST]:
        day = written_ms[offset] // _DAY_MS
        if day in days or day <= written_ms[offsets[-1]] // _DAY_MS - _KEPT_DAYS:
            superseded.append(offset)
        days.add(day)
    return superseded


class CheckpointStore:
    """The checkpoints of one partition."""

    def __init__(self, bucket: Bucket, topic_id: str, partition: int) -> None:
        self._bucket = bucket
        self._topic_id, self._partition = topic_id, partition

    def publish(self, cut_offset: int, data: bytes) -> None:
        """Write the checkpoint of a cut, read it back, and drop what it supersedes. Raises StoreUnavailable."""
        self.write(cut_offset, data)
        if self.read(cut_offset) != data:
            raise StoreUnavailable(
                f"the checkpoint of partition {self._partition} at {cut_offset} reads back differently"
            )
        offsets = self.list()
        if len(offsets) <= KEPT_NEWEST:
            return
        for offset in find_superseded(self._written_ms(offsets)):
            self.delete(offset)

    def _written_ms(self, offsets: list[int]) -> dict[int, int]:
        written = {}
        for offset in offsets:
            try:
                written[offset] = self._bucket.modified_ms(self._path(offset))
            except BlockNotFound:
                continue  # another owner of the partition has just deleted it
        return written

    def write(self, cut_offset: int, data: bytes) -> None:
        """Publish the checkpoint of a cut, whole or not at all."""
        self._bucket.write_atomic(self._path(cut_offset), data)

    def read(self, cut_offset: int) -> bytes | None:
        """Return the checkpoint of a cut, None if there is none."""
        try:
            return self._bucket.read(self._path(cut_offset))
        except BlockNotFound:
            return None

    def read_front(self, cut_offset: int, size: int) -> bytes | None:
        """Return the first `size` bytes of the checkpoint of a cut, fewer if it has no more, None if there is none."""
        try:
            return self._bucket.read_range(self._path(cut_offset), 0, size)
        except BlockNotFound:
            return None

    def exists(self, cut_offset: int) -> bool:
        """Whether a cut has its checkpoint."""
        return self._bucket.exists(self._path(cut_offset))

    def list(self) -> list[int]:
        """Return the cut offsets that have a checkpoint, ascending."""
        names = self._bucket.list(checkpoint_folder(self._topic_id, self._partition))
        return sorted(offset for offset in map(parse_checkpoint_name, names) if offset is not None)

    def delete(self, cut_offset: int) -> None:
        """Remove a checkpoint; none there is fine."""
        self._bucket.delete(self._path(cut_offset))

    def _path(self, cut_offset: int) -> str:
        return checkpoint_file(self._topic_id, self._partition, cut_offset)
