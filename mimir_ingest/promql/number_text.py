"""Numbers as Go writes them: labels of `count_values`, quantile labels, annotation texts."""

from __future__ import annotations

import math
import re
from decimal import Decimal

_SPECIAL = {"inf": math.inf, "infinity": math.inf, "nan": math.nan}
_DECIMAL = re.compile(r"[+-]?(\d+(_\d+)*\.?(\d+(_\d+)*)?|\.\d+(_\d+)*)([eE][+-]?\d+)?", re.ASCII)
_HEX = re.compile(r"[+-]?0[xX]_?([0-9a-fA-F_]*\.?[0-9a-fA-F_]*)[pP][+-]?\d+", re.ASCII)


def _special(value: float) -> str | None:
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return None


def format_plain(value: float) -> str:
    """Return `strconv.FormatFloat(value, 'f', -1, 64)`: shortest digits, never an exponent."""
    special = _special(value)
    if special:
        return special
    text = format(Decimal(repr(value)), "f")
    return text.removesuffix(".0")


def format_general(value: float) -> str:
    """Return `fmt.Sprintf("%g", value)`: shortest digits, with an exponent below 1e-4 and from 1e6 on."""
    special = _special(value)
    if special:
        return special
    sign, digits, exponent = Decimal(repr(value)).as_tuple()
    text = "".join(map(str, digits)).rstrip("0") or "0"
    point = len(digits) + int(exponent)
    if value == 0:
        return "-0" if sign else "0"
    if -4 <= point - 1 < 6:
        return format_plain(value)
    mantissa = text[0] + ("." + text[1:] if len(text) > 1 else "")
    power = point - 1
    return f"{'-' if sign else ''}{mantissa}e{'-' if power < 0 else '+'}{abs(power):02d}"


def format_open_metrics(value: float) -> str:
    """Return a number as OpenMetrics writes the value of a label: with a decimal point if it is whole."""
    special = _special(value)
    if special:
        return special
    if value in (0.0, 1.0, -1.0):
        return {0.0: "0.0", 1.0: "1.0", -1.0: "-1.0"}[value]
    text = format_general(value)
    return text if any(c in text for c in "e.") else text + ".0"


def parse_float(text: str) -> float | None:
    """Return `strconv.ParseFloat(text, 64)`, None where that fails."""
    unsigned = text[1:] if text[:1] in ("+", "-") else text
    if unsigned.lower() in _SPECIAL:
        value = _SPECIAL[unsigned.lower()]
        return -value if text[0] == "-" else value
    try:
        if _DECIMAL.fullmatch(text) and "_" not in text:
            value = float(text)
        elif _HEX.fullmatch(text):
            value = float.fromhex(text.replace("_", ""))
        else:
            return None
    except (ValueError, OverflowError):
        return None
    return None if math.isinf(value) else value
