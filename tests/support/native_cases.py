"""Random native histograms for the kernels and their twins."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import strategies as st

from mimir_ingest.kernels.native_columns import Native, Output, Workspace, make_columns, make_workspace
from tests.reference.native_bounds import CUSTOM
from tests.reference.native_merge import Plain

_BOUNDS = (-5.0, -1.0, 0.0, 0.25, 1.0, 2.5, 10.0)
_COUNTS = st.one_of(st.integers(0, 9).map(float), st.floats(0, 50), st.sampled_from([1e16, 1e-9, 1e308]))
_CAPACITY = 512


@st.composite
def plain_histograms(
    draw, *, custom: bool | None = None, schemas=(-1, 0, 1, 3), counts=_COUNTS, hints=(0, 1, 2, 3)
) -> Plain:
    """One histogram: buckets near each other, so that they meet; empty ones, too."""
    is_custom = draw(st.booleans()) if custom is None else custom
    bounds = tuple(sorted(draw(st.sets(st.sampled_from(_BOUNDS), max_size=4)))) if is_custom else ()
    low, high = (0, len(bounds)) if is_custom else (-4, 6)

    def side(most: int) -> dict[int, tuple[float, float]]:
        found = draw(st.dictionaries(st.integers(low, high), counts, max_size=most))
        return {index: (count, 0.0) for index, count in sorted(found.items())}

    positive, negative = side(5), {} if is_custom else side(3)
    zero = 0.0 if is_custom else draw(counts)
    observed = zero + sum(n for n, _ in positive.values()) + sum(n for n, _ in negative.values())
    more = draw(st.sampled_from([0.0, 0.0, 0.0, 2.0]))
    return Plain(
        schema=CUSTOM if is_custom else draw(st.sampled_from(schemas)),
        hint=draw(st.sampled_from(hints)),
        threshold=0.0 if is_custom else draw(st.sampled_from([0.0, 0.0, 0.001, 0.3, 2.0, 3.0])),
        parts={
            "zero": (zero, 0.0),
            "count": (observed + more, 0.0),
            "sum": (draw(st.floats(-1e6, 1e6) | st.sampled_from([float("nan"), float("inf"), 1e300])), 0.0),
        },
        negative=negative,
        positive=positive,
        custom=bounds,
    )


def columns(histograms: list[Plain]) -> Native:
    """Return histograms as kernels take them."""
    sides = [sorted(side.items()) for h in histograms for side in (h.negative, h.positive)]
    return Native(
        np.array([h.schema for h in histograms], np.int8),
        np.array([h.hint for h in histograms], np.uint8),
        np.array([h.threshold for h in histograms], np.float64),
        *(np.array([h.value(part) for h in histograms], np.float64) for part in ("zero", "count", "sum")),
        np.cumsum([0, *map(len, sides)], dtype=np.int64),
        np.array([index for side in sides for index, _ in side], np.int32),
        np.array([count for side in sides for _, (count, _) in side], np.float64),
        np.cumsum([0, *(len(h.custom) for h in histograms)], dtype=np.int64),
        np.array([b for h in histograms for b in h.custom], np.float64),
    )


def works(count: int) -> tuple[Workspace, ...]:
    """Return workspaces with room for anything."""
    return tuple(make_workspace(_CAPACITY, 16) for _ in range(count))


def room(items: int) -> Output:
    """Return an output with room for anything."""
    return Output(make_columns(items, _CAPACITY * items, 16 * items), np.zeros(2, np.int64), np.zeros(items, np.int64))


def written(output: Output) -> list[Plain]:
    """Return the histograms that a kernel wrote."""
    native, out = output.columns, []
    for row in range(int(output.cursor[1])):
        a, b, c = native.bucket_offsets[2 * row : 2 * row + 3].tolist()
        sides = [
            dict(
                zip(
                    native.bucket_index[x:y].tolist(),
                    [(n, 0.0) for n in native.bucket_count[x:y].tolist()],
                    strict=True,
                )
            )
            for x, y in ((a, b), (b, c))
        ]
        x, y = native.custom_offsets[row : row + 2].tolist()
        parts = {"zero": native.zero_count, "count": native.count, "sum": native.sum}
        out.append(
            Plain(
                int(native.schema[row]),
                int(native.reset_hint[row]),
                float(native.zero_threshold[row]),
                {name: (float(column[row]), 0.0) for name, column in parts.items()},
                sides[0],
                sides[1],
                tuple(native.custom_values[x:y].tolist()),
            )
        )
    return out


def same(a: Plain | None, b: Plain | None) -> bool:
    """Whether two histograms are equal, NaN being NaN and what was lost not counting.

    A threshold may have moved to the bound of a bucket, which the kernels know with the rounding errors of Prometheus.
    """
    if a is None or b is None:
        return a is b
    return _facts(a) == _facts(b) and math.isclose(a.threshold, b.threshold, rel_tol=1e-14)


def _facts(h: Plain) -> tuple:
    numbers = [{key: repr(value + 0.0) for key, (value, _) in n.items()} for n in h.numbers()]
    return (h.schema, h.hint, h.custom, *numbers)
