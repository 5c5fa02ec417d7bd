"""What Go's `regexp` does with a match and RE2's Python binding does not: fill templates in."""

from __future__ import annotations

import re

import re2

_SURROGATE = re.compile("[\ud800-\udfff]")
_REFERENCE = re.compile(r"\$(?:\$|\{([\w]+)\}|(\w+))")


def compile_anchored(pattern: str) -> re2._Regexp:
    """Compile `^(?s:pattern)$`. Raises re2.error, UnicodeEncodeError."""
    options = re2.Options()
    options.log_errors = False
    options.dot_nl = True
    return re2.compile(f"^(?s:{pattern})$", options)


def full_match(regexp: re2._Regexp, value: str) -> re2._Match | None:
    """Match a whole value; a byte that is no UTF-8, a lone surrogate here, is U+FFFD to Go's regular expressions."""
    return regexp.fullmatch(_SURROGATE.sub("\ufffd", value))


def expand(regexp: re2._Regexp, match: re2._Match, template: str) -> str:
    """Return a template with the groups of a match filled in, as Go's `Regexp.Expand` does.

    `$1`, `$name`, `${1}`, `${name}`, `$$`; a group that is not there or took no part is empty.
    """
    names = regexp.groupindex

    def group(reference: re.Match[str]) -> str:
        if reference.group() == "$$":
            return "$"
        name = reference.group(1) or reference.group(2)
        if name.isascii() and name.isdigit():
            index = int(name)
            return (match.group(index) or "") if index <= regexp.groups else ""
        return (match.group(name) or "") if name in names else ""

    return _REFERENCE.sub(group, template)
