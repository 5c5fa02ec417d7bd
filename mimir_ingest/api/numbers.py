"""Numbers as Prometheus's JSON writes them (spec http-api.md 6.4)."""

from __future__ import annotations

import math

import numpy as np
import orjson


def format_value(value: float) -> str:
    """Return the shortest decimal that reads back as `value`, in Go's `%f`-or-`%e` choice of the Prometheus API."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    digits, _, exponent = repr(abs(value)).partition("e")
    sign = "-" if math.copysign(1.0, value) < 0 else ""
    whole, _, fraction = digits.partition(".")
    fraction = "" if fraction == "0" else fraction
    if value == 0:
        return f"{sign}0"
    # As integer digits and a power of ten, then in the notation that the size asks for.
    significant = (whole + fraction).lstrip("0")
    power = int(exponent or 0) - len(fraction)
    trimmed = significant.rstrip("0")
    power += len(significant) - len(trimmed)
    if abs(value) < 1e-6 or abs(value) >= 1e21:
        scientific = power + len(trimmed) - 1
        mantissa = trimmed[0] + (f".{trimmed[1:]}" if len(trimmed) > 1 else "")
        return f"{sign}{mantissa}e{'-' if scientific < 0 else '+'}{abs(scientific):02d}"
    if power >= 0:
        return sign + trimmed + "0" * power
    point = len(trimmed) + power
    if point > 0:
        return f"{sign}{trimmed[:point]}.{trimmed[point:]}"
    return f"{sign}0.{'0' * -point}{trimmed}"


def format_values(values: np.ndarray) -> list[str]:
    """Return the text of each of float64[n].

    The JSON library prints shortest digits, in plain notation between 1e-4 and 1e15; the rest goes through
    `format_value`.
    """
    if not len(values):
        return []
    texts = orjson.dumps(np.ascontiguousarray(values), option=orjson.OPT_SERIALIZE_NUMPY)[1:-1].decode().split(",")
    size = np.abs(values)
    plain = (size >= 1e-4) & (size < 1e15)
    if not plain.all():
        for i in np.flatnonzero(~plain).tolist():
            texts[i] = format_value(float(values[i]))
    return [t[:-2] if t.endswith(".0") else t for t in texts]


def format_time(ms: int) -> str:
    """Return milliseconds as seconds: an integer if whole, else exactly three decimals."""
    sign, ms = ("-", -ms) if ms < 0 else ("", ms)
    seconds, rest = divmod(ms, 1000)
    return f"{sign}{seconds}.{rest:03d}" if rest else f"{sign}{seconds}"
