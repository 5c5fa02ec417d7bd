"""Read consistency and partial answers at the HTTP edge: what a request demands, and what its answer says of it.

Source: spec ingest-storage 6.1; `partial_response` is Thanos's parameter of the query API.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping

from mimir_ingest.api.params import Params, bad_parameter
from mimir_ingest.config.durations import parse_go_duration
from mimir_ingest.config.limits import Limits
from mimir_ingest.querier.consistency import MAX_DELAY_HEADER, ReadConsistency, decide_consistency
from mimir_ingest.querier.reading import Reading
from mimir_ingest.wire.offsets_header import READ_CONSISTENCY_OFFSETS, encode_offsets

PARTIAL_RESPONSE = "partial_response"
_TRUE, _FALSE = ("1", "t", "T", "TRUE", "true", "True"), ("", "0", "f", "F", "FALSE", "false", "False")
_PREFIX = b"x-read-consistency"

RawHeaders = Iterable[tuple[bytes, bytes]]


def parse_max_delay(text: str) -> float | None:
    """Return a positive Go duration in seconds, None for anything else, which is passed over."""
    try:
        delay = parse_go_duration(text)
    except ValueError:
        return None
    return delay.seconds if delay > 0 else None


def parse_partial_response(params: Params) -> bool:
    """Return whether the client takes an answer that lacks some partitions. Raises QueryError (400)."""
    text = params.get(PARTIAL_RESPONSE)
    if text not in _TRUE and text not in _FALSE:
        raise bad_parameter(PARTIAL_RESPONSE, f'cannot parse "{text}" to a boolean')
    return text in _TRUE


def consistency_headers(headers: RawHeaders) -> dict[str, str]:
    """Return the `X-Read-Consistency*` headers of a request by lower-case name; the first of repeated ones counts."""
    found: dict[str, str] = {}
    for name, value in headers:
        if (lower := name.lower()).startswith(_PREFIX):
            found.setdefault(lower.decode("latin-1"), value.decode("latin-1"))
    return found


def read_level(limits: Limits) -> str:
    """Return the level of a tenant's reads that name none."""
    return limits.ingest_storage_read_consistency


@functools.cache
def _of_level(level: str) -> ReadConsistency:
    """Return what a request demands that names nothing."""
    return decide_consistency({}, tenant_default=level)


class ReadingOpener:
    """Makes the `Reading` of each request."""

    def __init__(self, level_of: Callable[[str], str]) -> None:
        """`level_of` gives a tenant's level (`strong` or `eventual`) for requests that name none."""
        self._level_of = level_of

    def open(self, tenant: str, headers: RawHeaders, params: Params | None = None) -> Reading:
        """Return a request's demands. Raises InvalidRequest (offsets), QueryError (`partial_response`)."""
        return open_reading(consistency_headers(headers), self._level_of(tenant), params)


def open_reading(named: Mapping[str, str], level: str, params: Params | None = None) -> Reading:
    """Return the demands of a request with these `consistency_headers`; `level` counts where it names none.

    Raises InvalidRequest (offsets), QueryError (`partial_response`).
    """
    if named:
        delay_s = parse_max_delay(named.get(MAX_DELAY_HEADER, ""))
        consistency = decide_consistency(named, tenant_default=level, max_delay_s=delay_s)
    else:
        consistency = _of_level(level)
    partial = params is not None and PARTIAL_RESPONSE in params.values and parse_partial_response(params)
    return Reading(consistency, partial=partial)


def answer_headers(reading: Reading) -> dict[str, str]:
    """Return the headers that tell what a request's reads saw, for a client that asked about consistency."""
    return {READ_CONSISTENCY_OFFSETS: encode_offsets(reading.seen)} if reading.consistency.report else {}
