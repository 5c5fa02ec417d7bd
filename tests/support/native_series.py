"""Series of native histograms as senders make them: growing, resetting, changing their layout, going stale."""

from __future__ import annotations

import random
from collections.abc import Iterable

import cramjam
import numpy as np

from mimir_ingest.model.histograms import CUSTOM_BUCKETS_SCHEMA, GAUGE
from mimir_ingest.model.labels import LabelFrame
from mimir_ingest.model.samples import SeriesSamples
from tests.support.histograms import STALE_BITS, Row, bits, put_histogram, stored
from tests.support.protobuf_schema import WriteRequest
from tests.support.random_batches import histogram_samples

Sample = tuple[int, Row | float]
BOUNDS = (0.1, 0.25, 1.0, 2.5, 1e9)


def growing(
    rng: random.Random, length: int, *, is_float=False, schema=3, hint=0, custom=(), reset_every=0
) -> list[Row]:
    """Return a histogram's samples: observations come in, buckets appear, now and then all starts anew."""
    rows, counts, zeros, total = [], {}, 0.0, 0.0
    for i in range(length):
        if reset_every and i and i % reset_every == 0:
            counts, zeros, total = {}, 0.0, 0.0
        for _ in range(3):
            bucket = rng.randint(0, len(custom)) if custom else rng.randint(-6, 12)
            # Quarters add up without rounding.
            counts[bucket] = counts.get(bucket, 0.0) + (rng.randint(1, 40) / 4 if is_float else rng.randint(1, 1000))
            total += bucket
        if hint == GAUGE and i % 7 == 3:
            counts = {b: c - 1 for b, c in counts.items() if c > 1 and b % 2}
        if not custom:
            zeros += rng.randint(0, 2)
        positive = tuple(sorted(counts.items()))
        negative = () if custom else tuple((b, c) for b, c in positive if b % 3 == 0)
        count = zeros + sum(c for _, c in (*positive, *negative))
        rows.append(
            Row(
                CUSTOM_BUCKETS_SCHEMA if custom else schema,
                hint,
                is_float,
                0.0 if custom else 2.0**-128,
                zeros,
                count,
                bits(total),
                negative,
                positive,
                custom,
            )
        )
    return rows


def stale(is_float: bool = False) -> Row:
    """Return a staleness marker."""
    return Row(0, 0, is_float, 0.0, 0.0, 0.0, STALE_BITS, (), ())


def make_series(first_ms: int, length: int, step_ms: int = 15_000, seed: int = 7) -> list[tuple[dict, list[Sample]]]:
    """Return series of every kind, among them one with floats in between."""
    rng = random.Random(seed)
    times = [first_ms + i * step_ms for i in range(length)]
    ended = growing(rng, length)
    ended[length // 3 : length // 3 + 5] = [stale()] * 5
    lower = growing(rng, length // 2) + growing(rng, length - length // 2, schema=1)
    mixed: list[Row | float] = [float(i) if i // 20 % 3 == 1 else row for i, row in enumerate(growing(rng, length))]
    kinds: dict[str, list] = {
        "integer": growing(rng, length, reset_every=37),
        "float": growing(rng, length, is_float=True, reset_every=41),
        "custom": growing(rng, length, custom=BOUNDS, reset_every=53),
        "gauge": growing(rng, length, hint=GAUGE),
        "ended": ended,
        "lower": lower,
        "mixed": mixed,
    }
    series = []
    for name, values in kinds.items():
        for pod in ("a", "b"):
            labels = {"__name__": f"latency_{name}", "pod": pod}
            series.append((labels, list(zip(times, values, strict=True))))
    return series


def body(series: Iterable[tuple[dict, list[Sample]]]) -> bytes:
    """Return a compressed remote write 1.0 body, made by the protobuf library."""
    request = WriteRequest()
    for labels, samples in series:
        row = request.timeseries.add()
        for name, value in sorted(labels.items()):
            row.labels.add(name=name.encode(), value=value.encode())
        for timestamp, value in samples:
            if isinstance(value, Row):
                put_histogram(row.histograms.add(), timestamp, value)
            else:
                row.samples.add(timestamp=timestamp, value=value)
    return bytes(cramjam.snappy.compress_raw(request.SerializeToString()))


def batches(series: list[tuple[dict, list[Sample]]], size: int) -> list[bytes]:
    """Return bodies with `size` samples of each series, in order of time."""
    length = max(len(samples) for _, samples in series)
    return [body([(labels, samples[i : i + size]) for labels, samples in series]) for i in range(0, length, size)]


def native_samples(series: list[tuple[dict, list[Sample]]]) -> SeriesSamples:
    """Return series in label order, as a selection gives them."""
    floats = [[(t, v) for t, v in samples if not isinstance(v, Row)] for _, samples in series]
    histograms = [[(t, stored(v)) for t, v in samples if isinstance(v, Row)] for _, samples in series]
    return SeriesSamples(
        LabelFrame.from_dicts([labels for labels, _ in series]),
        np.cumsum([0, *map(len, floats)]),
        np.array([t for rows in floats for t, _ in rows], np.int64),
        np.array([v for rows in floats for _, v in rows], np.float64),
        histogram_samples(histograms),
    ).in_label_order()
