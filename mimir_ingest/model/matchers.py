"""Label matchers, evaluated over a label's dictionary of values and never one call a value.

Regular expressions are RE2, anchored at both ends, with `.` matching newline, as in Prometheus.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import re2

from mimir_ingest.model.labels import go_quote


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


@lru_cache(maxsize=1024)
def _compile_full(pattern: str) -> re2._Regexp:
    return re2.compile(f"^(?s:{pattern})$", _options(one_line=True))


@lru_cache(maxsize=1024)
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


@lru_cache(maxsize=1024)
def check_regexp(pattern: str) -> str | None:
    """Return the reason why a pattern does not compile, in the words of Go's `regexp`, or None."""
    try:
        pattern.encode()
        re2.compile(pattern, _options(one_line=True))
    except UnicodeEncodeError:
        return f"error parsing regexp: invalid UTF-8: `{pattern}`"
    except re2.error as error:
        text = error.args[0]
        reason, colon, part = (text.decode() if isinstance(text, bytes) else str(text)).partition(": ")
        return f"error parsing regexp: {_GO_REASONS.get(reason, reason)}" + (f": `{part}`" if colon else "")
    return None


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

    def matches(self, value: str) -> bool:
        """Whether one value satisfies the condition."""
        if self.type in (MatchType.EQUAL, MatchType.NOT_EQUAL):
            return (value == self.value) != self.negative
        return (_compile_full(self.value).fullmatch(value) is not None) != self.negative

    @property
    def matches_empty(self) -> bool:
        """Whether a series without the label satisfies the condition."""
        return self.matches("")

    def match_all(self, values: Sequence[str]) -> np.ndarray:
        """Return bool[len(values)]: which of a dictionary's values satisfy the condition, in one scan."""
        if self.type in (MatchType.EQUAL, MatchType.NOT_EQUAL):
            hit = np.fromiter((v == self.value for v in values), bool, len(values))
            return ~hit if self.negative else hit
        if len(values) < 16:
            return np.fromiter((self.matches(v) for v in values), bool, len(values))
        hit = np.zeros(len(values), bool)
        encoded = [v.encode() for v in values]
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
