"""Parameters of the Prometheus query API: times, durations, limits, repeated values.

Source: spec http-api.md 1.8, 6.1 to 6.6 and 15 (texts).
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable
from dataclasses import field
from datetime import UTC, datetime
from urllib.parse import unquote_to_bytes

from mimir_ingest.config.durations import parse_prometheus_duration
from mimir_ingest.errors import QueryError
from mimir_ingest.model.frozen import frozen
from mimir_ingest.model.labels import go_quote
from mimir_ingest.promql.number_text import parse_float

MIN_TIME_MS = -9_223_372_036_854_775
"""Earliest time that fits int64 microseconds; stands for Prometheus's minTime, which no sample can precede."""
MAX_TIME_MS = 9_223_372_036_854_775

_FARTHEST_MS = (1 << 63) - (1 << 54)
"""why: no sample is there, and adding offsets and ranges, of 292 years at most each, stays within int64."""

MAX_POINTS = 11_000
"""Prometheus's bound on steps of a range query."""

MAX_PARAMETERS = 10_000
"""Of a query string or a form. Source: Go's `net/url`, whose `urlmaxqueryparams` this is."""

_RFC3339 = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:[.,](\d+))?(?:Z|([+-])(\d\d):(\d\d))", re.ASCII)
_GO_TIME_EXTREMES = {
    "-292273086-05-16T16:47:06Z": MIN_TIME_MS,
    "292277025-08-18T07:12:54.999999999Z": MAX_TIME_MS,
}
_INTEGER = re.compile(r"[+-]?\d+", re.ASCII)
_BAD_ESCAPE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_WHOLE_TIME, _WHOLE_DURATION = re.compile("[0-9]{1,12}"), re.compile("[0-9]{1,9}")
"""Seconds without a fraction, which nearly all clients send, fit their unit if they have no more digits."""
_REMEMBERED_BYTES = 256
_INT64_MIN, _INT64_MAX = -(1 << 63), (1 << 63) - 1


def bad_parameter(name: str, reason: str) -> QueryError:
    """Return the 400 error of a malformed parameter."""
    return QueryError(f'invalid parameter "{name}": {reason}', error_type="bad_data")


def parse_time(text: str) -> int:
    """Return milliseconds since the epoch of a Unix time (s) or an RFC 3339 time. Raises ValueError with the text."""
    if _WHOLE_TIME.fullmatch(text):
        return int(text) * 1000
    seconds = parse_float(text)
    if seconds is not None and abs(seconds) < 9.3e15:
        return min(max(math.floor(seconds * 1000 + 0.5), -_FARTHEST_MS), _FARTHEST_MS)
    if text in _GO_TIME_EXTREMES:
        return _GO_TIME_EXTREMES[text]
    found = _RFC3339.fullmatch(text)
    if found and int(found[9] or 0) <= 24 and int(found[10] or 0) <= 60:
        year, month, day, hour, minute, second = (int(g) for g in found.groups()[:6])
        try:
            moment = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
        except ValueError:
            pass
        else:
            zone_minutes = int(found[9] or 0) * 60 + int(found[10] or 0)
            ahead_ms = zone_minutes * (-60_000 if found[8] == "-" else 60_000)
            return int(moment.timestamp()) * 1000 + int((found[7] or "")[:3].ljust(3, "0")) - ahead_ms
    raise ValueError(f'cannot parse "{text}" to a valid timestamp')


def parse_duration(text: str) -> int:
    """Return nanoseconds of a number of seconds or a Prometheus duration. Raises ValueError with the text.

    NaN is the smallest int64, as Go converts it.
    """
    if _WHOLE_DURATION.fullmatch(text):
        return int(text) * 1_000_000_000
    seconds = parse_float(text)
    if seconds is not None:
        if math.isnan(seconds):
            return _INT64_MIN
        if abs(seconds) * 1e9 >= 2**63:
            raise ValueError(f'cannot parse "{text}" to a valid duration. It overflows int64')
        return int(seconds * 1e9)
    try:
        return parse_prometheus_duration(text).ms * 1_000_000
    except ValueError as error:
        raise ValueError(f'cannot parse "{text}" to a valid duration') from error


def parse_limit(text: str) -> int:
    """Return an integer as Go's `strconv.Atoi` reads it. Raises ValueError with Go's text."""
    if not _INTEGER.fullmatch(text):
        raise ValueError(f"strconv.Atoi: parsing {go_quote(text)}: invalid syntax")
    if len(text) > 20 or not _INT64_MIN <= int(text) <= _INT64_MAX:
        raise ValueError(f"strconv.Atoi: parsing {go_quote(text)}: value out of range")
    return int(text)


def _pair(pair: bytes) -> tuple[str, str] | None:
    """Return one parameter, None where Go's `url.ParseQuery` refuses it; what is no UTF-8 becomes lone surrogates."""
    if not pair or b";" in pair:
        return None
    name, _, value = pair.replace(b"+", b" ").partition(b"=")
    if b"%" in pair:
        if _BAD_ESCAPE.search(pair):
            return None
        name, value = unquote_to_bytes(name), unquote_to_bytes(value)
    return name.decode("utf-8", "surrogateescape"), value.decode("utf-8", "surrogateescape")


_pair_again = functools.lru_cache(1024)(_pair)
"""why: of a panel's parameters only the times change from request to request."""


@frozen
class Params:
    """Parameters of one request: the body's values stand before the URL's."""

    values: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def parse(cls, query_string: bytes, body: bytes = b"") -> Params:
        """Read a query string and a form body; of one with more than `MAX_PARAMETERS` nothing is read."""
        values: dict[str, list[str]] = {}
        for part in (body, query_string):
            if not part or part.count(b"&") >= MAX_PARAMETERS:
                continue
            for text in part.split(b"&"):
                pair = _pair_again(text) if len(text) <= _REMEMBERED_BYTES else _pair(text)
                if pair is not None:
                    values.setdefault(pair[0], []).append(pair[1])
        return cls(values)

    def get(self, name: str) -> str:
        """Return the first value, "" if there is none."""
        found = self.values.get(name)
        return found[0] if found else ""

    def all(self, name: str) -> list[str]:
        """Return every value."""
        return self.values.get(name, [])

    def time_ms(self, name: str, default: int | None = None) -> int:
        """Return a time in ms; `default` when absent, an error without one."""
        found = self.values.get(name)
        if found and _WHOLE_TIME.fullmatch(found[0]):
            return int(found[0]) * 1000
        return self._parsed(name, default, parse_time)

    def duration_ns(self, name: str, default: int | None = None) -> int:
        """Return a duration in ns; `default` when absent, an error without one."""
        found = self.values.get(name)
        if found and _WHOLE_DURATION.fullmatch(found[0]):
            return int(found[0]) * 1_000_000_000
        return self._parsed(name, default, parse_duration)

    def _parsed(self, name: str, default: int | None, parse: Callable[[str], int]) -> int:
        text = self.get(name)
        if not text:
            if default is not None:
                return default
            raise QueryError(f'missing required parameter "{name}"', error_type="bad_data")
        try:
            return parse(text)
        except ValueError as error:
            raise bad_parameter(name, str(error)) from error

    def limit(self) -> int:
        """Return the `limit` parameter, 0 for none."""
        found = self.values.get("limit")
        if not found or not (text := found[0]):
            return 0
        try:
            limit = parse_limit(text)
        except ValueError as error:
            raise bad_parameter("limit", str(error)) from error
        if limit < 0:
            raise bad_parameter("limit", "limit must be non-negative")
        return limit


@frozen
class RangeParams:
    """Evaluation times of a query, inclusive at both ends."""

    start_ms: int
    end_ms_incl: int
    step_ms: int


def _refused_step() -> QueryError:
    return bad_parameter(
        "step", "zero or negative query resolution step widths are not accepted. Try a positive integer"
    )


def range_params(params: Params) -> RangeParams:
    """Return start, end and step of a range query. Raises QueryError with Prometheus's texts."""
    start, end = params.time_ms("start"), params.time_ms("end")
    if end < start:
        raise bad_parameter("end", "end timestamp must not be before start time")
    step_ns = params.duration_ns("step")
    if step_ns <= 0:
        raise _refused_step()
    if (end - start) * 1_000_000 // step_ns > MAX_POINTS:
        raise QueryError(
            "exceeded maximum resolution of 11,000 points per timeseries. Try decreasing the query resolution "
            "(?step=XX)",
            error_type="bad_data",
        )
    if step_ns < 1_000_000:
        raise _refused_step()  # times have no finer unit
    return RangeParams(start, end, step_ns // 1_000_000)


def series_range(params: Params) -> tuple[int, int]:
    """Return the inclusive (start, end) of a series or labels request, by default all time."""
    start, end = params.time_ms("start", MIN_TIME_MS), params.time_ms("end", MAX_TIME_MS)
    if end < start:
        raise bad_parameter("end", "end timestamp must not be before start time")
    return start, end
