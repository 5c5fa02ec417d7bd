"""Go's quoted forms of strings and characters, as PromQL prints them and error texts show them."""

from __future__ import annotations

import re

from mimir_ingest.model.labels import go_quote, is_printable

_LEGACY_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def quote(text: str) -> str:
    r"""Quote as Go's `strconv.Quote`; lone surrogates that stand for bytes print as `\xff`."""
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    try:
        text.encode()
    except UnicodeEncodeError:
        return f'"{"".join(map(_escape_char, text))}"'
    return go_quote(text)


def quote_name(label: str) -> str:
    """Return a label name as it stands in expressions and label sets: quoted unless it is a legacy name."""
    return label if _LEGACY_NAME.fullmatch(label) else quote(label)


def _escape_char(char: str) -> str:
    return f"\\x{ord(char) - 0xDC00:02x}" if "\udc80" <= char <= "\udcff" else go_quote(char)[1:-1]


def quote_rune(rune: int) -> str:
    """Quote one character as Go's `%q` does for a rune; a negative one (end of input) shows as U+FFFD."""
    if rune < 0:
        rune = 0xFFFD
    char = chr(rune)
    if char == "'":
        return r"'\''"
    if char == '"':
        return "'\"'"
    return f"'{quote(char)[1:-1]}'"


def rune_name(rune: int) -> str:
    """Name one character as Go's `%#U` does: `U+0063 'c'`."""
    char = chr(rune)
    return f"U+{rune:04X} '{char}'" if is_printable(char) else f"U+{rune:04X}"
