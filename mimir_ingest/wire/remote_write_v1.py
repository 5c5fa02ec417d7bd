"""Remote write 1.0: a decompressed body to columns.

Also reads the value of a record of version 0 or 1, which has the same shape. Source: spec ingest-storage 1.2 and 8.1.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mimir_ingest.errors import InvalidRequest
from mimir_ingest.kernels import remote_write as kernels
from mimir_ingest.kernels.hashing import xxh64_spans
from mimir_ingest.kernels.label_order import sort_labels
from mimir_ingest.model.batch import SOURCE_API, MetadataColumns, WriteBatch
from mimir_ingest.model.histograms import gather_rows
from mimir_ingest.wire.data_points import DataPoints
from mimir_ingest.wire.exemplars import decode_exemplars
from mimir_ingest.wire.histograms import TIME_SERIES, HistogramFacts, find_histograms
from mimir_ingest.wire.protobuf import describe


@dataclass(frozen=True, slots=True)
class DecodedWrite:
    """A write request as columns, and what it holds besides."""

    batch: WriteBatch
    """Series in the order received. Label bytes are sorted by name, without empty values; a name may occur twice.
    A series that has only exemplars has a row without samples."""
    exemplar_count: int
    """Exemplars in the body; the batch has all of them."""
    histogram_count: int
    """Native histograms in the body; the batch has all of them, in the same order."""
    skip_label_name_validation: bool
    """Field 1000: the client asks not to check label names."""
    skip_label_count_validation: bool
    """Field 1001: the client asks not to count labels."""
    histogram_facts: HistogramFacts | None = None
    """About the batch's histograms; None without any."""
    data_points: DataPoints | None = None
    """Which of OTLP's data points each series comes from; None for other protocols."""

    def take(self, index: np.ndarray) -> DecodedWrite:
        """Return the series at `index` (int64[k]) with all that belongs to them, and the whole metadata."""
        facts, histograms = self.histogram_facts, self.batch.histograms
        if facts is not None and histograms is not None:
            facts = facts.take(gather_rows(histograms.offsets, index)[0])
        points = self.data_points
        return replace(
            self,
            batch=replace(self.batch.take(index), metadata=self.batch.metadata),
            histogram_facts=facts,
            data_points=points.take(index) if points is not None else None,
        )


def decode(body: bytes | memoryview) -> DecodedWrite:
    """Decode a remote write 1.0 request. The caller has bounded its size.

    Memory stays below a fixed multiple of the body's size, whatever the body claims.

    Raises
    ------
    InvalidRequest
        With the text that Mimir's decoder gives at the same place (spec http-api 15).
    """
    data = np.frombuffer(body, np.uint8)
    counts, error = np.empty(6, np.int64), np.zeros(4, np.int64)
    refusals: list[tuple[int, str]] = []
    status = kernels.scan(data, counts, error)
    if status < 0:
        refusals.append((int(error[3]), describe(status, error)))
        data = data[: error[3]]
    batch, created, found = _series(data, int(counts[kernels.SERIES]), refusals)
    metadata = _metadata(data, counts, refusals)
    if refusals:
        # The first one in the body, as a decoder that works front to back gives it.
        raise InvalidRequest(min(refusals)[1])
    histograms, facts = find_histograms(data, 0, TIME_SERIES, batch.series_count, int(found[kernels.HISTOGRAMS]))
    exemplars = None
    if found[kernels.EXEMPLARS]:
        exemplars = decode_exemplars(data, 0, series=batch.series_count, count=int(found[kernels.EXEMPLARS]))
    source = int(counts[kernels.SOURCE])
    batch = replace(
        batch,
        metadata=metadata,
        source=source if source in (0, 1, 2) else SOURCE_API,
        histograms=histograms,
        exemplars=exemplars,
    )
    return DecodedWrite(
        with_created(batch, created) if found[kernels.CREATED] else batch,
        int(found[kernels.EXEMPLARS]),
        int(found[kernels.HISTOGRAMS]),
        bool(counts[kernels.SKIP_LABEL_NAMES]),
        bool(counts[kernels.SKIP_LABEL_COUNT]),
        facts,
    )


def with_created(batch: WriteBatch, created: np.ndarray) -> WriteBatch:
    """Return the batch with the times at which its series were created (int64[n] ms, 0: not known).

    They are the starts of all samples of a series that have none of their own.
    """

    def filled(offsets: np.ndarray, starts: np.ndarray | None) -> np.ndarray:
        of_series = np.repeat(created, np.diff(offsets))
        return of_series if starts is None else np.where(starts == 0, of_series, starts)

    histograms = batch.histograms
    if histograms is not None:
        histograms = replace(histograms, starts=filled(histograms.offsets, histograms.starts))
    return replace(batch, starts=filled(batch.sample_offsets, batch.starts), histograms=histograms)


def _series(
    data: np.ndarray, series: int, refusals: list[tuple[int, str]]
) -> tuple[WriteBatch, np.ndarray, np.ndarray]:
    """Decode the series of a scanned request; return them, when each was created, and `fill_series`'s counts.

    May add a (position, text).
    """
    labels = np.empty(len(data) + 16, np.uint8)
    label_offsets, sample_offsets = np.empty(series + 1, np.int64), np.empty(series + 1, np.int64)
    found, error = np.empty(8, np.int64), np.zeros(4, np.int64)
    created = np.zeros(series, np.int64)
    # A sample with value and timestamp takes at least 18 bytes of body, a series at least some more.
    room = len(data) // 18 + 1
    while True:
        timestamps, values = np.empty(room, np.int64), np.empty(room, np.float64)
        status = kernels.fill_series(
            data, labels, label_offsets, sample_offsets, timestamps, values, created, found, error
        )
        if status < 0:
            refusals.append((int(error[3]), describe(status, error)))
            return WriteBatch.empty(), created, found
        samples = int(found[kernels.SAMPLES])
        if samples <= room:
            break
        room = samples
    used = labels[: found[kernels.LABEL_BYTES]]
    if found[kernels.UNSORTED]:
        scratch = [np.empty(found[kernels.MOST_LABELS] + 1, np.int64) for _ in range(3)]
        sort_labels(label_offsets, used, np.empty(found[kernels.MOST_LABEL_BYTES], np.uint8), *scratch)
    hashes = np.empty(series, np.uint64)
    xxh64_spans(used, label_offsets, hashes)
    if room > 2 * samples:
        timestamps, values = timestamps[:samples].copy(), values[:samples].copy()
    return (
        WriteBatch(used, label_offsets, hashes, sample_offsets, timestamps[:samples], values[:samples]),
        created,
        found,
    )


def _metadata(data: np.ndarray, counts: np.ndarray, refusals: list[tuple[int, str]]) -> MetadataColumns:
    """Decode the metadata of a scanned request. May add a (position, text)."""
    items = int(counts[kernels.METADATA])
    if not items:
        return MetadataColumns.empty()
    types, error = np.empty(items, np.uint8), np.zeros(4, np.int64)
    text, offsets = np.empty(counts[kernels.METADATA_BYTES] + 16, np.uint8), np.empty(3 * items + 1, np.int64)
    status = kernels.fill_metadata(data, types, text, offsets, error)
    if status < 0:
        refusals.append((int(error[3]), describe(status, error)))
        return MetadataColumns.empty()
    return MetadataColumns(types, text[: offsets[-1]], offsets)
