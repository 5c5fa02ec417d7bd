"""Checkpoints of partitions in the bucket, as opaque bytes; what is in them is the ingester's to say.

A checkpoint's bytes are a function of the log, so several owners may write the same one.
"""

from __future__ import annotations

from mimir_ingest.bucket.layout import checkpoint_file, checkpoint_folder, parse_checkpoint_name
from mimir_ingest.bucket.store import Bucket
from mimir_ingest.errors import BlockNotFound


class CheckpointStore:
    """The checkpoints of one partition."""

    def __init__(self, bucket: Bucket, topic_id: str, partition: int) -> None:
        self._bucket = bucket
        self._topic_id, self._partition = topic_id, partition

    def write(self, cut_offset: int, data: bytes) -> None:
        """Publish the checkpoint of a cut, whole or not at all."""
        self._bucket.write_atomic(self._path(cut_offset), data)

    def read(self, cut_offset: int) -> bytes | None:
        """Return the checkpoint of a cut, None if there is none."""
        try:
            return self._bucket.read(self._path(cut_offset))
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


def list_checkpointed_partitions(bucket: Bucket, topic_id: str) -> list[int]:
    """Return the partitions of a topic that have a folder of checkpoints, ascending."""
    folder = checkpoint_folder(topic_id, 0).rsplit("/", 1)[0]
    names = [name.rstrip("/") for name in bucket.list(folder) if name.endswith("/")]
    return sorted(int(name) for name in names if name.isascii() and name.isdigit())
