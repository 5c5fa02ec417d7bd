"""The columns of one write request, from the wire to the log and from the log to the head."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from mimir_ingest.errors import RecordCorrupt
from mimir_ingest.kernels.gather import gather_bytes, gather_samples
from mimir_ingest.kernels.hashing import xxh64_spans
from mimir_ingest.model.exemplars import Exemplars
from mimir_ingest.model.histograms import HistogramSamples, gather_rows
from mimir_ingest.model.labels import get_uvarint

STALE_NAN_BITS = 0x7FF0000000000002
"""Bits of Prometheus's staleness marker; test them on the bits, arithmetic destroys them."""

SOURCE_API, SOURCE_RULE, SOURCE_OTLP = 0, 1, 2

METRIC_TYPES = ("unknown", "counter", "gauge", "histogram", "gaugehistogram", "summary", "info", "stateset")
"""Names of `MetricMetadata.MetricType`, by number (spec 1.2)."""


@dataclass(frozen=True, slots=True)
class MetadataColumns:
    """Metric metadata of one request: item i is `(types[i], family, help, unit)`, strings back to back in `text`."""

    types: np.ndarray
    """uint8[k]: index into METRIC_TYPES."""
    text: np.ndarray
    """uint8[...]: family, help and unit of item 0, then of item 1, …"""
    offsets: np.ndarray
    """int64[3 * k + 1]: string j (family, help, unit of item j // 3) is `text[offsets[j]:offsets[j + 1]]`."""

    @classmethod
    def empty(cls) -> MetadataColumns:
        """Return no items."""
        return cls(np.empty(0, np.uint8), np.empty(0, np.uint8), np.zeros(1, np.int64))

    def __len__(self) -> int:
        return len(self.types)

    def take(self, index: np.ndarray) -> MetadataColumns:
        """Return the items at `index` (int64[k])."""
        strings = (3 * np.asarray(index, np.int64)[:, None] + np.arange(3)).reshape(-1)
        offsets = _new_offsets(self.offsets, strings)
        text = np.empty(offsets[-1], np.uint8)
        gather_bytes(self.text, self.offsets, strings, offsets, text)
        return MetadataColumns(self.types[index], text, offsets)


def _new_offsets(offsets: np.ndarray, index: np.ndarray) -> np.ndarray:
    """Return int64[k + 1]: where the spans `index` lie once they are next to each other."""
    placed = np.zeros(len(index) + 1, np.int64)
    np.cumsum(offsets[index + 1] - offsets[index], out=placed[1:])
    return placed


@dataclass(frozen=True, slots=True)
class WriteBatch:
    """Series with their samples, and metadata. Arrays may be read-only views over a record's bytes."""

    labels: np.ndarray
    """uint8[...]: label bytes (see model.labels) of all series, back to back."""
    label_offsets: np.ndarray
    """int64[n + 1]: series i is `labels[label_offsets[i]:label_offsets[i + 1]]`."""
    hashes: np.ndarray
    """uint64[n]: xxHash64 with seed 0 over each series' label bytes."""
    sample_offsets: np.ndarray
    """int64[n + 1]: series i has the samples `sample_offsets[i]:sample_offsets[i + 1]`."""
    timestamps: np.ndarray
    """int64[m]: ms since the Unix epoch, in the order received."""
    values: np.ndarray
    """float64[m]: bit-exact, staleness markers included."""
    metadata: MetadataColumns = field(default_factory=MetadataColumns.empty)
    source: int = SOURCE_API
    histograms: HistogramSamples | None = None
    """Native histograms of the same n series, in the order received; None: there are none."""
    exemplars: Exemplars | None = None
    """Exemplars of the same n series; None: there are none."""
    starts: np.ndarray | None = None
    """int64[m] (ms): when what a sample counts began, 0 where that is not known; None: it is for no sample."""
    deltas: np.ndarray | None = None
    """bool[n]: series whose samples, of both kinds, count since the sample before; None: all count since a start."""

    @property
    def series_count(self) -> int:
        """Number of series rows (a label set may occur twice)."""
        return len(self.hashes)

    def first_value(self, label: str) -> str:
        """Return the value of a label of the first series; empty without series, label or name of one."""
        text = self.labels[: self.label_offsets[1]].tobytes() if label and self.series_count else b""
        at, pair = 0, [b"", b""]
        while at < len(text):
            for i in range(2):
                size, at = get_uvarint(text, at)
                pair[i], at = text[at : at + size], at + size
            if pair[0] == label.encode():
                return pair[1].decode("utf-8", "replace")
        return ""

    @property
    def sample_count(self) -> int:
        """Number of float samples."""
        return len(self.timestamps)

    @property
    def histogram_count(self) -> int:
        """Number of native histograms."""
        return 0 if self.histograms is None else self.histograms.sample_count

    @property
    def exemplar_count(self) -> int:
        """Number of exemplars."""
        return 0 if self.exemplars is None else self.exemplars.count

    def check_hashes(self) -> None:
        """Raise RecordCorrupt unless each hash is that of its label bytes.

        why: a series is its label bytes and their hash; one flipped bit in either would make a second series of it, for
        good. 33 ns a series.
        """
        found = np.empty(len(self.hashes), np.uint64)
        xxh64_spans(self.labels, self.label_offsets, found)
        if not np.array_equal(found, self.hashes):
            row = int(np.flatnonzero(found != self.hashes)[0])
            raise RecordCorrupt(
                f"record: series {row} at byte {self.label_offsets[row]} of its labels has another hash than it says"
            )

    def take(self, index: np.ndarray) -> WriteBatch:
        """Return the series at `index` (int64[k]) with their samples, without metadata."""
        index = np.ascontiguousarray(index, np.int64)
        label_offsets = _new_offsets(self.label_offsets, index)
        sample_offsets = _new_offsets(self.sample_offsets, index)
        labels = np.empty(label_offsets[-1], np.uint8)
        gather_bytes(self.labels, self.label_offsets, index, label_offsets, labels)
        timestamps = np.empty(sample_offsets[-1], np.int64)
        values = np.empty(sample_offsets[-1], np.float64)
        gather_samples(self.timestamps, self.values, self.sample_offsets, index, timestamps, values)
        return WriteBatch(
            labels,
            label_offsets,
            self.hashes[index],
            sample_offsets,
            timestamps,
            values,
            source=self.source,
            histograms=self.histograms.take(index) if self.histograms is not None else None,
            exemplars=self.exemplars.take(index) if self.exemplars is not None else None,
            starts=self.starts[gather_rows(self.sample_offsets, index)[0]] if self.starts is not None else None,
            deltas=self.deltas[index] if self.deltas is not None else None,
        )

    @classmethod
    def of_samples(
        cls,
        label_sets: Sequence[bytes],
        timestamps: Sequence[int],
        values: Sequence[float],
        metadata: MetadataColumns | None = None,
    ) -> WriteBatch:
        """Return a batch of rows with one sample each; `label_sets` are canonical label bytes. Cold paths only."""
        labels = np.frombuffer(b"".join(label_sets), np.uint8)
        offsets = np.cumsum([0, *map(len, label_sets)]).astype(np.int64)
        hashes = np.empty(len(label_sets), np.uint64)
        xxh64_spans(labels, offsets, hashes)
        return cls(
            labels,
            offsets,
            hashes,
            np.arange(len(label_sets) + 1, dtype=np.int64),
            np.array(timestamps, np.int64),
            np.array(values, np.float64),
            metadata or MetadataColumns.empty(),
        )

    @classmethod
    def empty(cls, metadata: MetadataColumns | None = None, source: int = SOURCE_API) -> WriteBatch:
        """Return a batch without series."""
        return cls(
            np.empty(0, np.uint8),
            np.zeros(1, np.int64),
            np.empty(0, np.uint64),
            np.zeros(1, np.int64),
            np.empty(0, np.int64),
            np.empty(0, np.float64),
            metadata or MetadataColumns.empty(),
            source,
        )
