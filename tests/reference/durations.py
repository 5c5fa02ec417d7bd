"""Go's duration grammar, read one character at a time, as the language's documentation states it."""

from __future__ import annotations

UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}


def parse(text: str) -> int | None:
    """Return nanoseconds, or None for text that is no duration."""
    sign = 1
    rest = list(text)
    if rest and rest[0] in "+-":
        sign = -1 if rest.pop(0) == "-" else 1
    if "".join(rest) == "0":
        return 0
    if not rest:
        return None
    total = 0
    while rest:
        whole, digits_seen = 0, 0
        while rest and rest[0] in "0123456789":
            whole, digits_seen = whole * 10 + int(rest.pop(0)), digits_seen + 1
            if whole > 2**63:
                return None
        fraction, scale, full = 0, 1.0, False
        if rest and rest[0] == ".":
            rest.pop(0)
            while rest and rest[0] in "0123456789":
                digit = int(rest.pop(0))
                digits_seen += 1
                full = full or fraction * 10 + digit >= 2**63
                if not full:
                    fraction, scale = fraction * 10 + digit, scale * 10
        if not digits_seen:
            return None
        unit = ""
        while rest and rest[0] not in ".0123456789":
            unit += rest.pop(0)
        if unit not in UNITS:
            return None
        total += whole * UNITS[unit]
        if fraction:
            total += int(float(fraction) * (float(UNITS[unit]) / scale))
        if total > 2**63:
            return None
    if sign < 0:
        return -total
    return total if total < 2**63 else None


def show(ns: int) -> str:
    """Print as Go does, with exact decimal arithmetic on strings."""
    if ns == 0:
        return "0s"
    sign, ns = ("-", -ns) if ns < 0 else ("", ns)

    def scaled(value: int, places: int) -> str:
        text = str(value).rjust(places + 1, "0")
        whole, decimals = (text[:-places], text[-places:].rstrip("0")) if places else (text, "")
        return f"{whole}.{decimals}" if decimals else whole

    if ns < 10**9:
        unit, places = ("ns", 0) if ns < 10**3 else ("µs", 3) if ns < 10**6 else ("ms", 6)
        return sign + scaled(ns, places) + unit
    out = scaled(ns % (60 * 10**9), 9) + "s"
    if ns >= 60 * 10**9:
        out = f"{ns // (60 * 10**9) % 60}m{out}"
    if ns >= 3600 * 10**9:
        out = f"{ns // (3600 * 10**9)}h{out}"
    return sign + out
