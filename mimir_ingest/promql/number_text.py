"""Numbers in label values: what OpenMetrics writes and what Go reads."""

from __future__ import annotations

import math
import re

from mimir_ingest.model.numbers import format_general

_SPECIAL = {"inf": math.inf, "infinity": math.inf, "nan": math.nan}
_DECIMAL = re.compile(r"[+-]?(\d+(_\d+)*\.?(\d+(_\d+)*)?|\.\d+(_\d+)*)([eE][+-]?\d+)?", re.ASCII)
_HEX = re.compile(r"[+-]?0[xX]_?([0-9a-fA-F_]*\.?[0-9a-fA-F_]*)[pP][+-]?\d+", re.ASCII)


def format_open_metrics(value: float) -> str:
    """Return a number as OpenMetrics writes the value of a label: with a decimal point if it is whole."""
    if not math.isfinite(value):
        return format_general(value)
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
