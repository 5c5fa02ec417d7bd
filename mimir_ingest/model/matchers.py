"""Label matchers, evaluated over a label's dictionary of values and never one call a value.

Regular expressions are RE2, anchored at both ends, with `.` matching newline, as in Prometheus.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import re2

from mimir_ingest.model.labels import go_quote
from mimir_ingest.model.spans import Check, even_spans


class MatchType(enum.StrEnum):
    """Operators of a matcher, as PromQL writes them."""

    EQUAL = "="
    NOT_EQUAL = "!="
    REGEXP = "=~"
    NOT_REGEXP = "!~"


def _options(*, one_line: bool) -> re2.Options:
    options = re2.Options()
    options.log_errors = False
    options.dot_nl = one_line
    options.never_nl = not one_line
    options.one_line = False
    return options


_KEPT = 128
"""Compiled expressions. why: one of a hundred alternatives takes 0.6 MB once it has matched, and compiling it is a
small part of matching."""
_SURROGATE = re.compile("[\ud800-\udfff]")
_LITERAL = re.compile(r"[^\\.+*?()\[\]{}^$]*")
_NOTHING = r"[^\x{0}-\x{10FFFF}]"
_PART_VALUES = 1 << 14
"""Values that are matched at a time. why: some milliseconds, and a megabyte of text."""
_WHOLE_TEXT = re.compile(r"\\[QAz]|\(\?[a-zA-Z]*-?[a-zA-Z]*m")
"""What means something else in a pattern that runs over many values at once."""


@lru_cache(maxsize=_KEPT)
def _compile_full(pattern: str) -> re2._Regexp:
    # A byte that is no UTF-8, a lone surrogate here, is in no label value.
    return re2.compile(_SURROGATE.sub(lambda _: _NOTHING, pattern), _options(one_line=True))


@lru_cache(maxsize=_KEPT)
def _compile_scan(pattern: str) -> re2._Regexp:
    return re2.compile(f"(?m)^(?:{pattern})$", _options(one_line=False))


_GO_REASONS = {
    "missing ]": "missing closing ]",
    "missing )": "missing closing )",
    "trailing \\": "trailing backslash at end of expression",
    "no argument for repetition operator": "missing argument to repetition operator",
    "invalid repetition size": "invalid repeat count",
    "bad repetition operator": "invalid nested repetition operator",
    "invalid perl operator": "invalid or unsupported Perl syntax",
    "invalid named capture group": "invalid named capture",
    "pattern too large - compile failed": "expression too large",
}
"""RE2's reasons where Go's `regexp/syntax` words them differently."""


_REPEAT = re.compile(r"(\{([0-9]+)(?:,([0-9]*))?\})\??$")
_MAX_REPEAT = 1000
_AT_THE_END = ("missing ]", "missing )", "trailing \\")
"""RE2's reasons that only the end of a pattern gives."""


@lru_cache(maxsize=1024)
def check_regexp(pattern: str) -> str | None:
    """Return the reason why a pattern does not compile, in the words of Go's `regexp`, or None.

    Lone surrogates stand for bytes that are no UTF-8; such a pattern is valid only without metacharacters.
    """
    odd = _SURROGATE.search(pattern)
    if odd is not None and _LITERAL.fullmatch(pattern):
        return None
    stop = odd.start() if odd is not None else len(pattern)
    any_byte = _find_any_byte(pattern[:stop])
    if any_byte >= 0:
        stop = any_byte
    found = _compile_error(pattern[:stop])
    if found is not None and (stop == len(pattern) or found[0] not in _AT_THE_END):
        reason, part = found
        if reason == "unexpected )":
            part = pattern
    elif any_byte >= 0:
        reason, part = "invalid escape sequence", r"\C"
    elif odd is not None:
        reason, part = "invalid UTF-8", pattern[stop:]
    else:
        return None
    return f"error parsing regexp: {_GO_REASONS.get(reason, reason)}: `{part}`"


def _compile_error(pattern: str) -> tuple[str, str] | None:
    """Return RE2's reason and the part of the pattern it names."""
    try:
        re2.compile(pattern, _options(one_line=True))
    except re2.error as error:
        text = error.args[0]
        reason, _, part = (text.decode() if isinstance(text, bytes) else str(text)).partition(": ")
        repeat = _REPEAT.search(part) if "repetition" in reason else None
        if repeat and not int(repeat[2]) <= int(repeat[3] or _MAX_REPEAT) <= _MAX_REPEAT:
            return "invalid repetition size", repeat[1]
        return reason, part
    return None


def _find_any_byte(pattern: str) -> int:
    r"""Return where `\C` stands outside `\Q…\E`, or -1. RE2 takes it for any byte; Go's `regexp` does not have it."""
    at = pattern.find("\\")
    while 0 <= at < len(pattern) - 1:
        escaped = pattern[at + 1]
        if escaped == "C":
            return at
        if escaped == "Q":
            end = pattern.find(r"\E", at)
            if end < 0:
                return -1
            at = end
        at = pattern.find("\\", at + 2)
    return -1


@dataclass(frozen=True, slots=True)
class Matcher:
    """One condition on a label; an absent label has the value ""."""

    type: MatchType
    name: str
    value: str

    def __str__(self) -> str:
        return f"{self.name}{self.type}{go_quote(self.value)}"

    @property
    def negative(self) -> bool:
        """Whether the condition is `!=` or `!~`."""
        return self.type in (MatchType.NOT_EQUAL, MatchType.NOT_REGEXP)

    def in_utf8(self) -> Matcher:
        """Return an equivalent condition without lone surrogates in its value, for messages that hold text only."""
        if not _SURROGATE.search(self.value):
            return self
        literal = self.type in (MatchType.EQUAL, MatchType.NOT_EQUAL)
        pattern = _NOTHING if literal else _SURROGATE.sub(lambda _: _NOTHING, self.value)
        return Matcher(MatchType.NOT_REGEXP if self.negative else MatchType.REGEXP, self.name, pattern)

    def matches(self, value: str) -> bool:
        """Whether one value satisfies the condition."""
        if self.type in (MatchType.EQUAL, MatchType.NOT_EQUAL):
            return (value == self.value) != self.negative
        return (_compile_full(self.value).fullmatch(value) is not None) != self.negative

    @property
    def matches_empty(self) -> bool:
        """Whether a series without the label satisfies the condition."""
        return self.matches("")

    def match_all(self, values: Sequence[str], check: Check | None = None) -> np.ndarray:
        """Return bool[len(values)]: which of a dictionary's values satisfy the condition.

        `check` is called between parts of the work.
        """
        parts = [self._match_part(values[first:last]) for first, last in even_spans(len(values), _PART_VALUES, check)]
        return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, bool), *parts])

    def _match_part(self, values: Sequence[str]) -> np.ndarray:
        """Return the same, in one scan."""
        if self.type in (MatchType.EQUAL, MatchType.NOT_EQUAL):
            hit = np.fromiter((v == self.value for v in values), bool, len(values))
            return ~hit if self.negative else hit
        if len(values) < 16 or _WHOLE_TEXT.search(self.value) or _SURROGATE.search(self.value):
            return np.fromiter((self.matches(v) for v in values), bool, len(values))
        hit = np.zeros(len(values), bool)
        encoded = [v.encode("utf-8", "surrogateescape") for v in values]
        odd = [i for i, v in enumerate(encoded) if b"\n" in v]
        for i in odd:
            encoded[i] = b""
        ends = np.cumsum([len(v) + 1 for v in encoded])
        starts = ends - np.array([len(v) + 1 for v in encoded])
        found = [m.start() for m in _compile_scan(self.value).finditer(b"\n".join(encoded))]
        hit[np.searchsorted(starts, np.array(found, np.int64))] = True
        if odd or any(not v for v in encoded):
            full = _compile_full(self.value)
            for i in [*odd, *(i for i, v in enumerate(encoded) if not v)]:
                hit[i] = full.fullmatch(values[i]) is not None
        return ~hit if self.negative else hit
