"""The columnar record value (VERSION_COLUMNAR): a WriteBatch as it lies in memory, so that a reader parses nothing.

    header    <u16 layout, u16 source, u32 sections, i64 max_series, i64 out_of_order_window_ms, i64 creation_grace_ms>
    sections  <u32 kind, u32 form, u64 start, u64 bytes> each
    columns   each at a multiple of 8, little-endian, zero bytes between

Page: docs/format/record.md. A reader that meets a layout, section kind or form that it does not know stops: a later
version wrote samples that it would lose.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mimir_ingest.errors import RecordCorrupt, RecordVersionUnsupported
from mimir_ingest.model.batch import METRIC_TYPES, SOURCE_OTLP, MetadataColumns, WriteBatch
from mimir_ingest.model.exemplars import Exemplars
from mimir_ingest.model.histograms import GAUGE, Histograms, HistogramSamples

LAYOUT, FULL_LAYOUT = 1, 2
"""Without and with sections of native histograms and exemplars. A record without either has layout 1."""
_HEADER = struct.Struct("<HHIqqq")
_SECTION = struct.Struct("<IIQQ")
_MAX_SECTIONS = 64

LABELS, LABEL_OFFSETS, HASHES, SAMPLE_OFFSETS, TIMESTAMPS, VALUES = 1, 2, 3, 4, 5, 6
METADATA_TYPES, METADATA_TEXT, METADATA_OFFSETS = 7, 8, 9
HISTOGRAM_OFFSETS, HISTOGRAM_TIMESTAMPS, SCHEMAS, RESET_HINTS, FLOAT_KINDS = 10, 11, 12, 13, 14
ZERO_THRESHOLDS, ZERO_COUNTS, COUNTS, SUMS = 15, 16, 17, 18
BUCKET_OFFSETS, BUCKET_INDEXES, BUCKET_COUNTS, CUSTOM_OFFSETS, CUSTOM_VALUES = 19, 20, 21, 22, 23
EXEMPLAR_OFFSETS, EXEMPLAR_TIMESTAMPS, EXEMPLAR_VALUES, EXEMPLAR_LABELS, EXEMPLAR_LABEL_OFFSETS = 24, 25, 26, 27, 28
STARTS, HISTOGRAM_STARTS, DELTAS = 29, 30, 31
METRIC_SERIES_LIMIT, UNLIMITED_METRICS = 48, 49
PLAIN, CONSTANT = 0, 1
"""Form of a section: one entry a row, or one entry that all rows share (timestamps only)."""

_TIMES = (TIMESTAMPS, HISTOGRAM_TIMESTAMPS, STARTS, HISTOGRAM_STARTS)

_NAMES = {
    LABELS: "labels",
    LABEL_OFFSETS: "label offsets",
    HASHES: "hashes",
    SAMPLE_OFFSETS: "sample offsets",
    TIMESTAMPS: "timestamps",
    VALUES: "values",
    METADATA_TYPES: "metadata types",
    METADATA_TEXT: "metadata text",
    METADATA_OFFSETS: "metadata offsets",
    HISTOGRAM_OFFSETS: "histogram offsets",
    HISTOGRAM_TIMESTAMPS: "histogram timestamps",
    SCHEMAS: "histogram schemas",
    RESET_HINTS: "reset hints",
    FLOAT_KINDS: "histogram kinds",
    ZERO_THRESHOLDS: "zero thresholds",
    ZERO_COUNTS: "zero counts",
    COUNTS: "histogram counts",
    SUMS: "histogram sums",
    BUCKET_OFFSETS: "bucket offsets",
    BUCKET_INDEXES: "bucket indexes",
    BUCKET_COUNTS: "bucket counts",
    CUSTOM_OFFSETS: "custom bound offsets",
    CUSTOM_VALUES: "custom bounds",
    EXEMPLAR_OFFSETS: "exemplar offsets",
    EXEMPLAR_TIMESTAMPS: "exemplar timestamps",
    EXEMPLAR_VALUES: "exemplar values",
    EXEMPLAR_LABELS: "exemplar labels",
    EXEMPLAR_LABEL_OFFSETS: "exemplar label offsets",
    STARTS: "starts",
    HISTOGRAM_STARTS: "histogram starts",
    DELTAS: "deltas",
    METRIC_SERIES_LIMIT: "series limit of a metric",
    UNLIMITED_METRICS: "metrics without limit",
}
_DTYPES = {
    LABELS: np.dtype("u1"),
    LABEL_OFFSETS: np.dtype("<u4"),
    HASHES: np.dtype("<u8"),
    SAMPLE_OFFSETS: np.dtype("<u4"),
    TIMESTAMPS: np.dtype("<i8"),
    VALUES: np.dtype("<f8"),
    METADATA_TYPES: np.dtype("u1"),
    METADATA_TEXT: np.dtype("u1"),
    METADATA_OFFSETS: np.dtype("<u4"),
    HISTOGRAM_OFFSETS: np.dtype("<u4"),
    HISTOGRAM_TIMESTAMPS: np.dtype("<i8"),
    SCHEMAS: np.dtype("i1"),
    RESET_HINTS: np.dtype("u1"),
    FLOAT_KINDS: np.dtype("u1"),
    ZERO_THRESHOLDS: np.dtype("<f8"),
    ZERO_COUNTS: np.dtype("<f8"),
    COUNTS: np.dtype("<f8"),
    SUMS: np.dtype("<f8"),
    BUCKET_OFFSETS: np.dtype("<u4"),
    BUCKET_INDEXES: np.dtype("<i4"),
    BUCKET_COUNTS: np.dtype("<f8"),
    CUSTOM_OFFSETS: np.dtype("<u4"),
    CUSTOM_VALUES: np.dtype("<f8"),
    EXEMPLAR_OFFSETS: np.dtype("<u4"),
    EXEMPLAR_TIMESTAMPS: np.dtype("<i8"),
    EXEMPLAR_VALUES: np.dtype("<f8"),
    EXEMPLAR_LABELS: np.dtype("u1"),
    EXEMPLAR_LABEL_OFFSETS: np.dtype("<u4"),
    STARTS: np.dtype("<i8"),
    HISTOGRAM_STARTS: np.dtype("<i8"),
    DELTAS: np.dtype("u1"),
    METRIC_SERIES_LIMIT: np.dtype("<i8"),
    UNLIMITED_METRICS: np.dtype("u1"),
}


_Sections = dict[int, tuple[np.ndarray, int]]


@dataclass(frozen=True, slots=True)
class RecordSettings:
    """What decides a record's own samples, so that no reader's configuration can change content."""

    max_series: int = 0
    """The partition's share of the tenant's series limit; 0 is no limit."""
    out_of_order_window_ms: int = 0
    """How much older than the tenant's newest sample an out-of-order sample may be."""
    creation_grace_ms: int = 600_000
    """How far a sample may lie past the record's time."""
    max_series_per_metric: int = 0
    """The partition's share of the limit of a metric's series; 0 is no limit."""
    unlimited_metrics: tuple[bytes, ...] = ()
    """Metric names, without commas, to which that limit does not apply."""


def _columns(batch: WriteBatch) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yield (kind, form, column) of what has to be written."""
    if batch.series_count:
        yield LABELS, PLAIN, batch.labels
        yield LABEL_OFFSETS, PLAIN, batch.label_offsets
        yield HASHES, PLAIN, batch.hashes
        if batch.sample_count != batch.series_count or (np.diff(batch.sample_offsets) != 1).any():
            yield SAMPLE_OFFSETS, PLAIN, batch.sample_offsets
        if batch.sample_count:
            yield _times_column(TIMESTAMPS, batch.timestamps)
            yield VALUES, PLAIN, batch.values
    if len(batch.metadata):
        yield METADATA_TYPES, PLAIN, batch.metadata.types
        yield METADATA_TEXT, PLAIN, batch.metadata.text
        yield METADATA_OFFSETS, PLAIN, batch.metadata.offsets
    if batch.histograms is not None and batch.histograms.sample_count:
        yield from _histogram_columns(batch.histograms)
    if batch.exemplars is not None and batch.exemplars.count:
        yield EXEMPLAR_OFFSETS, PLAIN, batch.exemplars.offsets
        yield EXEMPLAR_TIMESTAMPS, PLAIN, batch.exemplars.timestamps
        yield EXEMPLAR_VALUES, PLAIN, batch.exemplars.values
        yield EXEMPLAR_LABELS, PLAIN, batch.exemplars.labels
        yield EXEMPLAR_LABEL_OFFSETS, PLAIN, batch.exemplars.label_offsets
    if batch.starts is not None and len(batch.starts):
        yield _times_column(STARTS, batch.starts)
    if batch.deltas is not None and batch.deltas.any():
        yield DELTAS, PLAIN, batch.deltas


def _times_column(kind: int, times: np.ndarray) -> tuple[int, int, np.ndarray]:
    """Return (kind, form, column) of times, of which there are some."""
    first = times[:1]
    return (kind, CONSTANT, first) if bool((times == first).all()) else (kind, PLAIN, times)


def _histogram_columns(samples: HistogramSamples) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yield (kind, form, column) of what native histograms need."""
    values = samples.values
    yield HISTOGRAM_OFFSETS, PLAIN, samples.offsets
    yield _times_column(HISTOGRAM_TIMESTAMPS, samples.timestamps)
    yield SCHEMAS, PLAIN, values.schema
    yield RESET_HINTS, PLAIN, values.reset_hint
    yield FLOAT_KINDS, PLAIN, values.is_float
    yield ZERO_THRESHOLDS, PLAIN, values.zero_threshold
    yield ZERO_COUNTS, PLAIN, values.zero_count
    yield COUNTS, PLAIN, values.count
    yield SUMS, PLAIN, values.sum
    yield BUCKET_OFFSETS, PLAIN, values.bucket_offsets
    yield BUCKET_INDEXES, PLAIN, values.bucket_index
    yield BUCKET_COUNTS, PLAIN, values.bucket_count
    if len(values.custom_values):
        yield CUSTOM_OFFSETS, PLAIN, values.custom_offsets
        yield CUSTOM_VALUES, PLAIN, values.custom_values
    if samples.starts is not None:
        yield _times_column(HISTOGRAM_STARTS, samples.starts)


def _settings_columns(settings: RecordSettings) -> Iterator[tuple[int, int, np.ndarray]]:
    """Yield (kind, form, column) of the settings that the header has no place for."""
    if settings.max_series_per_metric:
        yield METRIC_SERIES_LIMIT, PLAIN, np.array([settings.max_series_per_metric], np.int64)
        if settings.unlimited_metrics:
            yield UNLIMITED_METRICS, PLAIN, np.frombuffer(b",".join(settings.unlimited_metrics), np.uint8)


def encode_columnar(batch: WriteBatch, settings: RecordSettings) -> bytes:
    """Return the record value of a batch. Label bytes and metadata text must be below 4 GiB."""
    stated = (*_columns(batch), *_settings_columns(settings))
    columns = [(kind, form, column.astype(_DTYPES[kind], copy=False)) for kind, form, column in stated]
    at = _HEADER.size + _SECTION.size * len(columns)
    table, padded = [], []
    for kind, form, column in columns:
        table.append(_SECTION.pack(kind, form, at, column.nbytes))
        padded += [column.data, bytes(-column.nbytes % 8)]
        at += column.nbytes + -column.nbytes % 8
    header = _HEADER.pack(
        FULL_LAYOUT if any(kind >= HISTOGRAM_OFFSETS for kind, _, _ in columns) else LAYOUT,
        batch.source,
        len(columns),
        settings.max_series,
        settings.out_of_order_window_ms,
        settings.creation_grace_ms,
    )
    return b"".join([header, *table, *padded])


def decode_columnar(value: bytes, *, check_hashes: bool = True) -> tuple[WriteBatch, RecordSettings]:
    """Return the batch, its large columns as views over `value`, and the settings.

    Without `check_hashes` the caller compares hashes and label bytes with those of series whose hashes were checked,
    and calls `WriteBatch.check_hashes` when one is new.

    Raises
    ------
    RecordCorrupt
        Naming the section, its byte offset, the bytes wanted and those left; offsets that do not ascend, counts that
        contradict each other, a hash that is not that of its label bytes.
    RecordVersionUnsupported
        A layout, section or form of a later version.
    """
    sections, source, settings = _read_header(value)
    series = len(sections.get(HASHES, ((), 0))[0])
    labels = _column(sections, LABELS)
    label_offsets = _offsets(sections, LABEL_OFFSETS, series, len(labels))
    values = _column(sections, VALUES)
    if SAMPLE_OFFSETS in sections or not len(values):
        sample_offsets = _offsets(sections, SAMPLE_OFFSETS, series, len(values))
    elif len(values) == series:
        sample_offsets = np.arange(series + 1, dtype=np.int64)
    else:
        raise RecordCorrupt(f"record: {len(values)} values for {series} series, and no sample offsets")
    types = _column(sections, METADATA_TYPES)
    if (types >= len(METRIC_TYPES)).any():
        raise RecordCorrupt(f"record: section {_NAMES[METADATA_TYPES]} has the unknown type {types.max()}")
    text = _column(sections, METADATA_TEXT)
    batch = WriteBatch(
        labels,
        label_offsets,
        _column(sections, HASHES),
        sample_offsets,
        _timestamps(sections, TIMESTAMPS, len(values)),
        values,
        MetadataColumns(types, text, _offsets(sections, METADATA_OFFSETS, 3 * len(types), len(text))),
        source,
        _histograms(sections, series) if SCHEMAS in sections else None,
        _exemplars(sections, series) if EXEMPLAR_VALUES in sections else None,
        _timestamps(sections, STARTS, len(values)) if STARTS in sections else None,
        _deltas(sections, series) if DELTAS in sections else None,
    )
    if check_hashes:
        batch.check_hashes()
    return batch, settings


def _deltas(sections: _Sections, series: int) -> np.ndarray:
    deltas = _column(sections, DELTAS)
    if len(deltas) != series or (deltas > 1).any():
        raise RecordCorrupt(f"record: section {_NAMES[DELTAS]} has {len(deltas)} entries for {series}, each 0 or 1")
    return deltas.view(bool)


def _exemplars(sections: _Sections, series: int) -> Exemplars:
    """Return the exemplars of a record, their columns consistent with each other, their labels not looked into."""
    values, labels = _column(sections, EXEMPLAR_VALUES), _column(sections, EXEMPLAR_LABELS)
    return Exemplars(
        _offsets(sections, EXEMPLAR_OFFSETS, series, len(values)),
        _timestamps(sections, EXEMPLAR_TIMESTAMPS, len(values)),
        values,
        labels,
        _offsets(sections, EXEMPLAR_LABEL_OFFSETS, len(values), len(labels)),
    )


def _histograms(sections: _Sections, series: int) -> HistogramSamples:
    """Return the native histograms of a record, their columns consistent with each other."""
    schema = _column(sections, SCHEMAS)
    m = len(schema)
    index, custom_values = _column(sections, BUCKET_INDEXES), _column(sections, CUSTOM_VALUES)
    for kind in (RESET_HINTS, FLOAT_KINDS, ZERO_THRESHOLDS, ZERO_COUNTS, COUNTS, SUMS):
        if len(_column(sections, kind)) != m:
            raise RecordCorrupt(f"record: section {_NAMES[kind]} has {len(_column(sections, kind))} entries for {m}")
    if len(_column(sections, BUCKET_COUNTS)) != len(index):
        raise RecordCorrupt(f"record: {len(_column(sections, BUCKET_COUNTS))} bucket counts for {len(index)} indexes")
    if (_column(sections, RESET_HINTS) > GAUGE).any() or (_column(sections, FLOAT_KINDS) > 1).any():
        raise RecordCorrupt("record: histograms with an unknown reset hint or kind")
    bucket_offsets = _offsets(sections, BUCKET_OFFSETS, 2 * m, len(index))
    ascends = np.append(True, index[1:] > index[:-1])
    ascends[bucket_offsets[:-1][np.diff(bucket_offsets) > 0]] = True
    if not ascends.all():
        raise RecordCorrupt(f"record: section {_NAMES[BUCKET_INDEXES]} does not ascend at entry {np.argmin(ascends)}")
    values = Histograms(
        schema,
        _column(sections, RESET_HINTS),
        _column(sections, FLOAT_KINDS).view(bool),
        *(_column(sections, kind) for kind in (ZERO_THRESHOLDS, ZERO_COUNTS, COUNTS, SUMS)),
        bucket_offsets,
        index,
        _column(sections, BUCKET_COUNTS),
        _offsets(sections, CUSTOM_OFFSETS, m, len(custom_values)),
        custom_values,
    )
    return HistogramSamples(
        _offsets(sections, HISTOGRAM_OFFSETS, series, m),
        _timestamps(sections, HISTOGRAM_TIMESTAMPS, m),
        values,
        _timestamps(sections, HISTOGRAM_STARTS, m) if HISTOGRAM_STARTS in sections else None,
    )


def _read_header(value: bytes) -> tuple[_Sections, int, RecordSettings]:
    if len(value) < _HEADER.size:
        raise RecordCorrupt(f"record: header at byte 0 wants {_HEADER.size} bytes, {len(value)} are left")
    layout, source, count, series, window, grace = _HEADER.unpack_from(value)
    if layout not in (LAYOUT, FULL_LAYOUT):
        raise RecordVersionUnsupported(
            f"columnar record of layout {layout}; this program knows up to {FULL_LAYOUT}: update it"
        )
    if source > SOURCE_OTLP:
        raise RecordCorrupt(f"record: header with the unknown source {source}")
    if count > _MAX_SECTIONS or _HEADER.size + count * _SECTION.size > len(value):
        raise RecordCorrupt(f"record: a table of {count} sections does not fit into {len(value)} bytes")
    if min(series, window, grace) < 0:
        raise RecordCorrupt("record: header with a negative setting")
    sections: _Sections = {}
    for i in range(count):
        kind, form, start, size = _SECTION.unpack_from(value, _HEADER.size + i * _SECTION.size)
        known = kind in _DTYPES and (kind < HISTOGRAM_OFFSETS or layout == FULL_LAYOUT)
        if not known or form not in (PLAIN, CONSTANT) or (form == CONSTANT and kind not in _TIMES):
            raise RecordVersionUnsupported(f"record section {kind} of form {form} is not known: update this program")
        name, dtype = _NAMES[kind], _DTYPES[kind]
        if start + size > len(value):
            left = max(0, len(value) - start)
            raise RecordCorrupt(f"record: section {name} at byte {start} wants {size} bytes, {left} are left")
        if start % 8 or size % dtype.itemsize or kind in sections:
            raise RecordCorrupt(f"record: section {name} at byte {start} of {size} bytes is misplaced or repeated")
        sections[kind] = np.frombuffer(value, dtype, size // dtype.itemsize, start), form
    return sections, source, RecordSettings(series, window, grace, *_metric_limit(sections))


def _metric_limit(sections: _Sections) -> tuple[int, tuple[bytes, ...]]:
    """Return the limit of a metric's series, and the names without it."""
    limit, names = _column(sections, METRIC_SERIES_LIMIT).tolist(), _column(sections, UNLIMITED_METRICS).tobytes()
    if not limit and not names:
        return 0, ()
    if len(limit) != 1 or limit[0] <= 0:
        raise RecordCorrupt(f"record: section {_NAMES[METRIC_SERIES_LIMIT]} has {limit[:9]}, not one limit")
    return limit[0], tuple(names.split(b",")) if names else ()


def _column(sections: _Sections, kind: int) -> np.ndarray:
    if kind in sections:
        return sections[kind][0]
    return np.empty(0, _DTYPES[kind])


def _offsets(sections: _Sections, kind: int, rows: int, total: int) -> np.ndarray:
    """Return int64[rows + 1] offsets that ascend from 0 to `total`."""
    if kind not in sections and (rows == 0 or total == 0):
        offsets = np.zeros(rows + 1, np.int64)
    else:
        offsets = _column(sections, kind).astype(np.int64)
    if len(offsets) != rows + 1 or offsets[0] != 0 or offsets[-1] != total or (np.diff(offsets) < 0).any():
        raise RecordCorrupt(f"record: section {_NAMES[kind]} does not lead {rows} rows through {total} entries")
    return offsets


def _timestamps(sections: _Sections, kind: int, samples: int) -> np.ndarray:
    column, form = sections.get(kind, (np.empty(0, np.int64), PLAIN))
    if form == CONSTANT and len(column) == 1:
        return np.full(samples, column[0], np.int64)
    if form == CONSTANT or len(column) != samples:
        raise RecordCorrupt(f"record: {len(column)} {_NAMES[kind]} for {samples} values")
    return column
