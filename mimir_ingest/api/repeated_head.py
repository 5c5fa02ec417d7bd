"""Heads of requests that differ from the one before in nothing but the target: what a client sends on one connection.

The first one is parsed; of the next ones only the request line is looked at, and whatever was worked out from their
headers is theirs as well. Only GET without a body; everything else, and every doubt, is the parser's. Pure.
"""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote

MOST_BYTES = 4096
"""Of a head to remember. why: it is kept as long as its connection."""

_LINE = re.compile(rb"GET (/[!\"$-~]*)")
"""The beginning of a request line: a path and query as httptools parts them, without a fragment."""
_VERSION = b" HTTP/1.1\r\n"
_END = b"\r\n\r\n"


class RepeatedHead:
    """The end of a head, from the HTTP version on, and what a scope has of it. It never changes."""

    __slots__ = ("_scope", "_size", "_tail")

    def __init__(self, tail: bytes, scope: dict[str, Any]) -> None:
        self._tail, self._scope = tail, scope
        self._size = len(tail)

    def scope_of(self, data: bytes) -> dict[str, Any] | None:
        """Return the scope of the request that `data` is, None if it is anything else than one with this head."""
        if not data.endswith(self._tail):
            return None
        found = _LINE.fullmatch(data, 0, len(data) - self._size)
        if found is None:
            return None
        path, _, query = found[1].partition(b"?")
        text = path.decode("ascii")
        scope = self._scope.copy()
        scope["path"] = unquote(text) if "%" in text else text
        scope["raw_path"], scope["query_string"] = path, query
        return scope


class HeaderFacts:
    """What was worked out from some headers, by who did; of a scope it holds while its headers are these."""

    __slots__ = ("facts", "headers")

    def __init__(self, headers: object) -> None:
        self.headers = headers
        self.facts: dict[object, Any] = {}


def facts_of(scope: dict[str, Any]) -> dict[object, Any]:
    """Return what was remembered of a scope's headers, to look up and to add to; what is added may be forgotten."""
    known = scope.get("header_facts")
    return known.facts if known is not None and known.headers is scope["headers"] else {}


def remember_head(data: bytes, scope: dict[str, Any]) -> RepeatedHead | None:
    """Return the head of the request `data`, parsed to `scope`, for those that follow; None if it is not so simple."""
    if len(data) > MOST_BYTES or scope["method"] != "GET" or scope["http_version"] != "1.1":
        return None
    line, version, rest = data.partition(_VERSION)
    if not version or not _LINE.fullmatch(line) or not data.endswith(_END) or data.find(_END) != len(data) - len(_END):
        return None
    headers = scope["headers"]
    kept = {name: scope[name] for name in ("type", "asgi", "http_version", "scheme", "method", "root_path")}
    return RepeatedHead(version + rest, {**kept, "headers": headers, "header_facts": HeaderFacts(headers)})
