"""One connection of a listener: uvicorn's protocol with the bounds that Go's HTTP server has.

A client may not take memory or a connection without end: not by headers that grow, chunks without data, trailers, nor
by sending or reading slowly. Source: Go `net/http`, whose defaults and time-outs Mimir's keys set.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 1 << 20
"""Request line and headers together, as in Go; 431 over it. Also what may come between two pieces of a body."""
MAX_HEADERS = 1000
"""why: a header costs 300 bytes here, so that the bytes alone would let one request take 80 MB."""

_HELD_BYTES = 4096
"""why: heads of answers are shorter; holding more would save nothing beside sending it."""
_WISHES_A_READ = 100
"""Requests with an `Upgrade` within one read from the socket; 400 over it, since each is read twice."""
_FAREWELL_S = 1.0
"""why: closing TLS waits 30 s for the client's farewell, and one that keeps a connection idle does not look."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionLimits:
    """Bounds of every connection of a listener; 0 is none."""

    read_timeout_s: float = 0.0
    """From a request's first byte, or the connection's beginning, to the end of its body."""
    read_header_timeout_s: float = 0.0
    """The same, to the end of its headers."""
    write_timeout_s: float = 0.0
    """From a request's headers to the end of its answer."""
    connections: int = 0
    """Connections open at a time."""


class JoinedWrites:
    """A transport whose short writes wait for what follows them, so that head and body leave in one system call.

    They wait until the event loop's next round at most.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._held = b""

    def write(self, data: bytes) -> None:
        """Send what was held together with `data`, or hold it if it is the first and short."""
        if self._held:
            held, self._held = self._held, b""
            self._transport.writelines((held, data))
        elif len(data) <= _HELD_BYTES:
            self._held = data
            self._loop.call_soon(self.flush)
        else:
            self._transport.write(data)

    def flush(self) -> None:
        """Send what is held, unless the connection has gone meanwhile."""
        held, self._held = self._held, b""
        if held and not self._transport.is_closing():
            self._transport.write(held)

    def is_closing(self) -> bool:
        """As the transport says."""
        return self._transport.is_closing()

    def close(self) -> None:
        """Send what is held, then close."""
        self.flush()
        self._transport.close()


class Connection(HttpToolsProtocol):
    """uvicorn makes one for each connection; `limits` is set by `connection_class`."""

    limits = ConnectionLimits()

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_head = True
        self._outside_body = 0
        self._deadline: asyncio.TimerHandle | None = None
        self._write_deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, or refuse where too many are open."""
        super().connection_made(transport)
        self._answers = JoinedWrites(transport, self.loop)
        if 0 < self.limits.connections < len(self.connections):
            self._refuse(b"503 Service Unavailable", b"too many connections")
            return
        self._arm_read(self.limits.read_header_timeout_s or self.limits.read_timeout_s)

    def connection_lost(self, exc: Exception | None) -> None:
        """End; no timer outlives the connection."""
        self._disarm_read()
        self._disarm_write()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what the client sent."""
        for _ in range(_WISHES_A_READ):
            if self.parser is None or self.transport.is_closing():
                return
            self._outside_body += len(data)
            self._unset_keepalive_if_required()
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                data = self._without_upgrade() + data[upgrade.args[0] :]
            except httptools.HttpParserError:
                break
            else:
                if self._outside_body > MAX_HEAD_BYTES:
                    self._refuse(b"431 Request Header Fields Too Large", b"request headers too large")
                return
        self._refuse(b"400 Bad Request", b"400 Bad Request")

    def _without_upgrade(self) -> bytes:
        """Return a request's head without its wish for another protocol, which is not heard, as in Go.

        CONNECT is nothing but such a wish, and gives what no parser takes. The parser has taken the request's body for
        that other protocol; read as the next request it would be one that nobody sent. So the request is read again.
        """
        method, version = self.parser.get_method(), self.parser.get_http_version().encode()
        self.parser = httptools.HttpRequestParser(self)
        if method == b"CONNECT":
            return b"\0"
        kept = b"".join(b"%s: %s\r\n" % header for header in self.headers if header[0] != b"upgrade")
        return b"%s %s HTTP/%s\r\n%s\r\n" % (method, self.url, version, kept)

    def on_message_begin(self) -> None:
        """Begin a request's headers."""
        super().on_message_begin()
        self._in_head = True
        limits = self.limits
        self._arm_read(limits.read_header_timeout_s or limits.read_timeout_s)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; trailers are not headers."""
        if not self._in_head:
            return
        super().on_header(name, value)
        if len(self.headers) > MAX_HEADERS:
            self._refuse(b"431 Request Header Fields Too Large", b"too many request headers")

    def on_headers_complete(self) -> None:
        """Hand the request to the application."""
        self._in_head = False
        self._outside_body = 0
        if self.transport.is_closing() or self.parser.should_upgrade():
            return
        limits = self.limits
        if limits.read_header_timeout_s:
            self._arm_read(limits.read_timeout_s)
        if self.cycle is None or self.cycle.response_complete:
            self._arm_write()
        super().on_headers_complete()
        self.cycle.transport = self._answers  # type: ignore[assignment]

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        self._outside_body = 0
        if not self.transport.is_closing():
            super().on_body(body)

    def on_message_complete(self) -> None:
        """Nothing more is expected of the client until its next request."""
        if self.parser.should_upgrade():
            return
        self._in_head = True
        self._outside_body = 0
        self._disarm_read()
        if not self.transport.is_closing():
            super().on_message_complete()

    def on_response_complete(self) -> None:
        """The answer was written; the next one of a pipeline begins."""
        self._answers.flush()
        if self.pipeline:
            self._arm_write()
        elif self.transport.get_write_buffer_size() == 0:  # else the client still has to read it in time
            self._disarm_write()
        super().on_response_complete()

    def shutdown(self) -> None:
        """Close an idle connection; over TLS not every client answers to that."""
        super().shutdown()
        if self.transport.is_closing():
            self.loop.call_later(_FAREWELL_S, self._end_farewell)

    def _end_farewell(self) -> None:
        if self.transport.get_write_buffer_size() == 0:
            self.transport.abort()

    def _arm_read(self, seconds: float) -> None:
        self._disarm_read()
        if seconds:
            self._deadline = self.loop.call_later(seconds, self._too_slow)

    def _disarm_read(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _arm_write(self) -> None:
        self._disarm_write()
        if self.limits.write_timeout_s:
            self._write_deadline = self.loop.call_later(self.limits.write_timeout_s, self._answer_overdue)

    def _disarm_write(self) -> None:
        if self._write_deadline is not None:
            self._write_deadline.cancel()
            self._write_deadline = None

    def _too_slow(self) -> None:
        """Close at once, without an answer, as Go does: it could not be read in time either."""
        self.transport.abort()

    def _answer_overdue(self) -> None:
        if not self.cycle.response_complete or self.transport.get_write_buffer_size():
            self._too_slow()

    def _refuse(self, status: bytes, message: bytes) -> None:
        """Answer for the application and close; nothing is answered in the middle of another answer."""
        if self.transport.is_closing():
            return
        self._answers.flush()
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            head = b"HTTP/1.1 %s\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\n" % (
                status,
                len(message) + 1,
            )
            self.transport.write(head + b"connection: close\r\n\r\n" + message + b"\n")
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()


def connection_class(limits: ConnectionLimits) -> type[Connection]:
    """Return the class of connections with these limits, as uvicorn wants it."""
    return type("LimitedConnection", (Connection,), {"limits": limits})
