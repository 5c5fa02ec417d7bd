"""Record values in Mimir's versions: protobuf WriteRequests (spec ingest-storage 1.1 to 1.4).

Versions 0 and 1 have the shape of remote write 1.0 and equal bytes; they are written and read. Version 2 has a symbol
table and is read: references under 64 index a table that all programs share, others the record's own symbols.
"""

from __future__ import annotations

import numpy as np

from mimir_ingest.errors import InvalidRequest, InvariantViolated, RecordCorrupt, RecordVersionUnsupported
from mimir_ingest.kernels import write_request as kernels
from mimir_ingest.model.batch import WriteBatch
from mimir_ingest.model.labels import put_uvarint
from mimir_ingest.wire import remote_write_v1, symbolized
from mimir_ingest.wire.exemplars import encode_exemplars
from mimir_ingest.wire.histograms import TIME_SERIES, encode_histograms

_CREATED_TAG = 6 << 3
_COMMON_SLOTS = 64
COMMON_SYMBOLS = (
    b"",
    b"__name__",
    b"__aggregation__",
    b"<aggregated>",
    b"le",
    b"component",
    b"cortex_request_duration_seconds_bucket",
    b"storage_operation_duration_seconds_bucket",
    b"grafana",
    b"asserts_env",
    b"asserts_request_context",
    b"asserts_source",
    b"asserts_entity_type",
    b"asserts_request_type",
    b"name",
    b"image",
    b"cluster",
    b"namespace",
    b"pod",
    b"job",
    b"instance",
    b"container",
    b"replicaset",
    b"interface",
    b"status_code",
    b"resource",
    b"operation",
    b"method",
    b"kube-system",
    b"kube-system/cadvisor",
    b"node-exporter",
    b"node-exporter/node-exporter",
    b"kube-system/kubelet",
    b"kube-system/node-local-dns",
    b"kube-state-metrics/kube-state-metrics",
    b"default/kubernetes",
)
"""The table that version 2 shares between all programs (spec ingest-storage 1.3); the rest of its 64 slots is free."""


def _further_fields(batch: WriteBatch) -> tuple[np.ndarray, np.ndarray]:
    """Return exemplars, native histograms and the time of creation as fields of a TimeSeries, and each series' part.

    Empty without any.
    """
    created = _created_fields(batch)
    if not batch.exemplar_count and not batch.histogram_count and created is None:
        return np.empty(0, np.uint8), np.empty(0, np.int64)
    histograms, offsets = np.empty(0, np.uint8), np.zeros(batch.series_count + 1, np.int64)
    if batch.histograms is not None:
        histograms, offsets = encode_histograms(batch.histograms, TIME_SERIES[1])
    if not batch.exemplar_count and created is None:
        return histograms, offsets
    text, bounds = histograms.tobytes(), offsets.tolist()
    nothing = [b""] * batch.series_count
    exemplars = nothing if batch.exemplars is None else encode_exemplars(batch.exemplars)
    spans = zip(exemplars, bounds, bounds[1:], created or nothing, strict=False)
    parts = [own + text[a:b] + field for own, a, b, field in spans]
    ends = np.cumsum([0, *map(len, parts)], dtype=np.int64)
    return np.frombuffer(b"".join(parts), np.uint8), ends


def _created_fields(batch: WriteBatch) -> list[bytes] | None:
    """Return each series' field 6, empty for none: the first start of its samples; None when no sample has one."""
    created = np.zeros(batch.series_count, np.int64)
    histograms = batch.histograms
    kinds = [(batch.sample_offsets, batch.starts)]
    if histograms is not None:
        kinds.append((histograms.offsets, histograms.starts))
    for offsets, starts in kinds:
        if starts is None:
            continue
        rows = np.flatnonzero(starts)[::-1]
        series = np.searchsorted(offsets, rows, side="right") - 1
        first = created.copy()
        first[series] = starts[rows]
        created = np.where(created == 0, first, created)
    if not created.any():
        return None
    fields: dict[int, bytes] = {0: b""}
    for at in set(created.tolist()) - {0}:
        out = bytearray((_CREATED_TAG,))
        put_uvarint(out, at % (1 << 64))
        fields[at] = bytes(out)
    return [fields[at] for at in created.tolist()]


def _measure(batch: WriteBatch, further_offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the sizes of series and metadata items, each without its tag and length."""
    series, metadata = np.empty(batch.series_count, np.int64), np.empty(len(batch.metadata), np.int64)
    status = kernels.measure_series(
        batch.labels,
        batch.label_offsets,
        batch.sample_offsets,
        batch.timestamps,
        batch.values,
        further_offsets,
        series,
    )
    if status < 0:
        raise InvariantViolated(f"series {-1 - status} of a batch has malformed label bytes")
    kernels.measure_metadata(batch.metadata.types, batch.metadata.offsets, metadata)
    return series, metadata


def _framed(sizes: np.ndarray) -> np.ndarray:
    """Add the tag and length of each item to int64[n] sizes."""
    framed = sizes + 2
    for bits in range(7, 64, 7):
        more = sizes >= 1 << bits
        if not more.any():
            break
        framed += more
    return framed


def item_sizes(batch: WriteBatch) -> tuple[np.ndarray, np.ndarray]:
    """Return int64[n] and int64[k]: the bytes that each series and each metadata item takes in a WriteRequest."""
    series, metadata = _measure(batch, _further_fields(batch)[1])
    return _framed(series), _framed(metadata)


def encode_mimir(batch: WriteBatch, version: int) -> bytes:
    """Return the record value of a batch in version 0 or 1. Raises RecordVersionUnsupported for another version."""
    if version not in (0, 1):
        raise RecordVersionUnsupported(f"this program does not write records of version {version}")
    if batch.deltas is not None and batch.deltas.any():
        raise InvariantViolated(f"a record of version {version} cannot say that a series has deltas")
    further, further_offsets = _further_fields(batch)
    series, metadata = _measure(batch, further_offsets)
    source = bytes((0x10, batch.source)) if batch.source else b""
    behind_series = int(_framed(series).sum())
    before_metadata = behind_series + len(source)
    value = np.empty(before_metadata + int(_framed(metadata).sum()), np.uint8)
    kernels.write_series(
        batch.labels,
        batch.label_offsets,
        batch.sample_offsets,
        batch.timestamps,
        batch.values,
        further,
        further_offsets,
        series,
        value[:behind_series],
    )
    value[behind_series:before_metadata] = tuple(source)
    items = batch.metadata
    kernels.write_metadata(items.types, items.text, items.offsets, metadata, value[before_metadata:])
    return value.tobytes()


def decode_mimir(version: int, value: bytes) -> WriteBatch:
    """Return the batch of a record of version 0, 1 or 2.

    Raises
    ------
    RecordCorrupt
        With the text that Mimir's decoder gives.
    RecordVersionUnsupported
        Another version.
    """
    try:
        if version == 2:
            return symbolized.decode(value, COMMON_SYMBOLS, _COMMON_SLOTS).batch
        if version in (0, 1):
            return remote_write_v1.decode(value).batch
    except InvalidRequest as error:
        raise RecordCorrupt(f"record of version {version}: {error.message}") from error
    raise RecordVersionUnsupported(f"record version {version} is not known to this program: update it")
