"""Numbers in label values: what OpenMetrics writes and what Go reads."""

from __future__ import annotations

import math
import re

from mimir_ingest.model.numbers import format_general

_SPECIAL = re.compile(r"([+-]?)(?:inf|infinity)|nan", re.ASCII | re.IGNORECASE)
_DIGITS, _HEX_DIGITS = r"\d+(?:_\d+)*", "[0-9a-fA-F]+(?:_[0-9a-fA-F]+)*"
_DECIMAL = re.compile(rf"[+-]?(?:{_DIGITS}(?:\.(?:{_DIGITS})?)?|\.{_DIGITS})(?:[eE][+-]?{_DIGITS})?", re.ASCII)
_HEX = re.compile(
    rf"[+-]?0[xX](?:_?{_HEX_DIGITS}(?:\.(?:{_HEX_DIGITS})?)?|\.{_HEX_DIGITS})[pP][+-]?{_DIGITS}", re.ASCII
)


def format_open_metrics(value: float) -> str:
    """Return a number as OpenMetrics writes the value of a label: with a decimal point if it is whole."""
    if not math.isfinite(value):
        return format_general(value)
    if value in (0.0, 1.0, -1.0):
        return {0.0: "0.0", 1.0: "1.0", -1.0: "-1.0"}[value]
    text = format_general(value)
    return text if any(c in text for c in "e.") else text + ".0"


def format_fixed(value: float) -> str:
    """Return a number as Go's `%f` prints it."""
    return f"{value:f}" if math.isfinite(value) else format_general(value)


def parse_float(text: str) -> float | None:
    """Return `strconv.ParseFloat(text, 64)`, None where that fails."""
    special = _SPECIAL.fullmatch(text)
    if special is not None:
        return {None: math.nan, "-": -math.inf}.get(special[1], math.inf)
    plain = text.replace("_", "")
    try:
        if _DECIMAL.fullmatch(text):
            value = float(plain)
        elif _HEX.fullmatch(text):
            value = float.fromhex(plain)
        else:
            return None
    except OverflowError:
        return None
    return None if math.isinf(value) else value
