"""Results as JSON, where the way of writing them depends on their size."""

from __future__ import annotations

import numpy as np
import orjson
import pyarrow as pa
import pytest

from mimir_ingest.api.arrow import result_arrow
from mimir_ingest.api.render import result_json, result_pieces
from mimir_ingest.errors import QueryError
from mimir_ingest.model.labels import LabelFrame
from mimir_ingest.promql import values
from mimir_ingest.promql.values import Matrix, Vector
from tests.support.engine_target import EngineTarget
from tests.support.promqltest import Sample
from tests.support.series_notation import HistogramValue

LABELS = {
    "plain": {"__name__": "up", "job": "a"},
    "none": {},
    "quotes": {"job": 'a"b\\c\n', "zone": "ü\u2028"},
    "bytes that are no UTF-8": {"job": b"a\xffb".decode("utf-8", "surrogateescape"), "zone": "x"},
}


@pytest.mark.parametrize("labels", LABELS.values(), ids=LABELS)
def test_one_series_is_written_as_it_is_among_others(labels):
    def metrics(*sets: dict[str, str]) -> list[dict[str, str]]:
        vector = Vector(LabelFrame.from_dicts(sets), 1000, np.ones(len(sets)))
        return [series["metric"] for series in orjson.loads(f"{{{result_json(vector)}}}")["result"]]

    cleaned = {k: v.encode("utf-8", "surrogateescape").decode("utf-8", "replace") for k, v in labels.items()}
    assert metrics(labels) == [cleaned]
    assert metrics(labels, {"other": "x"}) == [cleaned, {"other": "x"}]


@pytest.mark.parametrize("size", [1, 20_000])
def test_texts_of_label_sets_are_kept_with_them_unless_they_are_long_and_written_again_alike(size):
    labels = LabelFrame.from_dicts([{"job": "a" * size}, {"job": "b" * size}])
    matrix = Matrix(labels, np.array([0, 1, 2]), np.array([1000, 2000]), np.ones(2))
    first = [result_json(value) for value in (Vector(labels, 1000, np.ones(2)), matrix)]
    assert [result_json(value) for value in (Vector(labels, 1000, np.ones(2)), matrix)] == first
    for text in first:
        assert [s["metric"] for s in orjson.loads(f"{{{text}}}")["result"]] == labels.to_dicts()
    kept = [texts for what in ("metrics", "heads") for texts in [labels.once((what,), lambda: None)]]
    assert [texts is not None for texts in kept] == [size == 1, size == 1]


@pytest.fixture(scope="module")
def target() -> EngineTarget:
    """Thirty series of floats and thirty of native histograms, at the same times."""
    target = EngineTarget(delayed_name_removal=False)
    for i in range(30):
        target.append({"__name__": "f", "i": str(i)}, [Sample(t * 10_000, t / (i + 1)) for t in range(20)])
        histograms = [HistogramValue(count=t + 2.0, sum=1.5, positive={i: t + 1.0, i + 2: 1.0}) for t in range(20)]
        target.append({"__name__": "h", "i": str(i)}, [Sample(t * 10_000, h) for t, h in enumerate(histograms)])
    return target


@pytest.mark.parametrize("expression", ["f", "h", "{__name__=~'f|h'}"])
@pytest.mark.parametrize("times", [(100_000, 100_000, 0), (0, 190_000, 10_000)], ids=["instant", "range"])
def test_a_large_answer_is_written_in_pieces_and_stops_between_them(target, monkeypatch, expression, times):
    """The text and the table are those of one piece; a deadline that passes at any piece is the error."""
    value = target.query(expression, *times).value
    text, table = result_json(value), pa.ipc.open_stream(result_arrow(value, {})).read_all()
    monkeypatch.setattr(values, "PIECE_POINTS", 100)
    monkeypatch.setattr(values, "_PIECE_SERIES", 4)

    def write(render, patience: float) -> object:
        asked = 0

        def check() -> None:
            nonlocal asked
            asked += 1
            if asked > patience:
                raise QueryError("over", error_type="timeout")

        return render(check), asked

    renders = (
        (lambda check: b"".join(result_pieces(value, check)).decode(), text),
        (lambda check: pa.ipc.open_stream(result_arrow(value, {}, check)).read_all(), table),
    )
    for render, expected in renders:
        again, asked = write(render, float("inf"))
        assert again == expected
        assert asked >= 6
        for patience in (0, asked // 2, asked - 1):
            with pytest.raises(QueryError, match="over"):
                write(render, patience)
