"""Native histograms in protobuf: those of a write request to columns, columns to the fields of a series.

Source: spec ingest-storage 1.2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mimir_ingest.kernels import histogram_messages
from mimir_ingest.kernels import histogram_wire as kernels
from mimir_ingest.kernels.histogram_columns import HistogramColumns
from mimir_ingest.kernels.series_fields import locate_fields
from mimir_ingest.model.histograms import Histograms, HistogramSamples

TIME_SERIES, TIME_SERIES_RW2 = (1, 4), (5, 3)
"""Fields of the series in a request and of the histograms in a series, of both shapes."""


@dataclass(frozen=True, slots=True)
class HistogramFacts:
    """What was received of m histograms and columns do not show."""

    schema: np.ndarray
    """int64[m]: as sent; in the columns it is -128 where there is a problem or an int8 cannot hold it."""
    buckets: np.ndarray
    """int64[m]: counts or deltas sent, empty ones included."""
    problem: np.ndarray
    """int64[m]: OK, SPAN_NEGATIVE_OFFSET or SPANS_BUCKETS_MISMATCH (kernels.histogram_wire); then it has no buckets."""
    details: np.ndarray
    """int64[m, 3]: side (0 negative, 1 positive), and two numbers for the message."""

    def take(self, index: np.ndarray) -> HistogramFacts:
        """Return the facts of the histograms at `index`."""
        return HistogramFacts(self.schema[index], self.buckets[index], self.problem[index], self.details[index])


def find_histograms(
    data: np.ndarray, begin: int, fields: tuple[int, int], series: int, count: int
) -> tuple[HistogramSamples | None, HistogramFacts | None]:
    """As `decode_histograms`; nothing when there are none."""
    if not count:
        return None, None
    return decode_histograms(data, begin, fields, series=series, count=count)


def decode_histograms(
    data: np.ndarray, begin: int, fields: tuple[int, int], *, series: int, count: int
) -> tuple[HistogramSamples, HistogramFacts]:
    """Return the histograms of a request whose form was checked.

    Parameters
    ----------
    data, begin
        uint8[...], and where the request begins in it.
    fields
        TIME_SERIES or TIME_SERIES_RW2.
    series, count
        Series and histograms in it.
    """
    starts, ends, offsets = np.empty(count, np.int64), np.empty(count, np.int64), np.empty(series + 1, np.int64)
    locate_fields(data, begin, *fields, starts, ends, offsets)
    totals = np.empty(2, np.int64)
    kernels.measure_histograms(data, starts, ends, totals)
    out = HistogramColumns(
        np.empty(count, np.int8),
        np.empty(count, np.uint8),
        np.empty(count, bool),
        *(np.empty(count, np.float64) for _ in range(4)),
        np.empty(2 * count + 1, np.int64),
        np.empty(totals[0], np.int32),
        np.empty(totals[0], np.float64),
        np.empty(count + 1, np.int64),
        np.empty(totals[1], np.float64),
    )
    facts = np.empty((count, kernels.FACTS), np.int64)
    kernels.fill_histograms(data, starts, ends, out, facts.reshape(-1))
    used = int(out.bucket_offsets[-1])
    values = Histograms(
        **{**out._asdict(), "bucket_index": out.bucket_index[:used], "bucket_count": out.bucket_count[:used]}
    )
    began = facts[:, kernels.START].copy() if facts[:, kernels.START].any() else None
    return HistogramSamples(offsets, facts[:, kernels.TIMESTAMP].copy(), values, began), HistogramFacts(
        facts[:, kernels.SCHEMA],
        facts[:, kernels.BUCKETS],
        facts[:, kernels.PROBLEM],
        facts[:, kernels.SIDE : kernels.FOUND + 1],
    )


def encode_histograms(samples: HistogramSamples, field: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the histograms as fields of their series, and where each series' begin and the last ends.

    Returns
    -------
    data, offsets : uint8[...], int64[series + 1]
        Series i has the fields `data[offsets[i]:offsets[i + 1]]`.
    """
    columns = samples.values.columns
    timestamps = np.ascontiguousarray(samples.timestamps)
    ends = np.empty(samples.sample_count, np.int64)
    data = np.empty(histogram_messages.measure_messages(columns, timestamps, ends), np.uint8)
    histogram_messages.write_messages(columns, timestamps, ends, field << 3 | 2, data)
    return data, np.concatenate([np.zeros(1, np.int64), ends])[samples.offsets]
