"""Arrow streams hold what the JSON answers hold, read by another library's reader."""

from __future__ import annotations

import json
import math

import numpy as np
import pyarrow as pa
import pytest

from mimir_ingest.api.arrow import result_arrow
from mimir_ingest.api.negotiate import wants_arrow
from mimir_ingest.api.render import result_json
from mimir_ingest.model.labels import LabelFrame
from mimir_ingest.promql.values import PIECE_POINTS, Matrix, Scalar, String, Vector
from tests.support.engine_target import EngineTarget
from tests.support.promqltest import Sample
from tests.support.series_notation import HistogramValue


def read(value: Vector | Matrix | Scalar | String, **facts: object) -> pa.Table:
    return pa.ipc.open_stream(result_arrow(value, facts)).read_all()


def samples_of(table: pa.Table) -> list[tuple]:
    """(labels, seconds, value or histogram) of each row; NaN as text, since it equals nothing."""
    labels = [f.metadata[b"label"].decode() for f in table.schema if f.metadata]
    found = []
    for row in zip(*(column.to_pylist() for column in table.columns), strict=True):
        metric = {name: text for name, text in zip(labels, row, strict=False) if text is not None}
        time, value, *histogram = row[len(labels) :]
        if histogram and histogram[0] is not None:
            assert value is None
            value = [
                histogram[0]["count"],
                histogram[0]["sum"],
                [tuple(bucket.values()) for bucket in histogram[0]["buckets"]],
            ]
        found.append((metric, time.timestamp(), "NaN" if isinstance(value, float) and math.isnan(value) else value))
    return found


def samples_of_json(value: Vector | Matrix) -> list[tuple]:
    """The same of the JSON result."""
    found = []
    for series in json.loads(f"{{{result_json(value)}}}")["result"]:
        points = [*series.get("values", []), *([series["value"]] if "value" in series else [])]
        histograms = [*series.get("histograms", []), *([series["histogram"]] if "histogram" in series else [])]
        pairs = [(time, "NaN" if text == "NaN" else float(text)) for time, text in points]
        for time, shown in histograms:
            buckets = [(kind, *map(float, bounds)) for kind, *bounds in shown.get("buckets", [])]
            pairs.append((time, [float(shown["count"]), float(shown["sum"]), buckets]))
        found += [(series["metric"], time, point) for time, point in sorted(pairs, key=lambda pair: pair[0])]
    return found


SETS = [{"__name__": "m", "a": "ü", "value": "own"}, {"__name__": "m", "timestamp": "x"}, {}, {"a": "b" * 300}]
FLOATS = np.array([0.1, float("nan"), math.inf, -0.0, 5e-324, 1e300])


@pytest.fixture(scope="module")
def target() -> EngineTarget:
    """Two series of numbers and histograms, one of numbers."""
    engine = EngineTarget()
    shown = HistogramValue(count=10.0, sum=2.5, zero_count=3.0, zero_threshold=0.3, positive={-1: 4.0, 3: 3.0})
    engine.append({"__name__": "m", "k": "both"}, [Sample(0, 1.0), Sample(10_000, shown), Sample(20_000, 2.0)])
    engine.append({"__name__": "m", "k": "empty"}, [Sample(0, HistogramValue()), Sample(10_000, 7.0)])
    engine.append({"__name__": "m", "other": "numbers"}, [Sample(0, 3.5), Sample(20_000, float("nan"))])
    return engine


def test_a_matrix_has_a_row_for_each_sample_with_labels_that_clash_told_apart():
    offsets = np.array([0, 3, 3, 5, 6])
    matrix = Matrix(LabelFrame.from_dicts(SETS), offsets, np.array([0, 1500, 9999, -5, 7, 8]), FLOATS)
    table = read(matrix)
    assert samples_of(table) == samples_of_json(matrix)
    assert table.schema.names == ["__name__", "a", "label:timestamp", "label:value", "timestamp", "value"]
    assert [table.schema.field(i).type for i in (0, 4, 5)] == [
        pa.dictionary(pa.int8(), pa.string()),
        pa.timestamp("ms", "UTC"),
        pa.float64(),
    ]
    assert np.array_equal(table["value"].to_numpy().view(np.int64), FLOATS.view(np.int64))
    assert table["value"].null_count == 0


def test_a_vector_has_a_row_for_each_series():
    vector = Vector(LabelFrame.from_dicts(SETS), 1_700_000_000_123, FLOATS[:4])
    assert samples_of(read(vector)) == samples_of_json(vector)


@pytest.mark.parametrize(("start", "end", "step"), [(0, 20_000, 10_000), (0, 0, 0), (10_000, 10_000, 0)])
@pytest.mark.parametrize("query", ["m", 'm{k="both"}', "m * 2", "nothing"])
def test_histograms_stand_beside_numbers_in_the_order_of_time(target, query, start, end, step):
    value = target.query(query, start, end, step).value
    assert samples_of(read(value)) == samples_of_json(value)


def test_scalars_and_strings_are_one_row():
    assert samples_of(read(Scalar(1500, math.inf))) == [({}, 1.5, math.inf)]
    assert samples_of(read(String(1500, "té\udcff"))) == [({}, 1.5, "té\ufffd")]


def test_the_schema_tells_the_type_and_the_warnings():
    metadata = read(Scalar(0, 1.0), warnings=["w"], infos=[]).schema.metadata
    assert metadata == {b"resultType": b"scalar", b"warnings": b'["w"]', b"infos": b"[]"}


def test_a_large_result_is_several_batches_and_small_dictionaries_have_small_indices():
    n = 400
    steps = 2 * PIECE_POINTS // n
    labels = LabelFrame.from_dicts([{"i": str(i), "mod": str(i % 128)} for i in range(n)])
    times = np.tile(np.arange(steps, dtype=np.int64), n)
    matrix = Matrix(labels, np.arange(n + 1) * steps, times, times.astype(float))
    with pa.ipc.open_stream(result_arrow(matrix, {})) as reader:
        batches = list(reader)
    assert sum(b.num_rows for b in batches) == n * steps
    assert all(b.num_rows <= PIECE_POINTS and b.num_rows % steps == 0 for b in batches)
    table = pa.Table.from_batches(batches)
    assert [table.schema.field(name).type.index_type for name in ("i", "mod")] == [pa.int16(), pa.int8()]
    assert table["mod"].to_pylist()[:: 100 * steps] == ["0", "100", "72", "44"]


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        ("application/vnd.apache.arrow.stream", True),
        ("application/json;q=0.5, Application/vnd.apache.arrow.stream;q=0.9", True),
        ("application/json, application/vnd.apache.arrow.stream;q=0.9", False),
        ("application/vnd.apache.arrow.stream;q=0", False),
        ("application/vnd.apache.arrow.stream;q=x", False),
        ("*/*", False),
        ("", False),
    ],
)
def test_arrow_is_for_those_who_name_it(accept, wanted):
    assert wants_arrow(accept) is wanted
