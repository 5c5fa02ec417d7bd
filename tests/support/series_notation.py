"""The series notation of promqltest scripts: `name{a="b"} 1+2x3 _ stale {{schema:0 count:1}}`."""

from __future__ import annotations

import math
import re
import struct
from dataclasses import dataclass, field, replace

from mimir_ingest.promql.literals import LiteralError, parse_duration, parse_number
from mimir_ingest.promql.parser import parse_metric_selector

STALE_NAN = struct.unpack("<d", struct.pack("<Q", 0x7FF0000000000002))[0]
UNKNOWN_RESET, RESET, NOT_RESET, GAUGE = "unknown", "reset", "not_reset", "gauge"
_EPSILON = 1e-6
_MIN_NORMAL = 2.2250738585072014e-308

_METRIC = re.compile(
    r"""([A-Za-z_:][A-Za-z0-9_:]*)?(\{(?:[^"'`{}]|"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|`[^`]*`)*\})?(?=\s|$)"""
)
_ITEM = re.compile(r"(?:\{\{.*?\}\}|[^\s{])+")
_NUMBER = r"[+-]?(?:(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|[iI][nN][fF]|[nN][aA][nN])"
_FLOATS = re.compile(rf"(?P<base>stale|{_NUMBER})(?P<delta>[+-](?:{_NUMBER[5:]}))?(?:x(?P<times>[0-9]+))?")
_OMITTED = re.compile(r"_(?:x([0-9]+))?")
_HISTOGRAMS = re.compile(r"\{\{(.*?)\}\}(?:(?:([+-])\{\{(.*?)\}\})?x([0-9]+))?")
_FIELD = re.compile(r"(\w+):(\[[^]]*\]|\S+)")


class NotationError(ValueError):
    """A line that is not in the notation."""


@dataclass(frozen=True)
class HistogramValue:
    """A native histogram; buckets by absolute index, empty ones left out when compared."""

    schema: int = 0
    count: float = 0.0
    sum: float = 0.0
    zero_count: float = 0.0
    zero_threshold: float = 0.0
    positive: dict[int, float] = field(default_factory=dict)
    negative: dict[int, float] = field(default_factory=dict)
    custom_values: tuple[float, ...] = ()
    hint: str = UNKNOWN_RESET
    hint_set: bool = False
    """Whether the notation states the hint; only then it is compared."""

    def plus(self, other: HistogramValue, sign: float = 1.0) -> HistogramValue:
        """Return the sum (difference for sign -1), in the coarser of both resolutions."""
        if self.schema == -53 or other.schema == -53:
            if (self.schema, self.custom_values) != (other.schema, other.custom_values):
                raise NotationError("histograms with different custom buckets")
        elif self.schema > other.schema:
            raise NotationError(f"cannot merge from schema {other.schema} to {self.schema}")
        if self.zero_threshold != other.zero_threshold and other.count and self.count:
            raise NotationError("histograms with different zero thresholds")
        shift = other.schema - self.schema
        hints = {self.hint, other.hint}
        hint = self.hint if len(hints) == 1 else GAUGE if GAUGE in hints else UNKNOWN_RESET
        return replace(
            self,
            count=self.count + sign * other.count,
            sum=self.sum + sign * other.sum,
            zero_count=self.zero_count + sign * other.zero_count,
            positive=_merge(self.positive, other.positive, shift, sign),
            negative=_merge(self.negative, other.negative, shift, sign),
            hint=hint,
        )

    def matches(self, actual: HistogramValue) -> bool:
        """Whether `actual` is what this one, an expectation, asks for."""
        return (
            self.schema == actual.schema
            and almost_equal(self.count, actual.count)
            and almost_equal(self.sum, actual.sum)
            and (self.schema != -53 or self.custom_values == actual.custom_values)
            and self.zero_threshold == actual.zero_threshold
            and almost_equal(self.zero_count, actual.zero_count)
            and _buckets_match(self.positive, actual.positive)
            and _buckets_match(self.negative, actual.negative)
            and (not self.hint_set or self.hint == actual.hint)
        )


SeriesValue = float | HistogramValue | None
"""None: no sample."""


def _merge(base: dict[int, float], other: dict[int, float], shift: int, sign: float) -> dict[int, float]:
    merged = dict(base)
    for index, count in other.items():
        at = ((index - 1) >> shift) + 1 if shift else index
        merged[at] = merged.get(at, 0.0) + sign * count
    return merged


def _buckets_match(expected: dict[int, float], actual: dict[int, float]) -> bool:
    left = {index: count for index, count in expected.items() if count}
    right = {index: count for index, count in actual.items() if count}
    return left.keys() == right.keys() and all(almost_equal(count, right[i]) for i, count in left.items())


def is_stale(value: float) -> bool:
    """Whether the bits are the staleness marker."""
    return struct.pack("<d", value) == struct.pack("<Q", 0x7FF0000000000002)


def almost_equal(a: float, b: float) -> bool:
    """Compare as promqltest does: relative tolerance 1e-6, NaN equals NaN, the staleness marker only itself."""
    if is_stale(a) or is_stale(b):
        return is_stale(a) and is_stale(b)
    if a == b or (math.isnan(a) and math.isnan(b)):
        return True
    total, difference = abs(a) + abs(b), abs(a - b)
    if a == 0 or b == 0 or total < _MIN_NORMAL:
        return difference < _EPSILON * _MIN_NORMAL
    return difference / min(total, 1.7976931348623157e308) < _EPSILON


def parse_signed_number(text: str) -> float:
    """Parse a number with an optional sign. `LiteralError` if it is none."""
    if text[:1] in ("+", "-"):
        return -parse_number(text[1:]) if text[0] == "-" else parse_number(text[1:])
    return parse_number(text)


def parse_series(line: str) -> tuple[dict[str, str], list[SeriesValue]]:
    """Return labels (empty values left out) and values of a series line. `NotationError` if it is none."""
    line = line.strip()
    metric = _METRIC.match(line)
    if metric is None or not metric[0]:
        raise NotationError(f"no series in {line!r}")
    labels = {matcher.name: matcher.value for matcher in parse_metric_selector(metric[0]) if matcher.value}
    values: list[SeriesValue] = []
    for item in _ITEM.findall(line[metric.end() :]):
        values.extend(_parse_item(item))
    return labels, values


def _parse_item(item: str) -> list[SeriesValue]:
    omitted = _OMITTED.fullmatch(item)
    if omitted:
        return [None] * int(omitted[1] or 1)
    floats = _FLOATS.fullmatch(item)
    if floats:
        return _float_run(floats)
    histograms = _HISTOGRAMS.fullmatch(item)
    if histograms is None:
        raise NotationError(f"no value: {item!r}")
    base, operator, increment, times = histograms.groups()
    value = _parse_histogram(base)
    run: list[SeriesValue] = [value]
    step = _parse_histogram(increment) if increment is not None else None
    if step is not None:
        # As in Prometheus, the whole run takes the increment's answer to whether a hint was stated.
        value = run[0] = replace(value, hint_set=step.hint_set)
    for _ in range(int(times or 0)):
        if step is not None:
            value = value.plus(step, -1.0 if operator == "-" else 1.0)
        run.append(value)
    return run


def _float_run(match: re.Match[str]) -> list[SeriesValue]:
    base, delta, times = match["base"], match["delta"], match["times"]
    value = STALE_NAN if base == "stale" else parse_signed_number(base)
    if delta is not None and times is None:
        raise NotationError(f"increment without count: {match[0]!r}")
    step = parse_signed_number(delta) if delta is not None else None
    run: list[SeriesValue] = [value]
    for _ in range(int(times or 0)):
        if step is not None:
            value += step
        run.append(value)
    return run


def _parse_histogram(text: str) -> HistogramValue:
    fields = dict(_FIELD.findall(text))
    if _FIELD.sub("", text).strip():
        raise NotationError(f"no histogram: {text!r}")

    def numbers(name: str) -> list[float]:
        return [parse_signed_number(part) for part in fields.pop(name, "[]").strip("[]").split()]

    def number(name: str) -> float:
        return parse_signed_number(fields.pop(name, "0"))

    schema = int(fields.pop("schema", "0"))
    # The first bucket of an exponential histogram has index `offset`, and so has a custom one.
    positive, negative = numbers("buckets"), numbers("n_buckets")
    positive_offset, negative_offset = int(fields.pop("offset", "0")), int(fields.pop("n_offset", "0"))
    hint = fields.pop("counter_reset_hint", None)
    value = HistogramValue(
        schema=schema,
        count=number("count"),
        sum=number("sum"),
        zero_count=number("z_bucket"),
        zero_threshold=number("z_bucket_w"),
        positive={positive_offset + i: count for i, count in enumerate(positive)},
        negative={negative_offset + i: count for i, count in enumerate(negative)},
        custom_values=tuple(numbers("custom_values")),
        hint=hint or UNKNOWN_RESET,
        hint_set=hint is not None,
    )
    if fields:
        raise NotationError(f"unknown histogram keys {sorted(fields)}")
    return value


_START_ITEM = re.compile(r"([+-]?[0-9]+[a-wyz]*)(?:([+-])([+-]?[0-9]+[a-wyz]*))?(?:x([0-9]+))?")


def parse_start_offsets(text: str) -> list[int | None]:
    """Parse the values of an `@st` line: offsets (ms) from each sample's time to its start, None for none."""
    out: list[int | None] = []
    for item in text.split():
        omitted = _OMITTED.fullmatch(item)
        if omitted:
            out.extend([None] * int(omitted[1] or 1))
            continue
        match = _START_ITEM.fullmatch(item)
        if match is None:
            raise NotationError(f"no start offset: {item!r}")
        base, sign, delta, times = match.groups()
        step = _offset_ms(delta) * (-1 if sign == "-" else 1) if delta else 0
        out.extend(_offset_ms(base) + i * step for i in range(int(times or 0) + 1))
    return out


def _offset_ms(text: str) -> int:
    sign = -1 if text[0] == "-" else 1
    return sign * (parse_duration(text.lstrip("+-")) // 1_000_000)


__all__ = [
    "HistogramValue",
    "LiteralError",
    "NotationError",
    "SeriesValue",
    "almost_equal",
    "parse_series",
    "parse_signed_number",
    "parse_start_offsets",
]
