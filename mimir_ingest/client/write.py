"""From a pandas frame to the body of a remote write 1.0 request."""

from __future__ import annotations

import cramjam
import numpy as np
import pandas as pd

from mimir_ingest.model.labels import LabelFrame
from mimir_ingest.model.samples import SeriesSamples
from mimir_ingest.wire.read_response import encode_series


def encode_frame(frame: pd.DataFrame) -> bytes:
    """Return a compressed WriteRequest; samples of a series by time, of equal times all (see `Client.push`).

    Raises ValueError for a frame without `timestamp`, `value` or `__name__`, with missing times, or with histograms.
    """
    missing = [name for name in ("timestamp", "value", "__name__") if name not in frame.columns]
    if missing:
        raise ValueError(f"the frame has no column {', '.join(missing)}")
    if "histogram" in frame.columns:
        if frame["histogram"].notna().any():
            raise ValueError("histograms cannot be written from a frame")
        frame = frame.drop(columns=["histogram"])
    times = pd.to_datetime(frame["timestamp"], utc=True)
    if times.isna().any():
        raise ValueError("a timestamp is missing")
    timestamps = times.astype("datetime64[ms, UTC]").astype(np.int64).to_numpy()
    labels = _label_frame(frame.drop(columns=["timestamp", "value"]))
    ids, first = labels.group_ids()
    order = np.lexsort((timestamps, ids))
    offsets = np.searchsorted(ids[order], np.arange(len(first) + 1))
    values = frame["value"].to_numpy(np.float64)
    samples = SeriesSamples(labels.take(first), offsets, timestamps[order], values[order])
    return bytes(cramjam.snappy.compress_raw(encode_series(samples)))


def _label_frame(columns: pd.DataFrame) -> LabelFrame:
    """Return the label set of every row; missing and empty values are no label."""
    names = sorted(columns.columns)
    codes = np.full((len(names), len(columns)), -1, np.int32)
    values: list[list[str]] = []
    for row, name in enumerate(names):
        column = columns[name].astype(object).where(columns[name].notna(), "").astype(str)
        places, distinct = pd.factorize(column.where(column != "", None))
        codes[row] = places
        values.append([str(value) for value in distinct])
    return LabelFrame(tuple(names), codes, tuple(values))
