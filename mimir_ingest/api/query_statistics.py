"""What a request to the query API cost, told by `Server-Timing` (spec http-api.md 6.1)."""

from __future__ import annotations

from mimir_ingest.api.query import ApiRequest

STATISTICS_HEADER = b"x-mimir-response-query-stats"
_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
"""Source: Go's `strconv.ParseBool`."""

_ABSENT = (
    "estimated_series_count",
    "fetched_index_bytes",
    "results_cache_hit_bytes",
    "results_cache_miss_bytes",
    "sharded_queries",
    "split_queries",
    "remote_execution_request_count",
)
"""Of the extended list, what counts work that is never done here: there are no estimates, results caches, shards or
splits of queries, a query is executed where it is asked, and blocks' indexes are held, not fetched for one query."""


def wants_statistics(header: str) -> bool:
    """Whether `X-Mimir-Response-Query-Stats` asks for the extended list."""
    return header in _TRUE


def server_timing(asked: ApiRequest, response_s: float) -> str:
    """Return what every answer tells; durations in ms."""
    return (
        f"querier_wall_time;dur={1e3 * (response_s - asked.queue_s):.6f}, response_time;dur={1e3 * response_s:.6f}, "
        f"bytes_processed;val={asked.reading.fetched_chunk_bytes}, samples_processed;val={asked.samples_processed}"
    )


def extended_timing(asked: ApiRequest, response_s: float, encode_s: float, size_bytes: int) -> str:
    """Return what an answer of `size_bytes` tells whoever asks; durations in seconds, but for `response_time` (ms)."""
    reading = asked.reading
    seconds = {
        "encode_time_seconds": encode_s,
        "query_wall_time_seconds": response_s - asked.queue_s,
        "queue_time_seconds": asked.queue_s,
    }
    counts = {
        "fetched_chunk_bytes": reading.fetched_chunk_bytes,
        "fetched_chunks_count": reading.fetched_chunks,
        "fetched_series_count": reading.fetched_series,
        "response_size_bytes": size_bytes,
        **dict.fromkeys(_ABSENT, 0),
    }
    told = {
        **{name: f"dur={value:.9f}" for name, value in seconds.items()},
        **{name: f"val={value}" for name, value in counts.items()},
        "response_time": f"dur={1e3 * response_s:.6f}",
    }
    return ", ".join(f"{name};{told[name]}" for name in sorted(told))
