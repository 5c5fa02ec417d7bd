"""Errors as HTTP answers in Mimir's text form (spec: http api 1.5 a), and the `Retry-After` hint of writes.

The edge reads only the four attributes that every error of both trees has; no class is named here but their roots.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any

from mimir_ingest.distributor.rate_limit import retry_after_s
from mimir_ingest.errors import IngestError
from mimir_ingest.model.frozen import frozen
from partitions.errors import PartitionError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

CLIENT_CLOSED_REQUEST = 499
"""Status for a client that went away; nobody sees it but logs and metrics."""


@frozen
class Answer:
    """A whole HTTP response."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = ()

    async def send(self, send: Send, *, more_headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
        """Send it, with its length."""
        headers: Headers = [*self.headers, *more_headers, (b"content-length", b"%d" % len(self.body))]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})


def first_header(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> str:
    """Return the first header of a lower-case name, "" if there is none."""
    for found, value in headers:
        if found == name:
            return value.decode("latin-1")
    return ""


_TEXT = ((b"content-type", b"text/plain; charset=utf-8"), (b"x-content-type-options", b"nosniff"))


def text_answer(status: int, message: str) -> Answer:
    """Return a text error: the message and a newline."""
    return Answer(status, message.encode("utf-8", "replace") + b"\n", _TEXT)


NOT_FOUND = text_answer(404, "404 page not found")
METHOD_NOT_ALLOWED = Answer(405)
"""Empty, as Mimir's router answers."""
EMPTY_OK = Answer(200)


def error_answer(error: IngestError | PartitionError) -> Answer:
    """Return the text answer for an error of either tree."""
    return text_answer(error.http_status, error.message)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryAfter:
    """`distributor.retry_after_header`: the hint on 429 and 5xx answers to writes."""

    enabled: bool = True
    min_backoff_s: float = 6.0
    max_backoff_s: float = 96.0

    def headers(self, status: int, attempt: bytes | None) -> tuple[tuple[bytes, bytes], ...]:
        """Return the header for a status, if it gets one; `attempt` is the request's `Retry-Attempt`."""
        if not self.enabled or (status != 429 and status < 500):
            return ()
        seconds = retry_after_s(
            attempt.decode("latin-1") if attempt else None,
            min_backoff_s=self.min_backoff_s,
            max_backoff_s=self.max_backoff_s,
            chance=random.random(),
        )
        return ((b"retry-after", b"%d" % seconds),)
