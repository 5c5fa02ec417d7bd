r"""PromQL text to tokens, in the states of Prometheus's lexer (`promql/parser/lex.go`, 3.14), error texts included.

The text is handled as a Latin-1 view of its UTF-8 bytes: one character is one byte, so every position is a byte
position. A token is `(kind, position, text)`; `kind` is the canonical word of a keyword, operator or bracket, or one of
the constants below.

States: *plain*; *braces* (`{…}`: names, strings and matching operators only); *bracket start* (after `[`: a duration
expression, no comments); *bracket* (after the first number in `[…]`: plain, but no words except `step range max_of
min_of`, and `:` stands alone).

A token is lexed when the parser looks at it and not before, because the first error, of lexer or parser, is the answer.
"""

from __future__ import annotations

import re

from mimir_ingest.promql.functions_table import AGGREGATIONS
from mimir_ingest.promql.literals import decode_latin
from mimir_ingest.promql.parse_error import ParseError
from mimir_ingest.promql.quoting import quote, quote_rune, rune_name

IDENTIFIER, METRIC_IDENTIFIER, NUMBER = "identifier", "metric identifier", "number"
DURATION, STRING, END = "duration", "string", "end of input"

Token = tuple[str, int, str]

_FILLS = frozenset(("fill", "fill_left", "fill_right"))
MODIFIERS = _FILLS | {"offset", "smoothed", "anchored", "by", "without", "on", "ignoring", "bool"}
MODIFIERS |= {"group_left", "group_right"}
WORD_OPERATORS = frozenset(("and", "or", "unless", "atan2"))
DURATION_KEYWORDS = frozenset(("step", "range", "max_of", "min_of"))
PREPROCESSORS = DURATION_KEYWORDS | {"start", "end"}
SYMBOL_OPERATORS = frozenset(
    ("+", "-", "*", "/", "%", "^", "==", "!=", "<=", "<", ">=", ">", "</", ">/", "=~", "!~", "@")
)

_KEYWORDS = {w: w for w in MODIFIERS | WORD_OPERATORS | PREPROCESSORS | AGGREGATIONS} | {"inf": NUMBER, "nan": NUMBER}

_SKIP = re.compile(r"(?:[ \t\n\r]++|#[^\r\n]*+)*+")
_SPACES = re.compile(r"[ \t\n\r]*+")
_WORD = re.compile(r"[A-Za-z_:][A-Za-z0-9_:]*+")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*+")
_LETTERS = re.compile(r"[A-Za-z_]++")
_SYMBOL = re.compile(r"==|!=|<[=/]?|>[=/]?|[-+*/%^,@]")
_PLAIN_NUMBER = re.compile(r"[0-9]++(?:\.[0-9]++)?+(?![0-9A-Za-z_.])")
_PLAIN_DURATION = re.compile(r"[0-9]++[smhdwy]s?+(?:[0-9]++[smhdw]s?+)*+(?![0-9A-Za-z_])")
_REST_OF_DURATION = re.compile(r"[smhdwy]s?+(?:[0-9]++[smhdw]s?+)*+(?![0-9A-Za-z_])")
_PARTIAL_DURATION = re.compile(r"[smhdwy]s?+(?:[0-9]++[smhdw]s?+)*+[0-9]*+")
_PLAIN_STRING = re.compile(r"\"[^\"\\\n\x80-\xff]*+\"|'[^'\\\n\x80-\xff]*+'|`[^`\x80-\xff]*+`")
_DIGITS = re.compile(r"[0-9]*+")
_HEX_DIGITS = re.compile(r"[0-9a-fA-F]*+")
_ALNUM = frozenset("0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz")
_HEX = frozenset("0123456789abcdefABCDEF")
_DIGIT_SET = frozenset("0123456789")
_EOF = -1


class Lexer:
    """Tokens of one query, one at a time. `ParseError` where Prometheus's lexer has an error."""

    __slots__ = (
        "at",
        "brace_open",
        "bracket_open",
        "bracket_start",
        "depth",
        "got_colon",
        "got_duration",
        "query",
        "text",
    )

    def __init__(self, query: bytes) -> None:
        self.query = query
        self.text = query.decode("latin-1")
        self.at = 0
        self.depth = 0
        self.brace_open = self.bracket_open = self.bracket_start = self.got_colon = self.got_duration = False

    def fail(self, at: int, reason: str) -> ParseError:
        """Return the error to raise for a position."""
        return ParseError(self.query, at, reason)

    def next(self) -> Token:
        """Return the next token; at the end `(END, len, "")`."""
        if self.bracket_start:
            return self._in_bracket_start()
        start = _SKIP.match(self.text, self.at).end()  # type: ignore[union-attr]  # matches the empty string
        self.at = start
        if self.brace_open:
            return self._in_braces(start)
        char = self.text[start : start + 1]
        if not self.bracket_open:
            word = _WORD.match(self.text, start)
            if word:
                return self._word(start, word[0])
        symbol = _SYMBOL.match(self.text, start)
        if symbol:
            self.at = symbol.end()
            return symbol[0], start, symbol[0]
        if char in _DIGIT_SET or (char == "." and self.text[start + 1 : start + 2] in _DIGIT_SET):
            return self._number(start)
        if char and char in "\"'`":
            return self._string(start)
        return self._bracket_or_rest(start, char)

    def _word(self, start: int, word: str) -> Token:
        self.at = start + len(word)
        kind = _KEYWORDS.get(word.lower())
        if kind is None:
            return (METRIC_IDENTIFIER if ":" in word else IDENTIFIER), start, word
        if kind in _FILLS:
            after = _SPACES.match(self.text, self.at).end()  # type: ignore[union-attr]  # matches the empty string
            if self.text[after : after + 1] != "(":
                kind = IDENTIFIER
        return kind, start, word

    def _bracket_or_rest(self, start: int, char: str) -> Token:
        self.at = after = start + 1
        match char:
            case "(":
                self.depth += 1
            case ")":
                self._close_paren()
            case "{":
                self.brace_open = True
            case "[":
                if self.bracket_open:
                    raise self.fail(start, "unexpected left bracket '['")
                self.got_colon = False
                self.bracket_open = self.bracket_start = True
            case "]":
                if not self.bracket_open:
                    raise self.fail(start, "unexpected right bracket ']'")
                self.bracket_open = False
            case "=":
                if self.text[after : after + 1] == "~":
                    raise self.fail(start, "unexpected character after '=': '~'")
            case "!":
                raise self.fail(start, f"unexpected character after '!': {quote_rune(self._rune(after)[0])}")
            case "":
                return self._end(start)
            case _:
                return self._word_in_bracket(start, char)
        return char, start, char

    def _end(self, start: int) -> Token:
        self.at = start
        if self.depth:
            raise self.fail(start, "unclosed left parenthesis")
        if self.bracket_open:
            raise self.fail(start, "unclosed left bracket")
        return END, start, ""

    def _word_in_bracket(self, start: int, char: str) -> Token:
        if not self.bracket_open or not (char == ":" or char in _ALNUM):
            raise self.fail(start, f"unexpected character: {quote_rune(self._rune(start)[0])}")
        if char == ":":
            if self.got_colon:
                raise self.fail(start, "unexpected colon ':'")
            self.got_colon = True
            return ":", start, ":"
        return self._duration_keyword(start) or self._reject(
            start, f"unexpected character: {quote_rune(ord(char))}, expected ':'"
        )

    def _reject(self, at: int, reason: str) -> Token:
        raise self.fail(at, reason)

    def _duration_keyword(self, start: int) -> Token | None:
        word = _LETTERS.match(self.text, start)
        if word is None or word[0].lower() not in DURATION_KEYWORDS:
            return None
        self.at = word.end()
        return word[0].lower(), start, word[0]

    def _close_paren(self) -> None:
        self.depth -= 1
        if self.depth < 0:
            raise self.fail(self.at, "unexpected right parenthesis ')'")

    def _in_bracket_start(self) -> Token:
        start = _SPACES.match(self.text, self.at).end()  # type: ignore[union-attr]  # matches the empty string
        char = self.text[start : start + 1]
        self.at = start + 1
        match char:
            case "":
                raise self.fail(start, "unexpected end of input in duration expression")
            case "]":
                self.bracket_open = self.bracket_start = self.got_colon = False
            case ":":
                if not self.got_duration:
                    raise self.fail(self.at, "unexpected colon before duration in duration expression")
                if self.got_colon:
                    raise self.fail(self.at, "unexpected repeated colon in duration expression")
                self.got_colon = True
            case "(":
                self.depth += 1
            case ")":
                self._close_paren()
            case "+" | "-" | "*" | "/" | "%" | "^" | ",":
                pass
            case _:
                if char in _DIGIT_SET or (char == "." and self.text[start + 1 : start + 2] in _DIGIT_SET):
                    self.got_duration = True
                    self.bracket_start = False
                    return self._number(start)
                return self._duration_keyword(start) or self._reject(
                    start, f"unexpected character in duration expression: {quote_rune(self._rune(start)[0])}"
                )
        return char, start, char

    def _in_braces(self, start: int) -> Token:
        text = self.text
        name = _NAME.match(text, start)
        if name:
            self.at = name.end()
            return IDENTIFIER, start, name[0]
        char = text[start : start + 1]
        two = text[start : start + 2]
        if two in ("=~", "!~", "!="):
            self.at = start + 2
            return two, start, two
        self.at = start + 1
        match char:
            case "":
                raise self.fail(start, "unexpected end of input inside braces")
            case "}":
                self.brace_open = False
            case "," | "=":
                pass
            case '"' | "'" | "`":
                return self._string(start)
            case "!":
                rune = quote_rune(self._rune(start + 1)[0])
                raise self.fail(start, f"unexpected character after '!' inside braces: {rune}")
            case "{":
                raise self.fail(start, "unexpected left brace '{'")
            case _:
                rune = quote_rune(self._rune(start)[0])
                raise self.fail(start, f"unexpected character inside braces: {rune}")
        return char, start, char

    def _number(self, start: int) -> Token:
        plain = _PLAIN_NUMBER.match(self.text, start)
        if plain:
            self.at = plain.end()
            return NUMBER, start, plain[0]
        duration = _PLAIN_DURATION.match(self.text, start)
        if duration:
            self.at = duration.end()
            return DURATION, start, duration[0]
        good, at = self._scan_number(start)
        if good:
            self.at = at
            return NUMBER, start, self.text[start:at]
        rest = _REST_OF_DURATION.match(self.text, at)
        if rest:
            self.at = rest.end()
            return DURATION, start, self.text[start : self.at]
        # The offending text goes as far as the scan for a duration came, and one character on if that was a bad end.
        partial = _PARTIAL_DURATION.match(self.text, at)
        if partial:
            at = partial.end()
            if not self.text[at - 1].isdigit():
                at = min(at + 1, len(self.text))
        raise self.fail(start, f"bad number or duration syntax: {quote(decode_latin(self.text[start:at]))}")

    def _scan_number(self, at: int) -> tuple[bool, int]:
        """Return whether a number stands here, and the position after what was read of it."""
        text, digits = self.text, _DIGITS
        if text[at : at + 1] == "0":
            at += 1
            if text[at : at + 1] in ("x", "X"):
                at += 1
                at += text[at : at + 1] == "_"
                digits = _HEX_DIGITS
        allowed = _HEX if digits is _HEX_DIGITS else _DIGIT_SET
        at += text[at : at + 1] == "."
        at += text[at : at + 1] in allowed
        dot_seen = exponent_seen = False
        while at < len(text) and (text[at] in allowed or text[at] in "._eE"):
            char = text[at]
            # In hexadecimal numbers `e` is a digit to the scanner's eye too, but the exponent is asked for first.
            if (char == "." and dot_seen) or (char in "eE" and exponent_seen):
                return False, at + 1
            if char == ".":
                dot_seen = True
                at += 1
                if text[at : at + 1] in ("_", "."):
                    return False, at + 1
                if digits is _HEX_DIGITS:
                    return False, at
            elif char in "eE":
                exponent_seen = True
                at += 1
                at += text[at : at + 1] in ("+", "-")
                if at >= len(text):
                    return False, at
                if text[at] in "._eE":
                    return False, at + 1
            elif char == "_":
                at += 1
                if at >= len(text):
                    return False, at
                if text[at] in "._eE":
                    return False, at + 1
            else:
                at = digits.match(text, at).end()  # type: ignore[union-attr]  # matches the empty string
        return text[at : at + 1] not in _ALNUM, at

    def _rune(self, at: int) -> tuple[int, int]:
        """Return the code point at a byte position and its width: (U+FFFD, 1) if not UTF-8, (-1, 0) at the end."""
        if at >= len(self.query):
            return _EOF, 0
        first = self.query[at]
        if first < 0x80:
            return first, 1
        width = 2 if first < 0xE0 else 3 if first < 0xF0 else 4
        try:
            return ord(self.query[at : at + width].decode()), width
        except (UnicodeDecodeError, TypeError):
            return 0xFFFD, 1

    def _string(self, start: int) -> Token:
        plain = _PLAIN_STRING.match(self.text, start)
        if plain:
            self.at = plain.end()
            return STRING, start, plain[0]
        closing, at = self.query[start], start + 1
        raw = closing == 0x60
        while True:
            rune, width = self._rune(at)
            at += width
            if rune == closing:
                self.at = at
                return STRING, start, self.text[start:at]
            if rune == _EOF or (rune == 10 and not raw):
                raise self.fail(start, "unterminated raw string" if raw else "unterminated quoted string")
            if rune == 0xFFFD:
                raise self.fail(start, "invalid UTF-8 rune")
            if rune == 0x5C and not raw:
                at = self._escape(start, at, closing)

    def _escape(self, start: int, at: int, closing: int) -> int:
        """Check the escape sequence after a backslash; return the position after it."""
        rune, width = self._rune(at)
        if rune == _EOF:
            raise self.fail(start, "escape sequence not terminated")
        at += width
        char = chr(rune)
        if rune == closing or char in "abfnrtv\\":
            return at
        if char in "01234567":
            at -= 1
        count, base, limit = {"x": (2, 16, 255), "u": (4, 16, 0x10FFFF), "U": (8, 16, 0x10FFFF)}.get(char, (3, 8, 255))
        if char not in "01234567xuU":
            raise self.fail(start, f"unknown escape sequence {rune_name(rune)}")
        value = 0
        for _ in range(count):
            rune, width = self._rune(at)
            if rune == _EOF:
                raise self.fail(start, "escape sequence not terminated")
            digit = int(chr(rune), 16) if rune < 0x80 and chr(rune) in _HEX else 16
            if digit >= base:
                raise self.fail(start, f"illegal character {rune_name(rune)} in escape sequence")
            value = value * base + digit
            at += width
        if value > limit or 0xD800 <= value < 0xE000:
            raise self.fail(start, "escape sequence is an invalid Unicode code point")
        return at


def describe(token: Token) -> str:
    """Return how error texts call a token."""
    kind, _, text = token
    if kind == END:
        return END
    text = decode_latin(text)
    if kind in (IDENTIFIER, METRIC_IDENTIFIER):
        return f"{kind} {quote(text)}"
    if kind in MODIFIERS:
        return f"<{text}>"
    if kind in SYMBOL_OPERATORS or kind in WORD_OPERATORS:
        return f"<op:{text}>"
    if kind in AGGREGATIONS:
        return f"<aggr:{text}>"
    shown = f"{quote(text[:10])}..." if len(token[2]) > 10 else quote(text)
    return f"{kind} {shown}" if kind in (NUMBER, DURATION, STRING) else shown
