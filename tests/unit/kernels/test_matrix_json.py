"""Matrices as JSON: the kernel against its plain twin, and the whole against the numbers one by one."""

from __future__ import annotations

import json

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mimir_ingest.api.render import result_json
from mimir_ingest.kernels.matrix_json import ROOM, find_unusual, write_series
from mimir_ingest.model.labels import LabelFrame
from mimir_ingest.model.numbers import format_time, format_value
from mimir_ingest.promql.values import Matrix
from tests.reference import matrix_json as plain

TEXTS = st.text(st.characters(codec="utf-8", exclude_characters=","), max_size=20)


def columns(texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return (uint8[] texts back to back, int64[n + 1] bounds)."""
    encoded = [text.encode() for text in texts]
    return np.frombuffer(b"".join(encoded), np.uint8), np.cumsum([0, *map(len, encoded)])


@settings(deadline=None)
@given(st.lists(st.tuples(TEXTS, st.integers(0, 5)), max_size=6), st.data())
def test_the_kernel_puts_texts_where_the_twin_does(series, data):
    heads, sizes = [head for head, _ in series], [size for _, size in series]
    offsets = np.cumsum([0, *sizes])
    points = int(offsets[-1])

    def draw(choice: st.SearchStrategy) -> list:
        return data.draw(st.lists(choice, min_size=points, max_size=points))

    near = (
        st.sampled_from([9_990, 1_699_999_990]).flatmap(lambda at: st.integers(at, at + 20)).map(lambda at: at * 1000)
    )
    timestamps = draw(st.integers(-(10**18), 10**18) | st.integers(-2000, 2000) | near | near.map(lambda at: at + 7))
    digits = draw(st.sampled_from(["1.0", "0.0", "-0.0", "12.5", "null", "1e16", "10", "0"]))
    special = data.draw(st.dictionaries(st.integers(0, max(0, points - 1)), TEXTS, max_size=points))
    special_at = sorted(special)
    shown = [special.get(i, text.removesuffix(".0")) for i, text in enumerate(digits)]
    room = sum(len(text.encode()) for text in (*heads, *shown, *digits)) + ROOM * points + 3 * len(series) + 16
    out = np.empty(room, np.uint8)
    size = write_series(
        np.frombuffer(",".join(digits).encode(), np.uint8),
        np.array(special_at, np.int64),
        *columns([special[at] for at in special_at]),
        np.array(timestamps, np.int64),
        *columns(heads),
        offsets,
        out,
    )
    assert out[:size].tobytes().decode() == plain.write_series(heads, offsets.tolist(), timestamps, shown)


FLOATS = st.floats() | st.sampled_from([0.0, -0.0, 1e-4, 9.9e-5, 1e15, 1e21, 123456789.25, 5e-324, 1e-7])


@settings(deadline=None)
@given(st.lists(FLOATS))
def test_unusual_numbers_are_those_of_the_twin(values):
    out = np.empty(len(values), np.int64)
    count = find_unusual(np.array(values, float), out)
    assert out[:count].tolist() == plain.find_unusual(values)


@settings(deadline=None)
@given(st.lists(st.lists(st.tuples(st.integers(-(10**12), 10**13), FLOATS), min_size=1, max_size=5), max_size=4))
def test_a_matrix_is_shown_as_its_numbers_are_one_by_one(series):
    labels = LabelFrame.from_dicts([{"i": f'"{i}\\ü'} for i in range(len(series))])
    points = [point for one in series for point in one]
    offsets = np.cumsum([0, *map(len, series)])
    times = np.array([at for at, _ in points], np.int64)
    matrix = Matrix(labels, offsets, times, np.array([value for _, value in points], float))
    shown = f"{{{result_json(matrix)}}}"
    pairs = [",".join(f'[{format_time(at)},"{format_value(value)}"]' for at, value in one) for one in series]
    wanted = ",".join(
        f'{{"metric":{json.dumps({"i": f"{chr(34)}{i}{chr(92)}ü"}, ensure_ascii=False)},"values":[{text}]}}'.replace(
            '": "', '":"'
        )
        for i, text in enumerate(pairs)
    )
    assert shown == f'{{"resultType":"matrix","result":[{wanted}]}}'
