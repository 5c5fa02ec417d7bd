"""Results of the query API as Prometheus's JSON, written in one pass over columns.

Source: spec http-api.md 1.5 and 6.2 to 6.4.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import orjson
from fastapi import Response

from mimir_ingest.api.errors import Answer
from mimir_ingest.errors import IngestError, QueryError
from mimir_ingest.kernels.matrix_json import ROOM, write_series
from mimir_ingest.model.histograms import Histograms
from mimir_ingest.model.labels import LabelFrame
from mimir_ingest.model.numbers import format_plain, format_time, format_value, format_values, print_values
from mimir_ingest.model.spans import Check
from mimir_ingest.promql.histogram_text import BucketList, buckets_of
from mimir_ingest.promql.values import HistogramPoints, Matrix, QueryStats, Scalar, String, Vector
from mimir_ingest.querier.service import QueryTimings
from partitions.errors import PartitionError

JSON = "application/json"
JSON_HEADERS = ((b"content-type", JSON.encode()),)
_NO_TEXTS = np.empty(0, np.uint8), np.zeros(1, np.int64)
_BUCKETS = '"buckets"'
_KEPT_BYTES = 1 << 13
"""Of the texts of a frame's label sets that are kept with it."""


def clean(text: str) -> str:
    """Return a string that JSON can hold: bytes that were no UTF-8 become U+FFFD, as in Go."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return text


def _quoted(text: str) -> str:
    """Return a string as JSON."""
    try:
        return orjson.dumps(text).decode()
    except TypeError:  # it has to be cleaned
        return orjson.dumps(clean(text)).decode()


def _metrics(labels: LabelFrame) -> list[str]:
    """Return each label set as an object; a pair is written once, however many series have it."""
    if labels.n == 1:
        columns = zip(labels.names, labels.codes.tolist(), labels.values, strict=True)
        try:
            return [orjson.dumps({name: values[code] for name, (code,), values in columns if code >= 0}).decode()]
        except TypeError:  # a string that has to be cleaned
            pass
    columns = []
    for name, codes, values in zip(labels.names, labels.codes, labels.values, strict=True):
        listed = codes.tolist()
        begin = f"{_quoted(name)}:"
        pairs = {code: begin + _quoted(values[code]) for code in set(listed) - {-1}}
        columns.append([pairs.get(code, "") for code in listed])
    if not columns:
        return ["{}"] * labels.n
    return [f"{{{','.join(filter(None, pairs))}}}" for pairs in zip(*columns, strict=True)]


def _histograms(histograms: Histograms, rows: np.ndarray) -> list[str]:
    """Return the histograms `rows` (int64[k]) as JSON: count, sum and, if any is populated, buckets.

    A bucket is which bounds belong to it (0: the upper, 1: the lower, 2: none, 3: both), the bounds, and its count.
    """
    buckets = buckets_of(histograms, rows)
    lists = [
        f'{begin}{count}"]' for begin, count in zip(_beginnings(buckets), format_values(buckets.count), strict=True)
    ]
    bounds = buckets.offsets.tolist()
    totals = zip(format_values(histograms.count[rows]), format_values(histograms.sum[rows]), strict=True)
    out = []
    for i, (count, total) in enumerate(totals):
        inside = ",".join(lists[bounds[i] : bounds[i + 1]])
        out.append(f'{{"count":"{count}","sum":"{total}"{f",{_BUCKETS}:[{inside}]" if inside else ""}}}')
    return out


def _beginnings(buckets: BucketList) -> list[str]:
    """Return the JSON of each bucket up to its count; few are distinct."""
    lower_at = np.unique(buckets.lower.view(np.int64), return_inverse=True)[1]
    upper, upper_at = np.unique(buckets.upper.view(np.int64), return_inverse=True)
    codes = (lower_at * max(1, len(upper)) + upper_at) * 4 + buckets.kinds
    _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    bounds = zip(format_values(buckets.lower[first]), format_values(buckets.upper[first]), strict=True)
    texts = [f'[{kind},"{a}","{b}","' for kind, (a, b) in zip(buckets.kinds[first].tolist(), bounds, strict=True)]
    return [texts[i] for i in inverse.tolist()]


def _vector(vector: Vector, check: Check | None) -> Iterator[bytes]:
    """Yield the samples of a vector, a bounded number at a time."""
    for first, part in vector.pieces(check):
        yield f"{',' if first else ''}{_samples(part)}".encode()


def _samples(vector: Vector) -> str:
    time = format_time(vector.timestamp_ms)
    samples = [f'"value":[{time},"{value}"]' for value in format_values(vector.values)]
    if vector.histograms is not None:
        at = np.flatnonzero(vector.histograms.index >= 0)
        rendered = _histograms(vector.histograms.rows, vector.histograms.index[at])
        for i, histogram in zip(at.tolist(), rendered, strict=True):
            samples[i] = f'"histogram":[{time},{histogram}]'
    labels = vector.labels
    metrics = labels.once(("metrics",), lambda: _metrics(labels), lambda texts: sum(map(len, texts)) <= _KEPT_BYTES)
    return ",".join([f'{{"metric":{m},{s}}}' for m, s in zip(metrics, samples, strict=True)])


def _times(timestamps: np.ndarray) -> tuple[list[str], np.ndarray]:
    """Return (the distinct times of int64[m] (ms) as seconds, int64[m]: which of them each is)."""
    distinct, inverse = np.unique(timestamps, return_inverse=True)
    return [format_time(t) for t in distinct.tolist()], inverse


def _matrix(matrix: Matrix, check: Check | None) -> Iterator[bytes]:
    """Yield the series of a matrix, a bounded number of points at a time, or one series."""
    for first, part in matrix.pieces(check):
        if first:
            yield b","
        yield _numbers(part) if part.histograms is None else _mixed(part, part.histograms).encode()


def _numbers(matrix: Matrix) -> bytes:
    """Return the series of a matrix without histograms."""
    digits, others = print_values(matrix.values)
    specials = [format_value(value).encode() for value in matrix.values[others].tolist()] if len(others) else []
    special, special_bounds = _joined(specials)
    head, head_bounds = _heads(matrix.labels)
    texts = len(digits) + len(special) + len(head)
    out = np.empty(texts + ROOM * len(matrix.values) + 3 * len(head_bounds) + 16, np.uint8)
    parts = np.frombuffer(digits, np.uint8), others, special, special_bounds, matrix.timestamps, head, head_bounds
    return out[: write_series(*parts, matrix.offsets, out)].tobytes()


def _heads(labels: LabelFrame) -> tuple[np.ndarray, np.ndarray]:
    """Return, as `_joined` does, what stands before the points of each series; of few it is kept."""

    def make() -> tuple[np.ndarray, np.ndarray]:
        return _joined([f'{{"metric":{metric},"values":['.encode() for metric in _metrics(labels)])

    return labels.once(("heads",), make, lambda heads: len(heads[0]) <= _KEPT_BYTES)


def _joined(texts: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Return (uint8[] texts back to back, int64[n + 1] bounds)."""
    if not texts:
        return _NO_TEXTS
    joined = np.frombuffer(b"".join(texts) if len(texts) > 1 else texts[0], np.uint8)
    return joined, np.array([0, *itertools.accumulate(map(len, texts))], np.int64)


def _mixed(matrix: Matrix, own: HistogramPoints) -> str:
    """Return the series of a matrix with histograms."""
    times, time_of = _times(matrix.timestamps)
    pairs = zip(time_of.tolist(), format_values(matrix.values), strict=True)
    points = [f'[{times[time]},"{value}"]' for time, value in pairs]
    bounds = matrix.offsets.tolist()
    # Steps that show one sample share its text.
    rows, inverse = np.unique(own.rows, return_inverse=True)
    texts = _histograms(own.histograms, rows)
    times, time_of = _times(own.timestamps)
    shown = [f"[{times[time]},{texts[at]}]" for time, at in zip(time_of.tolist(), inverse.tolist(), strict=True)]
    places = own.offsets.tolist()
    series = []
    for i, metric in enumerate(_metrics(matrix.labels)):
        parts = [f'"metric":{metric}']
        if bounds[i + 1] > bounds[i]:
            parts.append(f'"values":[{",".join(points[bounds[i] : bounds[i + 1]])}]')
        if places[i + 1] > places[i]:
            parts.append(f'"histograms":[{",".join(shown[places[i] : places[i + 1]])}]')
        series.append(f"{{{','.join(parts)}}}")
    return ",".join(series)


def result_pieces(value: Vector | Matrix | Scalar | String, check: Check | None = None) -> list[bytes]:
    """Return `"resultType": …, "result": …` without the braces around; `check` is called before each bounded piece."""
    match value:
        case Vector():
            return [b'"resultType":"vector","result":[', *_vector(value, check), b"]"]
        case Matrix():
            return [b'"resultType":"matrix","result":[', *_matrix(value, check), b"]"]
        case Scalar():
            pair = f'[{format_time(value.timestamp_ms)},"{format_plain(value.value)}"]'
            return [f'"resultType":"scalar","result":{pair}'.encode()]
        case String():
            text = orjson.dumps(clean(value.value)).decode()
            return [f'"resultType":"string","result":[{format_time(value.timestamp_ms)},{text}]'.encode()]


def result_json(value: Vector | Matrix | Scalar | String) -> str:
    """Return the pieces of `result_pieces` as one text."""
    return b"".join(result_pieces(value)).decode()


def stats_json(stats: QueryStats, timings: QueryTimings) -> str:
    """Return the `stats` object: timings (s, floats) and counts of samples, as Prometheus 3.14 gives them.

    Counts that are kept by step are told so, too. Sorting is a part of evaluation here, so `resultSortTime` is zero.
    """
    evaluated = timings.preparation_s + timings.evaluation_s
    times = {
        "evalTotalTime": evaluated,
        "resultSortTime": 0.0,
        "queryPreparationTime": timings.preparation_s,
        "innerEvalTime": timings.evaluation_s,
        "execQueueTime": timings.queue_s,
        "execTotalTime": timings.queue_s + evaluated,
    }
    samples: dict[str, object] = {}
    for name, total, by_step in (
        ("totalQueryableSamples", stats.total_queryable_samples, stats.total_per_step),
        ("samplesRead", stats.samples_read, stats.read_per_step),
    ):
        if by_step is not None:
            pairs = zip(stats.steps.times_ms.tolist(), by_step.tolist(), strict=True)
            samples[f"{name}PerStep"] = [[orjson.Fragment(format_time(at)), count] for at, count in pairs]
        samples[name] = total
    samples["peakSamples"] = stats.peak_samples
    return orjson.dumps({"timings": times, "samples": samples}).decode()


def limited(value: Vector | Matrix | Scalar | String, limit: int) -> tuple[Vector | Matrix | Scalar | String, bool]:
    """Return at most `limit` series (0: all) and whether some were cut off."""
    if limit and isinstance(value, Vector | Matrix) and value.labels.n > limit:
        kept = np.arange(limit)
        labels, histograms = value.labels.take(kept), value.histograms
        histograms = None if histograms is None else histograms.take(kept)
        if isinstance(value, Vector):
            return Vector(labels, value.timestamp_ms, value.values[:limit], histograms), True
        end = int(value.offsets[limit])
        return Matrix(labels, value.offsets[: limit + 1], value.timestamps[:end], value.values[:end], histograms), True
    return value, False


def success(*data: bytes, warnings: list[str] | None = None, infos: list[str] | None = None) -> Answer:
    """Return the envelope around `data`, pieces of JSON."""
    ends = [b',"%b":%b' % (name, orjson.dumps(n)) for name, n in ((b"warnings", warnings), (b"infos", infos)) if n]
    return Answer(200, b"".join((b'{"status":"success","data":', *data, *ends, b"}")), JSON_HEADERS)


def failure(error: IngestError | PartitionError) -> Answer:
    """Return the envelope of an error: a query's own type, else what its status stands for."""
    if isinstance(error, QueryError):
        kind, status = error.error_type, error.http_status
    elif error.blame == "client":
        kind, status = ("execution", 422) if error.http_status == 422 else ("bad_data", error.http_status)
    else:
        kind, status = "internal", 500
    body = orjson.dumps({"status": "error", "errorType": kind, "error": clean(error.message)})
    return Answer(status, body, JSON_HEADERS)


def page(answer: Answer) -> Response:
    """Return the same answer for a route of FastAPI."""
    headers = {name.decode(): value.decode() for name, value in answer.headers}
    return Response(answer.body, status_code=answer.status, headers=headers)
