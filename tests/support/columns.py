"""Random series as columns for kernels and as lists for their twins, and comparison of both bit for bit."""

from __future__ import annotations

import math
import struct

import numpy as np
from hypothesis import strategies as st

Samples = list[tuple[int, float]]

numbers = st.one_of(
    st.integers(-5, 20).map(float),
    st.floats(-1e3, 1e3),
    st.sampled_from([math.nan, math.inf, -math.inf, 1.7e308, -1.7e308, -0.0, 5e-324, 1e-300]),
)
"""Floats of every kind."""

counters = st.one_of(st.integers(0, 12).map(float), st.floats(0, 100))
"""Floats that a counter may have."""


@st.composite
def series(draw, values=numbers, most: int = 4) -> list[Samples]:
    """Return up to `most` series with ascending timestamps."""
    out = []
    for _ in range(draw(st.integers(0, most))):
        gaps = draw(st.lists(st.integers(1, 40), max_size=25))
        at, samples = draw(st.integers(-200, 50)), []
        for gap in gaps:
            at += gap
            samples.append((at, draw(values)))
        out.append(samples)
    return out


@st.composite
def ends(draw) -> list[int]:
    """Return reference times, at even distances or all the same."""
    start, step, count = draw(st.integers(-100, 400)), draw(st.integers(0, 60)), draw(st.integers(0, 12))
    return [start + i * step for i in range(count)]


def columns(rows: list[Samples]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return (offsets, timestamps, values)."""
    flat = [sample for samples in rows for sample in samples]
    return (
        np.cumsum([0, *map(len, rows)], dtype=np.int64),
        np.array([t for t, _ in flat], np.int64),
        np.array([v for _, v in flat], np.float64),
    )


def outputs(rows: int, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Return arrays to write values and presence into, full of what must not stay."""
    return np.full((rows, steps), 12345.0), np.ones((rows, steps), bool)


def grid(draw_rows: list[list[float | None]], steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Return (values, present) of rows given as lists, None for absent."""
    values = np.array([[0.0 if v is None else v for v in row] for row in draw_rows], np.float64)
    present = np.array([[v is not None for v in row] for row in draw_rows], bool)
    return values.reshape(len(draw_rows), steps), present.reshape(len(draw_rows), steps)


@st.composite
def rows_and_groups(draw, values=numbers) -> tuple[list[list[float | None]], list[int], int, int]:
    """Return (rows, group of each, groups, steps); every group has a row."""
    steps, groups = draw(st.integers(1, 5)), draw(st.integers(1, 3))
    count = draw(st.integers(groups, 9))
    cells = st.one_of(st.none(), values)
    rows = [draw(st.lists(cells, min_size=steps, max_size=steps)) for _ in range(count)]
    rest = [draw(st.integers(0, groups - 1)) for _ in range(count - groups)]
    return rows, [*range(groups), *rest], groups, steps


def same(a: float | None, b: float | None) -> bool:
    """Whether two values are equal to the bit; all NaN are."""
    if a is None or b is None:
        return a is b
    return (math.isnan(a) and math.isnan(b)) or struct.pack("<d", a) == struct.pack("<d", b)


def assert_same(values: np.ndarray, present: np.ndarray, expected: list[list[float | None]]) -> None:
    """Compare a kernel's output with a twin's."""
    for i, row in enumerate(expected):
        for s, wanted in enumerate(row):
            got = float(values[i, s]) if present[i, s] else None
            assert same(got, wanted), f"row {i}, step {s}: {got!r}, expected {wanted!r}"
