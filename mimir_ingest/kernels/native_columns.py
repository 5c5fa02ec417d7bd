"""Native histograms as kernels take them: columns in a tuple, and a workspace that one histogram is computed in.

A workspace holds each side's buckets (0: negative, 1: positive) twice, so that merged buckets are written beside the
old ones. `lost` is what compensated summation lost so far in each place. Twin: `tests/reference/native_merge.py`.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from mimir_ingest.kernels._jit import bool_out, f64_out, i64_out, inline, types

CUSTOM = -53
"""The schema of histograms with custom bounds."""
HINT_UNKNOWN, HINT_RESET, HINT_NO_RESET, HINT_GAUGE = 0, 1, 2, 3


class Native(NamedTuple):
    """Columns of `model.histograms.Histograms`, C-contiguous and writable, without `is_float`.

    Not `HistogramColumns`, whose inputs are read-only: operators read what operators wrote, and with one type for both
    each kernel and helper is compiled once.
    """

    schema: np.ndarray
    reset_hint: np.ndarray
    zero_threshold: np.ndarray
    zero_count: np.ndarray
    count: np.ndarray
    sum: np.ndarray
    bucket_offsets: np.ndarray
    bucket_index: np.ndarray
    bucket_count: np.ndarray
    custom_offsets: np.ndarray
    custom_values: np.ndarray


class Workspace(NamedTuple):
    """One histogram being computed."""

    whole: np.ndarray
    """int64[7]: SCHEMA, HINT; per side which copy is in use and how many buckets it has; number of custom bounds."""
    parts: np.ndarray
    """float64[7]: THRESHOLD, ZERO, COUNT, SUM; then what ZERO, COUNT and SUM lost."""
    index: np.ndarray
    """int32[2, 2, capacity]: bucket numbers by side and copy, ascending."""
    count: np.ndarray
    """float64[2, 2, capacity]."""
    lost: np.ndarray
    """float64[2, 2, capacity]."""
    custom: np.ndarray
    """float64[2 * custom capacity]: upper bounds; the second half is scratch."""


class Output(NamedTuple):
    """Where a kernel writes histograms, item after item, until they are done or there is no room."""

    columns: Native
    cursor: np.ndarray
    """int64[2]: the next item; the next row of `columns`. Read and written."""
    flags: np.ndarray
    """int64[items]: what was seen on the way; ABSENT: the item has no histogram, so no row."""


ABSENT = 1 << 16
"""The flag of `Output` for items without a result."""


class Points(NamedTuple):
    """Histogram samples of series, one series after another."""

    rows: np.ndarray
    """int64[m]: row of the columns."""
    timestamps: np.ndarray
    """int64[m]: ms, ascending within a series."""
    resets: np.ndarray
    """bool[m]: whether a counter was reset before the sample (see `native_resets.find_resets`)."""


SCHEMA, HINT, LIVE, SIZE, BOUNDS = 0, 1, 2, 4, 6
"""Places in `Workspace.whole`; LIVE and SIZE have one a side."""
THRESHOLD, ZERO, COUNT, SUM, LOST_ZERO, LOST_COUNT, LOST_SUM = range(7)
"""Places in `Workspace.parts`."""

i64_2d_in = types.Array(types.int64, 2, "C", readonly=True)
_i8 = types.Array(types.int8, 1, "C")
_u8 = types.Array(types.uint8, 1, "C")
_i32 = types.Array(types.int32, 1, "C")
_i32_3d = types.Array(types.int32, 3, "C")
_f64_3d = types.Array(types.float64, 3, "C")

native_t = types.NamedTuple(
    (_i8, _u8, f64_out, f64_out, f64_out, f64_out, i64_out, _i32, f64_out, i64_out, f64_out), Native
)
"""Signature type of `Native`."""
workspace_t = types.NamedTuple((i64_out, f64_out, _i32_3d, _f64_3d, _f64_3d, f64_out), Workspace)
"""Signature type of `Workspace`."""

output_t = types.NamedTuple((native_t, i64_out, i64_out), Output)
"""Signature type of `Output`."""
points_t = types.NamedTuple((i64_out, i64_out, bool_out), Points)
"""Signature type of `Points`."""


def make_workspace(capacity: int, customs: int) -> Workspace:
    """Return room for a histogram with `capacity` buckets a side and `customs` custom bounds."""
    size = max(capacity, customs + 1, 1)
    shape = (2, 2, size)
    return Workspace(
        np.zeros(7, np.int64),
        np.zeros(7),
        np.zeros(shape, np.int32),
        np.zeros(shape),
        np.zeros(shape),
        np.zeros(2 * max(customs, 1)),
    )


def make_columns(rows: int, buckets: int, customs: int) -> Native:
    """Return room for `rows` histograms with so many buckets and custom bounds in all; offsets are zero."""
    return Native(
        np.zeros(rows, np.int8),
        np.zeros(rows, np.uint8),
        np.zeros(rows),
        np.zeros(rows),
        np.zeros(rows),
        np.zeros(rows),
        np.zeros(2 * rows + 1, np.int64),
        np.zeros(buckets, np.int32),
        np.zeros(buckets),
        np.zeros(rows + 1, np.int64),
        np.zeros(customs),
    )


@inline
def load(into, native, row):
    """Put one row of columns into a workspace."""
    into.whole[SCHEMA] = native.schema[row]
    into.whole[HINT] = native.reset_hint[row]
    into.parts[THRESHOLD] = native.zero_threshold[row]
    into.parts[ZERO] = native.zero_count[row]
    into.parts[COUNT] = native.count[row]
    into.parts[SUM] = native.sum[row]
    into.parts[LOST_ZERO] = 0.0
    into.parts[LOST_COUNT] = 0.0
    into.parts[LOST_SUM] = 0.0
    for side in range(2):
        start = native.bucket_offsets[2 * row + side]
        size = native.bucket_offsets[2 * row + side + 1] - start
        into.whole[LIVE + side] = 0
        into.whole[SIZE + side] = size
        index, count, lost = into.index[side, 0], into.count[side, 0], into.lost[side, 0]
        for k in range(size):
            index[k] = native.bucket_index[start + k]
            count[k] = native.bucket_count[start + k]
            lost[k] = 0.0
    start = native.custom_offsets[row]
    into.whole[BOUNDS] = native.custom_offsets[row + 1] - start
    for k in range(into.whole[BOUNDS]):
        into.custom[k] = native.custom_values[start + k]


@inline
def copy(into, source):
    """Put a copy of one workspace into another."""
    for k in range(7):
        into.whole[k] = source.whole[k]
        into.parts[k] = source.parts[k]
    for side in range(2):
        live = source.whole[LIVE + side]
        for k in range(source.whole[SIZE + side]):
            into.index[side, live, k] = source.index[side, live, k]
            into.count[side, live, k] = source.count[side, live, k]
            into.lost[side, live, k] = source.lost[side, live, k]
    for k in range(source.whole[BOUNDS]):
        into.custom[k] = source.custom[k]


@inline
def clear(into, source):
    """Make a workspace the empty histogram with the schema and bounds of another."""
    for k in range(7):
        into.whole[k] = 0
        into.parts[k] = 0.0
    into.whole[SCHEMA] = source.whole[SCHEMA]
    into.whole[BOUNDS] = source.whole[BOUNDS]
    for k in range(source.whole[BOUNDS]):
        into.custom[k] = source.custom[k]


@inline
def store(source, native_out, row):
    """Write a workspace, without what it lost, as a row; all rows before must have been written."""
    native_out.schema[row] = source.whole[SCHEMA]
    native_out.reset_hint[row] = source.whole[HINT]
    native_out.zero_threshold[row] = source.parts[THRESHOLD]
    native_out.zero_count[row] = source.parts[ZERO]
    native_out.count[row] = source.parts[COUNT]
    native_out.sum[row] = source.parts[SUM]
    for side in range(2):
        at = native_out.bucket_offsets[2 * row + side]
        live = source.whole[LIVE + side]
        size = source.whole[SIZE + side]
        index, count = source.index[side, live], source.count[side, live]
        for k in range(size):
            native_out.bucket_index[at + k] = index[k]
            native_out.bucket_count[at + k] = count[k]
        native_out.bucket_offsets[2 * row + side + 1] = at + size
    at = native_out.custom_offsets[row]
    for k in range(source.whole[BOUNDS]):
        native_out.custom_values[at + k] = source.custom[k]
    native_out.custom_offsets[row + 1] = at + source.whole[BOUNDS]


@inline
def emit(source, output, item, flags):
    """Write the result of an item; False if there is no room for it, and it has to be computed again."""
    row = output.cursor[1]
    if flags & ABSENT == 0:
        columns = output.columns
        buckets = source.whole[SIZE] + source.whole[SIZE + 1]
        if (
            row == len(columns.schema)
            or columns.bucket_offsets[2 * row] + buckets > len(columns.bucket_index)
            or columns.custom_offsets[row] + source.whole[BOUNDS] > len(columns.custom_values)
        ):
            return False
        store(source, columns, row)
        output.cursor[1] = row + 1
    output.flags[item] = flags
    output.cursor[0] = item + 1
    return True
