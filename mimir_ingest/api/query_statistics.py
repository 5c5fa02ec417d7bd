"""What a request to the query API cost, told by `Server-Timing` (spec http-api.md 6.1)."""

from __future__ import annotations

from typing import Protocol

from mimir_ingest.querier.reading import Reading

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


class Cost(Protocol):
    """What is known of a request."""

    reading: Reading
    samples_processed: int
    """By the evaluation, as `totalQueryableSamples` counts them."""
    queue_s: float
    """For which it waited for its turn."""


def wants_statistics(header: str) -> bool:
    """Whether `X-Mimir-Response-Query-Stats` asks for the extended list."""
    return header in _TRUE


def server_timing(
    asked: Cost, response_s: float, *, brief: bool, extended: bool, encode_s: float = 0.0, size_bytes: int | None = None
) -> str:
    """Return the header's value, empty if nothing is to be told.

    Parameters
    ----------
    asked : Cost
        What is known of the request.
    response_s : float
        Seconds from its parameters to its answer, of which `encode_s` went into rendering.
    brief : bool
        Whether every answer tells: `-query-frontend.query-stats-enabled`.
    extended : bool
        Whether the client asked for all.
    size_bytes : int, optional
        Of the answer's body; None for one that is rendered while it is sent, which tells all but this.
    """
    told = [_brief(asked, response_s)] if brief else []
    if extended:
        told.append(_extended(asked, response_s, encode_s, size_bytes))
    return ", ".join(told)


def _brief(asked: Cost, response_s: float) -> str:
    """What every answer tells; durations in ms."""
    return (
        f"querier_wall_time;dur={1e3 * (response_s - asked.queue_s):.6f}, response_time;dur={1e3 * response_s:.6f}, "
        f"bytes_processed;val={asked.reading.fetched_chunk_bytes}, samples_processed;val={asked.samples_processed}"
    )


def _extended(asked: Cost, response_s: float, encode_s: float, size_bytes: int | None) -> str:
    """What an answer tells whoever asks; durations in seconds, but for `response_time` (ms)."""
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
        **dict.fromkeys(_ABSENT, 0),
    }
    if size_bytes is not None:
        counts["response_size_bytes"] = size_bytes
    told = {
        **{name: f"dur={value:.9f}" for name, value in seconds.items()},
        **{name: f"val={value}" for name, value in counts.items()},
        "response_time": f"dur={1e3 * response_s:.6f}",
    }
    return ", ".join(f"{name};{told[name]}" for name in sorted(told))
