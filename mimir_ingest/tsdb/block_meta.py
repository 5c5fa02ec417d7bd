"""`meta.json` of a block: Prometheus's fields, Mimir's `thanos` section, and our `mimir_ingest` section.

Nothing in it says where or when the block was made. Sources: Prometheus tsdb/block.go (BlockMeta), Mimir
pkg/storage/tsdb/block/meta.go (ThanosMeta); ours: docs/format/block.md.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from mimir_ingest.errors import BlockCorrupt
from mimir_ingest.tsdb.ulid import is_ulid

META_FILE, INDEX_FILE, TOMBSTONES_FILE = "meta.json", "index", "tombstones"


@dataclass(frozen=True, slots=True)
class PartitionRange:
    """Which part of the log a block was cut from."""

    topic_id: str
    partition: int
    start_offset: int
    """First offset that could have contributed."""
    cut_offset: int
    """Offset of the record at which the cut was made; it and what follows did not contribute."""


@dataclass(frozen=True, slots=True)
class MetaFile:
    """What the readers of a block need to know of its `meta.json`."""

    ulid: str
    min_time_ms: int
    max_time_ms: int
    """Time after the last sample: the range is half-open."""
    series_count: int
    sample_count: int
    chunk_count: int
    level: int
    """Compaction level, 1 for a block that was cut from a head."""
    sources: tuple[str, ...]
    """ULIDs of the level 1 blocks that are in it."""
    external_labels: Mapping[str, str]
    """`thanos.labels`."""
    partition_range: PartitionRange | None
    """None for a block that this program did not cut."""
    document: dict = field(repr=False, compare=False)
    """The whole of `meta.json`."""

    def overlaps(self, start_ms: int, end_ms: int) -> bool:
        """Whether samples of `[start_ms, end_ms)` may be in the block."""
        return self.min_time_ms < end_ms and start_ms < self.max_time_ms


def build_meta(
    *,
    ulid: str,
    min_time_ms: int,
    max_time_ms: int,
    series_count: int,
    sample_count: int,
    histogram_count: int,
    chunk_count: int,
    partition_range: PartitionRange,
    file_sizes: Mapping[str, int],
) -> dict:
    """Return the document of a block that was cut from a partition.

    `sample_count` counts floats; `file_sizes` are the block's other files by relative path; `max_time_ms` is exclusive.
    """
    files = [{"rel_path": path, "size_bytes": size} for path, size in file_sizes.items()]
    return {
        "ulid": ulid,
        "minTime": min_time_ms,
        "maxTime": max_time_ms,
        "stats": {
            "numSamples": sample_count + histogram_count,
            "numFloatSamples": sample_count,
            **({"numHistogramSamples": histogram_count} if histogram_count else {}),
            "numSeries": series_count,
            "numChunks": chunk_count,
        },
        "compaction": {"level": 1, "sources": [ulid]},
        "version": 1,
        "thanos": {
            "version": 1,
            "labels": {},
            "downsample": {"resolution": 0},
            "source": "receive",
            "segment_files": sorted(path.split("/")[1] for path in file_sizes if path.startswith("chunks/")),
            "files": sorted([*files, {"rel_path": META_FILE}], key=lambda file: file["rel_path"]),
        },
        "mimir_ingest": {
            "topic_id": partition_range.topic_id,
            "partition": partition_range.partition,
            "start_offset": partition_range.start_offset,
            "cut_offset": partition_range.cut_offset,
        },
    }


def encode_meta(document: dict) -> bytes:
    """Return the file, indented with tabs as Prometheus does."""
    return json.dumps(document, indent="\t", ensure_ascii=False).encode()


def decode_meta(file: bytes) -> dict:
    """Return the document; raises `BlockCorrupt` if it is not one of version 1."""
    try:
        document = json.loads(file)
    except (ValueError, RecursionError) as error:
        raise BlockCorrupt(f"meta.json: {error}") from error
    read_meta(document)
    return document


def read_meta(document: dict) -> MetaFile:
    """Return the facts of a document; raises `BlockCorrupt` naming the field that is missing or wrong."""
    if not isinstance(document, dict):
        raise BlockCorrupt("meta.json: not an object")
    if document.get("version") != 1:
        raise BlockCorrupt(f"meta.json: version {document.get('version')!r}, only 1 is known")
    ulid = document.get("ulid")
    if not isinstance(ulid, str) or not is_ulid(ulid):
        raise BlockCorrupt(f"meta.json: ulid is {ulid!r}")
    stats, compaction = _object(document, "stats"), _object(document, "compaction")
    sources = compaction.get("sources") or []
    if not isinstance(sources, list) or not all(isinstance(source, str) for source in sources):
        raise BlockCorrupt("meta.json: compaction.sources is not a list of strings")
    own = _object(document, "mimir_ingest")
    return MetaFile(
        ulid=ulid,
        min_time_ms=_integer(document, "minTime"),
        max_time_ms=_integer(document, "maxTime"),
        series_count=_integer(stats, "numSeries", 0),
        sample_count=_integer(stats, "numSamples", 0),
        chunk_count=_integer(stats, "numChunks", 0),
        level=_integer(compaction, "level", 0),
        sources=tuple(sources),
        external_labels=_object(_object(document, "thanos"), "labels"),
        partition_range=_partition_range(own) if own else None,
        document=document,
    )


def _partition_range(own: dict) -> PartitionRange:
    topic_id = own.get("topic_id")
    if not isinstance(topic_id, str):
        raise BlockCorrupt(f"meta.json: mimir_ingest.topic_id is {topic_id!r}")
    return PartitionRange(
        topic_id, _integer(own, "partition"), _integer(own, "start_offset"), _integer(own, "cut_offset")
    )


def _object(parent: dict, key: str) -> dict:
    value = parent.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise BlockCorrupt(f"meta.json: {key} is not an object")
    return value


def _integer(parent: dict, key: str, default: int | None = None) -> int:
    value = parent.get(key, default)
    if not isinstance(value, int) or isinstance(value, bool):
        raise BlockCorrupt(f"meta.json: {key} is {value!r}, not an integer")
    return value
