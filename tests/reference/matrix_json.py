"""Plain twin of mimir_ingest/kernels/matrix_json.py."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal


def show_time(ms: int) -> str:
    """Return seconds, with three decimals if they are not whole."""
    seconds = Decimal(ms) / 1000
    return str(int(seconds)) if ms % 1000 == 0 else f"{seconds:.3f}"


def find_unusual(values: Sequence[float]) -> list[int]:
    """Return which numbers are NaN, infinite, or have an exponent in JSON: below 1e-4 or from 1e15 on."""
    return [i for i, value in enumerate(values) if value != 0 and not 1e-4 <= abs(value) < 1e15]


def write_series(heads: Sequence[str], offsets: Sequence[int], timestamps: Sequence[int], values: Sequence[str]) -> str:
    """Return all series; `values` are the points' texts as they are to be written."""
    points = [f'[{show_time(ms)},"{value}"]' for ms, value in zip(timestamps, values, strict=True)]
    return ",".join(
        f"{head}{','.join(points[first:last])}]}}"
        for head, first, last in zip(heads, offsets[:-1], offsets[1:], strict=True)
    )
