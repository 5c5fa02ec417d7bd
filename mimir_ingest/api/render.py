"""Results of the query API as Prometheus's JSON, written in one pass over columns.

Source: spec http-api.md 1.5 and 6.2 to 6.4.
"""

from __future__ import annotations

import numpy as np
import orjson
from fastapi import Response

from mimir_ingest.errors import IngestError, QueryError
from mimir_ingest.model.labels import LabelFrame
from mimir_ingest.model.numbers import format_plain, format_time, format_values
from mimir_ingest.promql.values import Matrix, QueryStats, Scalar, String, Vector
from mimir_ingest.querier.service import QueryTimings
from partitions.errors import PartitionError

JSON = "application/json"


def clean(text: str) -> str:
    """Return a string that JSON can hold: bytes that were no UTF-8 become U+FFFD, as in Go."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return text


def _metrics(labels: LabelFrame) -> list[str]:
    return [orjson.dumps({k: clean(v) for k, v in s.items()}).decode() for s in labels.to_dicts()]


def _vector(vector: Vector) -> str:
    time = format_time(vector.timestamp_ms)
    rows = zip(_metrics(vector.labels), format_values(vector.values), strict=True)
    return ",".join(f'{{"metric":{metric},"value":[{time},"{value}"]}}' for metric, value in rows)


def _matrix(matrix: Matrix) -> str:
    distinct, inverse = np.unique(matrix.timestamps, return_inverse=True)
    times = [format_time(t) for t in distinct.tolist()]
    points = [
        f'[{times[at]},"{value}"]' for at, value in zip(inverse.tolist(), format_values(matrix.values), strict=True)
    ]
    bounds = matrix.offsets.tolist()
    return ",".join(
        f'{{"metric":{metric},"values":[{",".join(points[first:last])}]}}'
        for metric, first, last in zip(_metrics(matrix.labels), bounds, bounds[1:], strict=False)
    )


def result_json(value: Vector | Matrix | Scalar | String) -> str:
    """Return `"resultType": …, "result": …` without the braces around."""
    match value:
        case Vector():
            return f'"resultType":"vector","result":[{_vector(value)}]'
        case Matrix():
            return f'"resultType":"matrix","result":[{_matrix(value)}]'
        case Scalar():
            pair = f'[{format_time(value.timestamp_ms)},"{format_plain(value.value)}"]'
            return f'"resultType":"scalar","result":{pair}'
        case String():
            text = orjson.dumps(clean(value.value)).decode()
            return f'"resultType":"string","result":[{format_time(value.timestamp_ms)},{text}]'


def stats_json(stats: QueryStats, timings: QueryTimings) -> str:
    """Return the `stats` object: timings (s, floats) and counts of samples, as Prometheus 3.14 gives them.

    Sorting is a part of evaluation here, so `resultSortTime` is zero.
    """
    evaluated = timings.preparation_s + timings.evaluation_s
    return orjson.dumps(
        {
            "timings": {
                "evalTotalTime": evaluated,
                "resultSortTime": 0.0,
                "queryPreparationTime": timings.preparation_s,
                "innerEvalTime": timings.evaluation_s,
                "execQueueTime": timings.queue_s,
                "execTotalTime": timings.queue_s + evaluated,
            },
            "samples": {
                "totalQueryableSamples": stats.total_queryable_samples,
                "samplesRead": stats.samples_read,
                "peakSamples": stats.peak_samples,
            },
        }
    ).decode()


def limited(value: Vector | Matrix | Scalar | String, limit: int) -> tuple[Vector | Matrix | Scalar | String, bool]:
    """Return at most `limit` series (0: all) and whether some were cut off."""
    if limit and isinstance(value, Vector | Matrix) and value.labels.n > limit:
        labels = value.labels.take(np.arange(limit))
        if isinstance(value, Vector):
            return Vector(labels, value.timestamp_ms, value.values[:limit]), True
        end = int(value.offsets[limit])
        return Matrix(labels, value.offsets[: limit + 1], value.timestamps[:end], value.values[:end]), True
    return value, False


def success(data: str | bytes, *, warnings: list[str] | None = None, infos: list[str] | None = None) -> Response:
    """Return the envelope around `data`, which is JSON already."""
    body = '{"status":"success","data":' + (data if isinstance(data, str) else data.decode())
    if warnings:
        body += ',"warnings":' + orjson.dumps(warnings).decode()
    if infos:
        body += ',"infos":' + orjson.dumps(infos).decode()
    return Response(body + "}", media_type=JSON)


def failure(error: IngestError | PartitionError) -> Response:
    """Return the envelope of an error: a query's own type, else what its status stands for."""
    if isinstance(error, QueryError):
        kind, status = error.error_type, error.http_status
    elif error.blame == "client":
        kind, status = ("execution", 422) if error.http_status == 422 else ("bad_data", error.http_status)
    else:
        kind, status = "internal", 500
    body = orjson.dumps({"status": "error", "errorType": kind, "error": clean(error.message)})
    return Response(body, status_code=status, media_type=JSON)
