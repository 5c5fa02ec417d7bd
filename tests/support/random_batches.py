"""Hypothesis strategies for write batches, and what a batch holds as plain Python values."""

from __future__ import annotations

import struct
from itertools import accumulate, pairwise

import numpy as np
import xxhash
from hypothesis import strategies as st

from mimir_ingest.model.batch import METRIC_TYPES, STALE_NAN_BITS, MetadataColumns, WriteBatch
from mimir_ingest.model.histograms import HistogramSamples
from tests.reference.varint import put
from tests.support.histograms import as_rows, histogram_rows, of_rows

NAMES = st.sampled_from([b"__name__", b"job", b"instance", b"le", b"a"]) | st.binary(max_size=200)
VALUES = st.binary(min_size=1, max_size=200)
TIMES = st.integers(-(2**63), 2**63 - 1) | st.integers(1_600_000_000_000, 1_900_000_000_000) | st.just(0)
BITS = st.one_of(
    st.floats().map(lambda v: struct.pack("<d", v)),
    st.sampled_from([STALE_NAN_BITS, 0, 1 << 63]).map(struct.Struct("<Q").pack),
)
SERIES = st.tuples(
    st.lists(st.tuples(NAMES, VALUES), max_size=6).map(lambda pairs: sorted(pairs, key=lambda p: p[0])),
    st.lists(st.tuples(TIMES, BITS), max_size=4),
)
METADATA = st.tuples(st.integers(0, 7), *[st.binary(max_size=40)] * 3)


def label_bytes(pairs) -> bytes:
    """Return label bytes of (name, value) pairs as they stand."""
    return b"".join(put(len(part)) + part for pair in pairs for part in pair)


def batch_of(series, metadata=(), source=0, histograms=None) -> WriteBatch:
    """Build a batch of ((labels, samples), …) and (type, family, help, unit) rows.

    `histograms`, if given, are [(timestamp, Row)] of each series.
    """
    keys = [label_bytes(labels) for labels, _ in series]
    samples = [s for _, group in series for s in group]
    strings = [text for _, *texts in metadata for text in texts]
    return WriteBatch(
        np.frombuffer(b"".join(keys), np.uint8),
        np.array([0, *accumulate(map(len, keys))], np.int64),
        np.array([xxhash.xxh64_intdigest(key) for key in keys], np.uint64),
        np.array([0, *accumulate(len(group) for _, group in series)], np.int64),
        np.array([timestamp for timestamp, _ in samples], np.int64),
        np.frombuffer(b"".join(bits for _, bits in samples), np.float64),
        MetadataColumns(
            np.array([kind for kind, *_ in metadata], np.uint8),
            np.frombuffer(b"".join(strings), np.uint8),
            np.array([0, *accumulate(map(len, strings))], np.int64),
        ),
        source,
        None if histograms is None else histogram_samples(histograms),
    )


def histogram_samples(series) -> HistogramSamples:
    """Build the columns of [(timestamp, Row)] of each series."""
    flat = [pair for rows in series for pair in rows]
    return HistogramSamples(
        np.array([0, *accumulate(map(len, series))], np.int64),
        np.array([t for t, _ in flat], np.int64),
        of_rows([row for _, row in flat]),
    )


def histograms_of(samples: HistogramSamples | None) -> list[list]:
    """Return [(timestamp, Row)] of each series; nothing without any."""
    if samples is None:
        return []
    rows = list(zip(samples.timestamps.tolist(), as_rows(samples.values), strict=True))
    return [rows[a:b] for a, b in pairwise(samples.offsets.tolist())]


@st.composite
def histogram_batches(draw) -> WriteBatch:
    """Batches with native histograms, some beside floats."""
    series = draw(st.lists(SERIES, min_size=1, max_size=4))
    rows = st.lists(st.tuples(TIMES, histogram_rows()), max_size=3)
    histograms = draw(st.lists(rows, min_size=len(series), max_size=len(series)))
    return batch_of(series, draw(st.lists(METADATA, max_size=2)), draw(st.integers(0, 2)), histograms)


BATCHES = st.builds(batch_of, st.lists(SERIES, max_size=5), st.lists(METADATA, max_size=4), st.integers(0, 2))


def starts_of(batch: WriteBatch) -> list[list[int]]:
    """Return each series' starts of its samples, 0 for none."""
    starts = [0] * batch.sample_count if batch.starts is None else batch.starts.tolist()
    return [starts[a:b] for a, b in pairwise(batch.sample_offsets.tolist())]


def content(batch: WriteBatch) -> tuple[list, list, int]:
    """Return ([(label bytes, hash, [(timestamp, bits)])], [(type, family, help, unit)], source).

    Also checks that the columns agree with each other, as every batch must.
    """
    labels, bits = batch.labels.tobytes(), batch.values.view(np.uint64).tolist()
    assert len(batch.label_offsets) == len(batch.sample_offsets) == batch.series_count + 1
    assert (batch.label_offsets[0], batch.label_offsets[-1]) == (0, len(labels))
    assert (batch.sample_offsets[0], batch.sample_offsets[-1]) == (0, batch.sample_count)
    assert len(bits) == batch.sample_count
    assert (np.diff(batch.label_offsets) >= 0).all()
    assert (np.diff(batch.sample_offsets) >= 0).all()
    assert batch.source in (0, 1, 2)
    assert (batch.metadata.types < len(METRIC_TYPES)).all()
    dtypes = [batch.labels, batch.label_offsets, batch.hashes, batch.sample_offsets, batch.timestamps, batch.values]
    assert [a.dtype.str for a in dtypes] == ["|u1", "<i8", "<u8", "<i8", "<i8", "<f8"]
    series = []
    for i in range(batch.series_count):
        span = range(*batch.sample_offsets[i : i + 2].tolist())
        samples = [(int(batch.timestamps[j]), struct.pack("<Q", bits[j])) for j in span]
        series.append((labels[batch.label_offsets[i] : batch.label_offsets[i + 1]], int(batch.hashes[i]), samples))
    text, offsets = batch.metadata.text.tobytes(), batch.metadata.offsets
    assert len(offsets) == 3 * len(batch.metadata) + 1
    assert (offsets[0], offsets[-1]) == (0, len(text))
    assert (np.diff(offsets) >= 0).all()
    strings = [text[a:b] for a, b in pairwise(offsets.tolist())]
    rows = [(int(kind), *strings[3 * i : 3 * i + 3]) for i, kind in enumerate(batch.metadata.types)]
    return series, rows, batch.source
