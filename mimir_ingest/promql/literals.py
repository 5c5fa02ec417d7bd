"""Numbers, durations and strings of PromQL: from their text to their value, and back to text.

Everything follows Go's `strconv` and Prometheus's `model.Duration`, in values, in error texts and in formatting.
"""

from __future__ import annotations

import math
import re

from mimir_ingest.model.labels import go_quote

_NS = {
    "y": 365 * 86_400_000_000_000,
    "w": 7 * 86_400_000_000_000,
    "d": 86_400_000_000_000,
    "h": 3_600_000_000_000,
    "m": 60_000_000_000,
    "s": 1_000_000_000,
    "ms": 1_000_000,
}
_UNIT_ORDER = {unit: place for place, unit in enumerate(_NS)}
_DURATION_PART = re.compile(r"([0-9]+)([^0-9]+)")
_PLAIN_DURATION = re.compile(r"([0-9]{1,4})(ms|[smhdw])")
_UNDERSCORES = re.compile(r"(?:0[xX]_?)?[0-9a-fA-F]+(?:_[0-9a-fA-F]+)*")
_FLOAT = re.compile(r"[0-9_]*\.?[0-9_]*(?:[eE][+-]?[0-9_]+)?")
_SPECIAL = {"inf": math.inf, "nan": math.nan}
INT64_MIN, INT64_MAX = -(1 << 63), (1 << 63) - 1


class LiteralError(ValueError):
    """A literal that the lexer let through and that has no value; the text is the reason."""


def parse_number(text: str) -> float:
    """Return the value of a number token. `LiteralError` with Go's text if it has none.

    A whole number with a prefix is hexadecimal (`0x`) or octal (`0`); what does not fit 64 bits, and everything else,
    is read as a float.
    """
    if text.isdigit() and text[0] != "0" and len(text) < 16:
        return float(text)
    special = _SPECIAL.get(text.lower())
    if special is not None:
        return special
    whole = _parse_int(text)
    if whole is not None:
        return float(whole)
    plain = text.replace("_", "")
    if not _FLOAT.fullmatch(text) or not _underscores_separate_digits(text):
        raise LiteralError(f"error parsing number: strconv.ParseFloat: parsing {go_quote(text)}: invalid syntax")
    try:
        value = float(plain)
    except ValueError:
        raise LiteralError(
            f"error parsing number: strconv.ParseFloat: parsing {go_quote(text)}: invalid syntax"
        ) from None
    if math.isinf(value):
        raise LiteralError(f"error parsing number: strconv.ParseFloat: parsing {go_quote(text)}: value out of range")
    return value


def _parse_int(text: str) -> int | None:
    if not _UNDERSCORES.fullmatch(text):
        return None
    plain, base = text.replace("_", ""), 10
    if plain[:2] in ("0x", "0X"):
        plain, base = plain[2:], 16
    elif plain[0] == "0" and len(plain) > 1:
        plain, base = plain[1:], 8
    if len(plain) > 4096:
        return None
    try:
        value = int(plain, base)
    except ValueError:
        return None
    return value if value <= INT64_MAX else None


def _underscores_separate_digits(text: str) -> bool:
    at = text.find("_")
    while at >= 0:
        if not (0 < at < len(text) - 1 and text[at - 1].isdigit() and text[at + 1].isdigit()):
            return False
        at = text.find("_", at + 1)
    return True


def parse_duration(text: str) -> int:
    """Return the nanoseconds of a duration such as `1h30m`. `LiteralError` with Prometheus's text if it has none."""
    plain = _PLAIN_DURATION.fullmatch(text)
    if plain:
        return int(plain[1]) * _NS[plain[2]]
    if text == "0":
        return 0
    if not text:
        raise LiteralError("empty duration string")
    total, last, at = 0, -1, 0
    while at < len(text):
        part = _DURATION_PART.match(text, at)
        if part is None or len(part[1]) > 4096 or int(part[1]) >= 1 << 64:
            raise LiteralError(f"not a valid duration string: {go_quote(text)}")
        unit = part[2]
        place = _UNIT_ORDER.get(unit)
        if place is None:
            raise LiteralError(f"unknown unit {go_quote(unit)} in duration {go_quote(text)}")
        if place <= last:
            raise LiteralError(f"not a valid duration string: {go_quote(text)}")
        amount = int(part[1])
        total += amount * _NS[unit]
        if amount > (1 << 63) // _NS[unit] or total > INT64_MAX:
            raise LiteralError("duration out of range")
        last, at = place, part.end()
    return total


def seconds(duration_ns: int) -> float:
    """Return a duration in seconds, rounded as Go's `Duration.Seconds` does."""
    return float(duration_ns // 1_000_000_000) + float(duration_ns % 1_000_000_000) / 1e9


def seconds_to_ns(value: float) -> int:
    """Return seconds as whole nanoseconds, half away from zero; what does not fit becomes the least int64 (amd64)."""
    return go_int64(go_round(value * 1e9))


def go_round(value: float) -> float:
    """Round half away from zero, as Go's `math.Round`."""
    if not math.isfinite(value) or abs(value) >= 4503599627370496.0:
        return value
    whole = math.trunc(value)
    return whole + math.copysign(1.0, value) if abs(value - whole) >= 0.5 else float(whole)


def go_int64(value: float) -> int:
    """Convert as Go on amd64 does: truncate, the least int64 for everything that does not fit."""
    if math.isfinite(value):
        whole = int(value)
        if INT64_MIN <= whole <= INT64_MAX:
            return whole
    return INT64_MIN


def format_duration(duration_ns: int) -> str:
    """Print a duration as `model.Duration` does: `90d`, `1h30m`, `0s`. Years and weeks only if nothing remains."""
    ms = abs(duration_ns) // 1_000_000
    if not ms:
        return "0s"
    out = "-" if duration_ns < 0 else ""
    for unit, size_ns in _NS.items():
        size = size_ns // 1_000_000
        if unit in ("y", "w") and ms % size:
            continue
        if ms >= size:
            out += f"{ms // size}{unit}"
            ms %= size
    return out


_ESCAPE = re.compile(r"\\(?:([0-7]{3})|x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))", re.DOTALL)
_SIMPLE = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v"}


def _unescape(match: re.Match[str]) -> str:
    octal, byte, short, long, simple = match.groups()
    if simple is not None:
        return _SIMPLE.get(simple, simple)
    if octal or byte:
        return chr(int(octal, 8) if octal else int(byte, 16))
    return chr(int(short or long, 16)).encode().decode("latin-1")


def unquote(token: str) -> str:
    """Return the value of a string token that the lexer has accepted.

    Parameters
    ----------
    token : str
        The token with its quotes, one character a byte (Latin-1 view of UTF-8 text).

    Returns
    -------
    str
        The string; bytes that are not UTF-8 come out as lone surrogates.
    """
    body = token[1:-1]
    if token[0] != "`" and "\\" in body:
        body = _ESCAPE.sub(_unescape, body)
    return body if body.isascii() else decode_latin(body)


def decode_latin(text: str) -> str:
    """Return the text behind a Latin-1 view of UTF-8 bytes."""
    return text.encode("latin-1").decode("utf-8", "surrogateescape")
