"""The error of a query that cannot be read, with its position."""

from __future__ import annotations

import re

from mimir_ingest.errors import QueryError

_SURROGATE = re.compile("[\ud800-\udfff]")


def line_column(query: bytes, at: int) -> str:
    """Return `line:column` of a byte position, both from 1, columns in bytes (Prometheus `posrange.StartPosInput`)."""
    if not query:
        return "unknown position"
    if not 0 <= at <= len(query):
        return "invalid position"
    return f"{query.count(10, 0, at) + 1}:{at - query.rfind(10, 0, at)}"


class ParseError(QueryError):
    """A syntax or type error of a query: `<line>:<column>: parse error: <reason>`, errorType `bad_data`."""

    def __init__(self, query: bytes, at: int, reason: str) -> None:
        reason = _SURROGATE.sub("\ufffd", reason)
        super().__init__(f"{line_column(query, at)}: parse error: {reason}", error_type="bad_data")
        self.reason = reason
        self.at = at
