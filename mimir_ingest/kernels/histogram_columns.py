"""How kernels take native histograms: the columns of model.histograms.Histograms as one named tuple of arrays.

Fields mean what they mean there. Rows are histograms; row i has the buckets `bucket_offsets[2i]:[2i + 1]` (negative)
and `[2i + 1]:[2i + 2]` (positive).
"""

from __future__ import annotations

from collections import namedtuple

from numba import types

from mimir_ingest.kernels._jit import (
    bool_in,
    bool_out,
    f64_in,
    f64_out,
    i8_in,
    i8_out,
    i32_in,
    i32_out,
    i64_in,
    i64_out,
    u8_in,
    u8_out,
)

HistogramColumns = namedtuple(
    "HistogramColumns",
    "schema reset_hint is_float zero_threshold zero_count count sum "
    "bucket_offsets bucket_index bucket_count custom_offsets custom_values",
)

histograms_in = types.NamedTuple(
    (i8_in, u8_in, bool_in, f64_in, f64_in, f64_in, f64_in, i64_in, i32_in, f64_in, i64_in, f64_in), HistogramColumns
)
"""Signature type of histograms to read; every array of the tuple must be marked read-only."""
histograms_out = types.NamedTuple(
    (i8_out, u8_out, bool_out, f64_out, f64_out, f64_out, f64_out, i64_out, i32_out, f64_out, i64_out, f64_out),
    HistogramColumns,
)
"""Signature type of histograms to write."""
