"""Results of the query API as an Arrow stream: one row a sample. Schema: docs/format/arrow.md.

Imported when the first client asks for it: the library takes a third of a second and 50 MB.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import orjson
import pyarrow as pa

from mimir_ingest.api.render import clean
from mimir_ingest.model.histograms import Histograms
from mimir_ingest.model.labels import LabelFrame
from mimir_ingest.model.spans import Check
from mimir_ingest.promql.histogram_text import buckets_of
from mimir_ingest.promql.values import HistogramPoints, Matrix, Scalar, String, Vector

_TIMESTAMP = pa.field("timestamp", pa.timestamp("ms", "UTC"), nullable=False)
_VALUE = pa.field("value", pa.float64())
_BUCKET = pa.struct(
    [("boundaries", pa.int8()), ("lower", pa.float64()), ("upper", pa.float64()), ("count", pa.float64())]
)
_HISTOGRAM = pa.field(
    "histogram",
    pa.struct([("count", pa.float64()), ("sum", pa.float64()), ("schema", pa.int8()), ("buckets", pa.list_(_BUCKET))]),
)
_DATA_COLUMNS = frozenset((_TIMESTAMP.name, _VALUE.name, _HISTOGRAM.name))


_Columns = dict[pa.Field, pa.Array | Sequence]

# why: the library's own pool keeps as much as the largest answers took, for good; see native_memory.
pa.set_memory_pool(pa.system_memory_pool())


def result_arrow(
    value: Vector | Matrix | Scalar | String, facts: Mapping[str, object], check: Check | None = None
) -> bytes:
    """Return a result as an Arrow IPC stream: a record batch of each of its pieces, before which `check` is called.

    `facts` go into the schema's metadata, each as JSON; `resultType` is added to them.
    """
    match value:
        case Vector():
            kind, batches = "vector", _vector_batches(value, check)
        case Matrix():
            kind, batches = "matrix", _matrix_batches(value, check)
        case Scalar():
            kind, batches = "scalar", iter([{_TIMESTAMP: [value.timestamp_ms], _VALUE: [value.value]}])
        case String():
            kind = "string"
            text = pa.field("value", pa.string(), nullable=False)
            batches = iter([{_TIMESTAMP: [value.timestamp_ms], text: [clean(value.value)]}])
    metadata = {"resultType": kind, **{name: orjson.dumps(fact) for name, fact in facts.items()}}
    sink = pa.BufferOutputStream()
    first = next(batches)
    schema = pa.schema(list(first), metadata=metadata)
    with pa.ipc.new_stream(sink, schema) as writer:
        for columns in itertools.chain([first], batches):
            arrays = [c if isinstance(c, pa.Array) else pa.array(c, field.type) for field, c in columns.items()]
            writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))
    return sink.getvalue().to_pybytes()


_Labels = list[tuple[str, str, np.ndarray, pa.Array]]
"""(Column, label, integers[n]: the value of each series or -1, values)."""


def _labels_in_use(labels: LabelFrame) -> _Labels:
    """Return every label that is in use."""
    found = []
    for name, codes, values in zip(labels.names, labels.codes, labels.values, strict=True):
        used, places = np.unique(codes, return_inverse=True)
        absent = int(len(used) > 0 and used[0] < 0)
        if len(used) == absent:
            continue
        dictionary = pa.array([clean(values[code]) for code in used[absent:].tolist()], pa.string())
        indices = (places - absent).astype(np.min_scalar_type(-len(used)))
        shown = f"label:{name}" if name in _DATA_COLUMNS else name
        found.append((clean(shown), clean(name), indices, dictionary))
    return found


def _label_columns(labels: _Labels, rows: np.ndarray) -> _Columns:
    """Return a column of every label; row i is series `rows[i]`."""
    columns: _Columns = {}
    for shown, name, indices, dictionary in labels:
        own = indices[rows]
        column = pa.DictionaryArray.from_arrays(pa.array(own, mask=own < 0), dictionary)
        columns[pa.field(shown, column.type, metadata={"label": name})] = column
    return columns


def _vector_batches(vector: Vector, check: Check | None) -> Iterator[_Columns]:
    labels = _labels_in_use(vector.labels)
    for first, part in vector.pieces(check):
        series = np.arange(first, first + part.labels.n)
        yield {**_label_columns(labels, series), **_vector_columns(part)}
    if not vector.labels.n:
        yield _vector_columns(vector)


def _vector_columns(vector: Vector) -> _Columns:
    """Return the columns of a vector besides its labels."""
    columns: _Columns = {_TIMESTAMP: np.full(len(vector.values), vector.timestamp_ms)}
    if vector.histograms is None:
        return columns | {_VALUE: vector.values}
    index = vector.histograms.index
    shown = index >= 0
    return columns | {
        _VALUE: pa.array(vector.values, mask=shown),
        _HISTOGRAM: _histogram_column(vector.histograms.rows, index),
    }


def _matrix_batches(matrix: Matrix, check: Check | None) -> Iterator[_Columns]:
    labels = _labels_in_use(matrix.labels)
    for first, part in matrix.pieces(check):
        yield _matrix_columns(part, labels, first)
    if not matrix.labels.n:
        yield _matrix_columns(matrix, labels, 0)


def _matrix_columns(matrix: Matrix, labels: _Labels, first: int) -> _Columns:
    """Return all columns of some series, which are `first` and those after it in `labels`."""
    series = np.repeat(np.arange(matrix.labels.n), np.diff(matrix.offsets))
    if matrix.histograms is None:
        return {**_label_columns(labels, first + series), _TIMESTAMP: matrix.timestamps, _VALUE: matrix.values}
    own: HistogramPoints = matrix.histograms
    series = np.concatenate([series, np.repeat(np.arange(matrix.labels.n), np.diff(own.offsets))])
    times = np.concatenate([matrix.timestamps, own.timestamps])
    order = np.lexsort((times, series))
    index = np.concatenate([np.full(len(matrix.values), -1, np.int64), own.rows])[order]
    values = np.concatenate([matrix.values, np.zeros(len(own.rows))])[order]
    return {
        **_label_columns(labels, first + series[order]),
        _TIMESTAMP: times[order],
        _VALUE: pa.array(values, mask=index >= 0),
        _HISTOGRAM: _histogram_column(own.histograms, index),
    }


def _histogram_column(histograms: Histograms, index: np.ndarray) -> pa.Array:
    """Return the histograms `index` (int64[m]), null where it is negative."""
    shown = index >= 0
    rows = index[shown]
    buckets = buckets_of(histograms, rows)
    boundaries = pa.StructArray.from_arrays(
        [pa.array(buckets.kinds.astype(np.int8)), *map(pa.array, (buckets.lower, buckets.upper, buckets.count))],
        fields=list(_BUCKET),
    )
    offsets = np.zeros(len(index) + 1, np.int32)
    offsets[1:][shown] = np.diff(buckets.offsets)
    lists = pa.ListArray.from_arrays(pa.array(np.cumsum(offsets, dtype=np.int32)), boundaries)
    at = np.where(shown, index, 0)
    parts = [histograms.count[at], histograms.sum[at], histograms.schema[at].astype(np.int8)]
    return pa.StructArray.from_arrays(
        [*map(pa.array, parts), lists], fields=list(_HISTOGRAM.type), mask=pa.array(~shown)
    )
