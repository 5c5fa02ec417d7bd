"""What a Prometheus has stored around the corpus's time, by remote read, in a form to compare with ours."""

from __future__ import annotations

import itertools

import cramjam
import httpx

from tests.support import otlp_corpus as corpus
from tests.support.histograms import STALE_BITS, Row, bits
from tests.support.protobuf_schema import ReadResponse
from tests.support.remote_read import RE, bits_of, compressed, labels_of, read_request


def comparable(word: int) -> int:
    """Return one word for all kinds of NaN that are no staleness marker, and one for both zeros."""
    if word == 1 << 63:
        return 0
    return (
        0x7FF8000000000001
        if word != STALE_BITS and word & 0x7FF << 52 == 0x7FF << 52 and word << 12 & (1 << 64) - 1
        else word
    )


def as_stored(row: Row) -> object:
    """Return what a head keeps of a histogram: of a stale one nothing, of a reset hint only gauges."""
    if row.sum_bits == STALE_BITS:
        return "stale"
    return row._replace(reset_hint=3 if row.reset_hint == 3 else 0)


def stored_samples(client: httpx.Client) -> set[object]:
    """Return everything that Prometheus has, by remote read."""
    query = read_request((corpus.NOW_MS - 3_600_000, corpus.NOW_MS + 3_600_000, [(RE, "__name__", ".+")]))
    answer = client.post("/api/v1/read", content=compressed(query), headers={"Content-Encoding": "snappy"})
    assert answer.status_code == 200, answer.text
    found: set[object] = set()
    for series in ReadResponse.FromString(bytes(cramjam.snappy.decompress_raw(answer.content))).results[0].timeseries:
        labels = frozenset(labels_of(series).items())
        for sample in series.samples:
            found.add((labels, sample.timestamp, comparable(bits_of([sample.value])[0])))
        for one in series.histograms:
            found.add((labels, one.timestamp, as_stored(_row(one))))
    return found


def _row(one) -> Row:
    return Row(
        one.schema,
        one.reset_hint if one.reset_hint == 3 else 0,
        one.HasField("count_float"),
        one.zero_threshold,
        float(one.zero_count_int or one.zero_count_float),
        float(one.count_int or one.count_float),
        bits(one.sum),
        _side(one.negative_spans, one.negative_deltas, one.negative_counts),
        _side(one.positive_spans, one.positive_deltas, one.positive_counts),
        tuple(one.custom_values),
    )


def _side(spans, deltas, floats) -> tuple[tuple[int, float], ...]:
    counts = list(floats) or list(itertools.accumulate(deltas))
    indexes, at = [], 0
    for span in spans:
        at += span.offset
        indexes += range(at, at + span.length)
        at += span.length
    return tuple((i, float(c)) for i, c in zip(indexes, counts, strict=True))
