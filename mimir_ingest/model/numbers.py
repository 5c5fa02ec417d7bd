"""Numbers as Go and Prometheus write them: shortest digits that read back as the same float64.

One decimal form, and per use the sizes at which it gives way to an exponent. Source: Go `strconv.FormatFloat`,
Prometheus `util/jsonutil` (spec http-api.md 6.4).
"""

from __future__ import annotations

import math

import numpy as np
import orjson

from mimir_ingest.kernels.matrix_json import find_unusual

_NEVER = 1 << 20
"""A power of ten that no float64 reaches."""


def format_value(value: float) -> str:
    """Return a sample's value as the query API does: an exponent below 1e-6 and from 1e21 on."""
    return _format(value, -6, 21)


def format_plain(value: float) -> str:
    """Return `strconv.FormatFloat(value, 'f', -1, 64)`: never an exponent."""
    return _format(value, -_NEVER, _NEVER)


def format_general(value: float) -> str:
    """Return `fmt.Sprintf("%g", value)`: an exponent below 1e-4 and from 1e6 on."""
    return _format(value, -4, 6)


def format_default(value: float) -> str:
    """Return `fmt.Sprint(value)` of Go: an exponent below 1e-4 and from 1e21 on."""
    return _format(value, -4, 21)


def _format(value: float, lowest: int, highest: int) -> str:
    """Return the digits, in plain notation where `10**lowest <= abs(value) < 10**highest`."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    sign = "-" if math.copysign(1.0, value) < 0 else ""
    if value == 0:
        return f"{sign}0"
    mantissa, _, exponent = repr(abs(value)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    significant = (whole + fraction).lstrip("0")
    # The value is 0.<digits> * 10**point.
    point = int(exponent or 0) + len(whole) - (len(whole + fraction) - len(significant))
    digits = significant.rstrip("0")
    if not lowest <= point - 1 < highest:
        rest = f".{digits[1:]}" if len(digits) > 1 else ""
        return f"{sign}{digits[0]}{rest}e{'-' if point < 1 else '+'}{abs(point - 1):02d}"
    if point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    if len(digits) <= point:
        return sign + digits.ljust(point, "0")
    return f"{sign}{digits[:point]}.{digits[point:]}"


def print_values(values: np.ndarray) -> tuple[bytes, np.ndarray]:
    """Return (the numbers of float64[n] with commas between, int64[k]: which of them `format_value` writes otherwise).

    The JSON library prints shortest digits, in plain notation between 1e-4 and 1e15, and always a fraction: `.0` is to
    be taken off.
    """
    values = np.ascontiguousarray(values)
    others = np.empty(len(values), np.int64)
    texts = orjson.dumps(values, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1]
    return texts, others[: find_unusual(values, others)]


def format_values(values: np.ndarray) -> list[str]:
    """Return the `format_value` of each of float64[n]."""
    if not len(values):
        return []
    printed, others = print_values(values)
    texts = printed.decode().split(",")
    for i in others.tolist():
        texts[i] = format_value(float(values[i]))
    return [t[:-2] if t.endswith(".0") else t for t in texts]


def format_time(ms: int) -> str:
    """Return milliseconds as seconds: an integer if whole, else exactly three decimals."""
    sign, ms = ("-", -ms) if ms < 0 else ("", ms)
    seconds, rest = divmod(ms, 1000)
    return f"{sign}{seconds}.{rest:03d}" if rest else f"{sign}{seconds}"
