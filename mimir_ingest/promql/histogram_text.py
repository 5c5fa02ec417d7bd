"""Native histograms as text: `{count:7, sum:8.5, [-2,-1):1, (1,2]:6}`.

Source: Prometheus 3.14 `model/histogram/float_histogram.go` `String`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mimir_ingest.errors import QueryError
from mimir_ingest.kernels.native_buckets import CLOSED, OPEN_LEFT, OPEN_RIGHT, list_buckets
from mimir_ingest.model.histograms import CUSTOM_BUCKETS_SCHEMA, Histograms
from mimir_ingest.model.numbers import format_general
from mimir_ingest.promql.native import columns_of


@dataclass(frozen=True, slots=True)
class BucketList:
    """The populated buckets of k histograms, by rising bounds."""

    offsets: np.ndarray
    """int64[k + 1]."""
    kinds: np.ndarray
    """int64[b]: which bounds belong to a bucket (see `kernels.native_buckets`)."""
    lower: np.ndarray
    upper: np.ndarray
    count: np.ndarray
    """float64[b] each."""


def buckets_of(histograms: Histograms, rows: np.ndarray, *, whole: bool = False) -> BucketList:
    """List the buckets of the histograms `rows` (int64[k]); `whole` as in `kernels.native_buckets.list_buckets`."""
    sizes = histograms.bucket_offsets[2::2] - histograms.bucket_offsets[:-2:2] + 1
    room = int(sizes[rows].sum())
    offsets, kinds = np.zeros(len(rows) + 1, np.int64), np.empty(room, np.int64)
    lower, upper, count = np.empty(room), np.empty(room), np.empty(room)
    size = list_buckets(columns_of(histograms), rows, int(whole), offsets, kinds, lower, upper, count)
    return BucketList(offsets, kinds[:size], lower[:size], upper[:size], count[:size])


def format_histograms(histograms: Histograms, rows: np.ndarray) -> list[str]:
    """Return the histograms `rows` (int64[k]) as text.

    Raises QueryError, as Prometheus fails, for one with custom buckets that was multiplied by infinity.
    """
    if np.any((histograms.schema[rows] == CUSTOM_BUCKETS_SCHEMA) & (histograms.zero_count[rows] != 0)):
        raise QueryError("histograms with custom buckets have no zero bucket")
    buckets = buckets_of(histograms, rows, whole=True)
    parts = [
        f"{'[' if kind in (CLOSED, OPEN_RIGHT) else '('}{format_general(lower)},{format_general(upper)}"
        f"{']' if kind in (CLOSED, OPEN_LEFT) else ')'}:{format_general(count)}"
        for kind, lower, upper, count in zip(
            buckets.kinds.tolist(), buckets.lower.tolist(), buckets.upper.tolist(), buckets.count.tolist(), strict=True
        )
    ]
    bounds = buckets.offsets.tolist()
    return [
        "{"
        + ", ".join(
            (
                f"count:{format_general(float(histograms.count[row]))}",
                f"sum:{format_general(float(histograms.sum[row]))}",
                *parts[bounds[i] : bounds[i + 1]],
            )
        )
        + "}"
        for i, row in enumerate(rows.tolist())
    ]
