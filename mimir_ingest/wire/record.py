"""Record values: what the version header of a record says about its bytes, in one place.

columnar   wire/columnar.py       this program's own, decoded without parsing
0, 1, 2    wire/mimir_record.py   Mimir's, so that a topic can be shared with it
control    wire/control.py        commands to every reader of a partition
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mimir_ingest.errors import RecordVersionUnsupported
from mimir_ingest.model.batch import WriteBatch
from mimir_ingest.model.histograms import HistogramSamples
from mimir_ingest.wire.columnar import RecordSettings, decode_columnar, encode_columnar
from mimir_ingest.wire.control import Control, decode_control, encode_flush, encode_settings
from mimir_ingest.wire.mimir_record import decode_mimir, encode_mimir, item_sizes

__all__ = [
    "VERSION_COLUMNAR",
    "VERSION_CONTROL",
    "VERSION_V0",
    "VERSION_V1",
    "VERSION_V2",
    "Control",
    "DecodedRecord",
    "RecordSettings",
    "decode",
    "decode_control",
    "encode_columnar",
    "encode_flush",
    "encode_mimir",
    "encode_settings",
    "split_for_size",
]

VERSION_V0, VERSION_V1, VERSION_V2 = 0, 1, 2
VERSION_COLUMNAR = 0x4D490001
VERSION_CONTROL = 0x4D490002

_COLUMNAR_FIXED_BYTES = 512
"""Header, section table and padding of a columnar value of layout 1; layout 2 takes twice that."""


@dataclass(frozen=True, slots=True)
class DecodedRecord:
    """A record of samples and metadata."""

    batch: WriteBatch
    settings: RecordSettings | None
    """None in Mimir's versions: the reader's configuration decides."""


def decode(version: int, value: bytes, *, check_hashes: bool = True) -> DecodedRecord:
    """Decode a record of samples. `check_hashes`: see `decode_columnar`.

    Raises
    ------
    RecordCorrupt
        The bytes contradict the version's format.
    RecordVersionUnsupported
        A version that this program does not know, or a later form of one that it knows; control records among them.
    """
    if version == VERSION_COLUMNAR:
        return DecodedRecord(*decode_columnar(value, check_hashes=check_hashes))
    if version in (VERSION_V0, VERSION_V1, VERSION_V2):
        return DecodedRecord(decode_mimir(version, value), None)
    raise RecordVersionUnsupported(f"record version {version} is not known to this program: update it")


def split_for_size(batch: WriteBatch, version: int, max_bytes: int) -> list[WriteBatch]:
    """Cut a batch into parts whose records stay within `max_bytes`, whole items in order (spec 1.5).

    First the parts with series, then those with metadata. An item that is larger alone becomes a part of its own; the
    log refuses that one.
    """
    if version == VERSION_COLUMNAR:
        fixed = _COLUMNAR_FIXED_BYTES
        samples = np.diff(batch.sample_offsets)
        series = np.diff(batch.label_offsets) + 16 * samples + 16
        if batch.histograms is not None:
            series += _histogram_bytes(batch.histograms)
            fixed = 2 * _COLUMNAR_FIXED_BYTES
        if batch.exemplars is not None:
            rows = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.diff(batch.exemplars.label_offsets) + 20)])
            series += 4 + np.diff(rows[batch.exemplars.offsets])
            fixed = 2 * _COLUMNAR_FIXED_BYTES
        if batch.starts is not None or batch.deltas is not None:
            series += 8 * samples + 1
            fixed = 2 * _COLUMNAR_FIXED_BYTES
        metadata = np.diff(batch.metadata.offsets[::3]) + 13
        room = max_bytes - fixed
    else:
        series, metadata = item_sizes(batch)
        room = max_bytes - 16  # why: the fields for source and flags
    parts = [batch.take(np.arange(first, last)) for first, last in _greedy(series, room)]
    for first, last in _greedy(metadata, room):
        parts.append(WriteBatch.empty(batch.metadata.take(np.arange(first, last)), batch.source))
    return parts


def _histogram_bytes(samples: HistogramSamples) -> np.ndarray:
    """Return int64[series]: what each series' native histograms take in a columnar value, its offsets included."""
    values = samples.values
    sizes = 67 + 12 * (np.diff(values.bucket_offsets[::2])) + 8 * np.diff(values.custom_offsets)
    return 4 + np.diff(np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])[samples.offsets])


def _greedy(sizes: np.ndarray, room: int) -> list[tuple[int, int]]:
    """Return the ranges of items that fit together, at least one item each."""
    ends = np.cumsum(sizes)
    ranges: list[tuple[int, int]] = []
    first = 0
    while first < len(sizes):
        before = int(ends[first - 1]) if first else 0
        last = max(first + 1, int(np.searchsorted(ends, before + room, side="right")))
        ranges.append((first, last))
        first = last
    return ranges
