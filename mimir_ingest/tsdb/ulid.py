"""ULIDs: 48 bits of milliseconds and 80 bits of entropy as 26 characters of Crockford's base 32.

Source: github.com/ulid/spec; block directories are named by them.
"""

from __future__ import annotations

_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_VALUE = {char: value for value, char in enumerate(_ALPHABET)}
MAX_TIME_MS = (1 << 48) - 1


def format_ulid(time_ms: int, entropy: bytes) -> str:
    """Return the ULID of a time (ms since the Unix epoch, clamped to 48 bits) and ten bytes of entropy."""
    if len(entropy) != 10:
        raise ValueError(f"a ULID has 10 bytes of entropy, not {len(entropy)}")
    number = min(max(time_ms, 0), MAX_TIME_MS) << 80 | int.from_bytes(entropy, "big")
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))


def parse_ulid(text: str) -> tuple[int, bytes]:
    """Return (time in ms, entropy) of a ULID in upper case; `ValueError` if it is none."""
    if len(text) != 26 or any(char not in _VALUE for char in text) or text[0] > "7":
        raise ValueError(f"not a ULID: {text!r}")
    number = 0
    for char in text:
        number = number << 5 | _VALUE[char]
    return number >> 80, (number & ((1 << 80) - 1)).to_bytes(10, "big")


def is_ulid(text: str) -> bool:
    """Whether `text` is a ULID in upper case."""
    try:
        parse_ulid(text)
    except ValueError:
        return False
    return True
