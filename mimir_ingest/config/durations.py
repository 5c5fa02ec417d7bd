"""Durations and byte sizes as people write them in flags and YAML.

Durations are whole nanoseconds within int64, as in Go's `time.Duration`: `1h30m`, `1.5s`, `100us`, `-2s`, `0`. Tenant
limits take Prometheus's form too: `1d`, `2w`, `1y` (units descending, each once, whole numbers). Printing is Go's
(`1h30m0s`, `1.5s`, `0s`), so that a configuration printed here can be read by Mimir and the other way round.

Byte sizes are whole numbers, with Go's base prefixes and underscores (`0x10`, `1_000`), or with a unit:
`64KiB`, `16MB`.
"""

from __future__ import annotations

import re

_MAX = (1 << 63) - 1
_UNITS = {
    "ns": 1,
    "us": 1_000,
    "µs": 1_000,
    "μs": 1_000,
    "ms": 1_000_000,
    "s": 1_000_000_000,
    "m": 60_000_000_000,
    "h": 3_600_000_000_000,
}
_DAY = 24 * _UNITS["h"]
_TERM = re.compile(r"([0-9]*)(?:\.([0-9]*))?(ns|us|µs|μs|ms|s|m|h)")
_PROMETHEUS = re.compile(
    r"(?:([0-9]+)y)?(?:([0-9]+)w)?(?:([0-9]+)d)?(?:([0-9]+)h)?(?:([0-9]+)m)?(?:([0-9]+)s)?(?:([0-9]+)ms)?"
)
_PROMETHEUS_NS = (365 * _DAY, 7 * _DAY, _DAY, _UNITS["h"], _UNITS["m"], _UNITS["s"], _UNITS["ms"])
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*([kmgt]i?b?|b)", re.IGNORECASE)
_GO_INT = re.compile(r"[+-]?(?:0[xX](?:_?[0-9a-fA-F])+|0[bB](?:_?[01])+|0[oO]?(?:_?[0-7])+|0|[1-9](?:_?[0-9])*)")


class Duration(int):
    """A duration in whole nanoseconds, with its other units spelt out at the point of use."""

    __slots__ = ()

    @property
    def seconds(self) -> float:
        """The duration in seconds."""
        return int(self) / 1e9

    @property
    def ms(self) -> int:
        """The duration in whole milliseconds, rounded toward zero."""
        return _toward_zero(int(self), 1_000_000)

    def __str__(self) -> str:
        return format_duration(int(self))

    def __repr__(self) -> str:
        return f"Duration({format_duration(int(self))})"


def _toward_zero(value: int, divisor: int) -> int:
    return value // divisor if value >= 0 else -(-value // divisor)


def parse_go_duration(text: str) -> Duration:
    """Read Go's form. Raises ValueError with Go's three messages (invalid, missing unit, unknown unit).

    Source: Go `time.ParseDuration`. Fractions are truncated to nanoseconds term by term, as there.
    """
    body, negative = text, False
    if body[:1] in ("-", "+"):
        negative, body = body[0] == "-", body[1:]
    if body == "0":
        return Duration(0)
    if not body:
        raise ValueError(f'invalid duration "{text}"')
    total, position = 0, 0
    while position < len(body):
        match = _TERM.match(body, position)
        if match is None or (not match[1] and not match[2]):
            raise ValueError(_explain(text, body[position:]))
        unit = _UNITS[match[3]]
        whole, fraction = match[1], match[2] or ""
        end = match.end()
        if end < len(body) and not (body[end].isascii() and (body[end].isdigit() or body[end] == ".")):
            raise ValueError(_explain(text, body[position:]))
        if whole and int(whole) > 1 << 63:
            raise ValueError(f'invalid duration "{text}"')
        total += int(whole or "0") * unit + _fraction(fraction, unit)
        if total > 1 << 63:
            raise ValueError(f'invalid duration "{text}"')
        position = end
    if negative:
        return Duration(-total)
    if total > _MAX:
        raise ValueError(f'invalid duration "{text}"')
    return Duration(total)


def _fraction(digits: str, unit: int) -> int:
    """Return `0.digits` units in nanoseconds: digits past int64 are dropped, the product goes through a float64."""
    value, scale = 0, 1.0
    for digit in digits:
        grown = value * 10 + int(digit)
        if grown > _MAX:
            break
        value, scale = grown, scale * 10
    return int(float(value) * (float(unit) / scale)) if value else 0


def _explain(text: str, rest: str) -> str:
    number = re.match(r"[0-9]*\.?[0-9]*", rest)
    digits = number[0] if number else ""
    if not digits.strip("."):
        return f'invalid duration "{text}"'
    unit = re.match(r"[^0-9.]*", rest[len(digits) :])[0]  # type: ignore[index]
    if not unit:
        return f'missing unit in duration "{text}"'
    return f'unknown unit "{unit}" in duration "{text}"'


def parse_prometheus_duration(text: str) -> Duration:
    """Read Prometheus's form (`1d12h`, `2w`, `0`). Raises ValueError.

    Source: prometheus/common `model.ParseDuration`.
    """
    if text == "0":
        return Duration(0)
    match = _PROMETHEUS.fullmatch(text) if text else None
    if match is None or not text.isascii():
        raise ValueError(f'not a valid duration string: "{text}"')
    total = sum(int(part) * ns for part, ns in zip(match.groups(), _PROMETHEUS_NS, strict=True) if part)
    if total > _MAX:
        raise ValueError(f'duration out of range: "{text}"')
    return Duration(total)


def parse_limit_duration(text: str) -> Duration:
    """Read a tenant limit's duration: Prometheus's form, else Go's. Raises ValueError."""
    try:
        return parse_prometheus_duration(text)
    except ValueError:
        return parse_go_duration(text)


def format_duration(ns: int) -> str:
    """Print nanoseconds as Go's `Duration.String` does."""
    if ns == 0:
        return "0s"
    sign, rest = ("-", -ns) if ns < 0 else ("", ns)
    for unit, size in (("ns", 1), ("µs", 1_000), ("ms", 1_000_000)):
        if rest < size * 1_000 and rest < 1_000_000_000:
            return sign + _decimal(rest, size) + unit
    minutes, below = divmod(rest, _UNITS["m"])
    text = _decimal(below, _UNITS["s"]) + "s"
    if minutes:
        hours, minutes = divmod(minutes, 60)
        text = f"{minutes}m{text}"
        if hours:
            text = f"{hours}h{text}"
    return sign + text


def _decimal(value: int, size: int) -> str:
    whole, fraction = divmod(value, size)
    if not fraction:
        return str(whole)
    width = len(str(size)) - 1
    return f"{whole}.{fraction:0{width}d}".rstrip("0")


def parse_int(text: str) -> int:
    """Read a whole number as Go's flag package does (base prefixes, underscores), or a byte size. Raises ValueError."""
    if _GO_INT.fullmatch(text):
        digits = text.lstrip("+-").replace("_", "").lower()
        octal = len(digits) > 1 and digits[0] == "0" and digits[1].isdigit()
        value = int(digits, 8) if octal else int(digits, 0)
        value = -value if text.startswith("-") else value
    else:
        value = parse_byte_size(text)
    if not -(1 << 63) <= value <= (1 << 64) - 1:
        raise ValueError(f'"{text}" is out of range')
    return value


def parse_byte_size(text: str) -> int:
    """Read a size in bytes: `1048576`, `16MB` (10^6), `64KiB` (2^10). Raises ValueError."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f'"{text}" is not a whole number')
    unit = match[2].lower()
    base = 1024 if "i" in unit else 1000
    power = " kmgt".index(unit[0]) if unit[0] in "kmgt" else 0
    whole, _, fraction = match[1].partition(".")
    scale = base**power
    return int(whole) * scale + (int(fraction) * scale // 10 ** len(fraction) if fraction else 0)
