"""One connection of a listener: HTTP/1.1 over httptools' parser, with the bounds that Go's HTTP server has.

A client may not take memory or a connection without end: not by headers that grow, chunks without data, trailers, nor
by sending or reading slowly. Source: Go `net/http`, whose defaults and time-outs Mimir's keys set.

Deadlines are numbers that the listener looks at now and then (`ListenerState.sweep`): a timer for each would be made
and cancelled six times a request, which is more than all else that a connection costs. A request that differs from the
one before in its target alone is not parsed again (`repeated_head`).
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any
from urllib.parse import unquote

import httptools

from mimir_ingest.api.errors import Application
from mimir_ingest.api.exchange import Exchange
from mimir_ingest.api.repeated_head import RepeatedHead, remember_head

MAX_HEAD_BYTES = 1 << 20
"""Request line and headers together, as in Go; 431 over it. Also what may come between two pieces of a body."""
MAX_HEADERS = 1000
"""why: a header costs 300 bytes here, so that the bytes alone would let one request take 80 MB."""

_WISHES_A_READ = 100
"""Requests with an `Upgrade` within one read from the socket; 400 over it, since each is read twice."""
_FAREWELL_S = 1.0
"""why: closing TLS waits 30 s for the client's farewell, and one that keeps a connection idle does not look."""
_NEVER = math.inf
_ASGI = {"version": "3.0", "spec_version": "2.3"}


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


class ListenerState:
    """What the connections of one listener share. Used from one event loop."""

    def __init__(self, application: Application, limits: ConnectionLimits, *, idle_timeout_s: float, tls: bool) -> None:
        self.application, self.limits, self.idle_timeout_s = application, limits, idle_timeout_s
        self.scheme = "https" if tls else "http"
        self.loop = asyncio.get_running_loop()
        self.connections: set[Connection] = set()
        self.running: set[Exchange] = set()
        """Exchanges whose application has not returned."""
        self.stopping = False
        self._second = 0
        self._date_line = b""

    def date_line(self) -> bytes:
        """Return the header `date` of now."""
        now = int(time.time())
        if now != self._second:
            self._second, self._date_line = now, b"date: %s\r\n" % formatdate(now, usegmt=True).encode()
        return self._date_line

    def sweep(self) -> None:
        """Close the connections whose time is over."""
        now = self.loop.time()
        for connection in list(self.connections):
            connection.check_deadlines(now)

    @property
    def sweep_interval_s(self) -> float:
        """How often to look, so that no time-out is overrun by more than a quarter or half a second."""
        limits = self.limits
        times = (self.idle_timeout_s, limits.read_timeout_s, limits.read_header_timeout_s, limits.write_timeout_s)
        return min(0.5, *(time / 4 for time in times if time > 0))


class Connection(asyncio.Protocol):
    """Reads requests, and has them answered one after another."""

    __slots__ = (
        "_answering",
        "_drained",
        "_expects_continue",
        "_headers",
        "_idle_by",
        "_in_head",
        "_outside_body",
        "_parser",
        "_pipeline",
        "_read_by",
        "_read_paused",
        "_reading",
        "_repeated",
        "_state",
        "_url",
        "_write_by",
        "transport",
        "write_paused",
    )

    transport: asyncio.Transport

    def __init__(self, state: ListenerState) -> None:
        self._state = state
        self._parser: httptools.HttpRequestParser | None = None
        self._url = b""
        self._headers: list[tuple[bytes, bytes]] = []
        self._expects_continue = False
        self._in_head = True
        self._outside_body = 0
        self._reading: Exchange | None = None
        """The exchange whose request was begun last."""
        self._answering: Exchange | None = None
        """The one that is being answered, or was last."""
        self._pipeline: deque[Exchange] | None = None
        """Those that wait until it has been."""
        self._repeated: RepeatedHead | None = None
        """Of the last request, if nothing has come since and the next one may be as simple."""
        self._read_by = self._write_by = self._idle_by = _NEVER
        self._read_paused = self.write_paused = False
        self._drained: asyncio.Future[None] | None = None

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, or refuse where too many are open."""
        self.transport = transport
        state = self._state
        state.connections.add(self)
        if state.stopping:
            transport.close()
        elif 0 < state.limits.connections < len(state.connections):
            self._refuse(b"503 Service Unavailable", b"too many connections")
        else:
            self._parser = self._new_parser()
            self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """End; whoever still works on an answer is told."""
        self._state.connections.discard(self)
        self._parser = None
        for exchange in (self._answering, *(self._pipeline or ())):
            if exchange is not None and not exchange.complete:
                exchange.leave()
        self.resume_writing()

    def pause_writing(self) -> None:
        """The client reads more slowly than its answer is written."""
        self.write_paused = True

    def resume_writing(self) -> None:
        """The client has caught up, or gone."""
        self.write_paused = False
        if self._drained is not None:
            drained, self._drained = self._drained, None
            drained.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Take what the client sent."""
        repeated = self._repeated
        if repeated is not None:
            scope = repeated.scope_of(data)
            if scope is not None and self._answer_again(scope):
                return
        candidate = data if self._in_head and not self._outside_body else None
        self._repeated = None
        self._parse(data)
        if candidate is not None and self._parser is not None:
            self._repeated = self._remembered(candidate)

    def _answer_again(self, scope: dict[str, Any]) -> bool:
        """Have a request answered whose headers are known; return False if it has to wait."""
        if self._parser is None or self.transport.is_closing():
            return True
        answering = self._answering
        if answering is not None and not answering.complete:
            return False
        self._idle_by = _NEVER
        exchange = self._reading = Exchange(self, scope, keep_alive=True, expects_continue=False, whole=True)
        self._answer(exchange)
        return True

    def _remembered(self, data: bytes) -> RepeatedHead | None:
        """Return the head that `data` was, if it was nothing but one, and simple."""
        exchange = self._reading
        if exchange is None or exchange.more_body or not exchange.keep_alive:
            return None
        if exchange.expects_continue or self._outside_body:
            return None
        return remember_head(data, exchange.scope)

    def _parse(self, data: bytes) -> None:
        for _ in range(_WISHES_A_READ):
            if self._parser is None or self.transport.is_closing():
                return
            self._outside_body += len(data)
            self._idle_by = _NEVER
            try:
                self._parser.feed_data(data)
            except httptools.HttpParserUpgrade as upgrade:
                data = self._without_upgrade() + data[upgrade.args[0] :]
            except httptools.HttpParserError:
                break
            else:
                if self._outside_body > MAX_HEAD_BYTES:
                    self._refuse(b"431 Request Header Fields Too Large", b"request headers too large")
                return
        self._refuse(b"400 Bad Request", b"400 Bad Request")

    # the parser

    def _new_parser(self) -> httptools.HttpRequestParser:
        parser = httptools.HttpRequestParser(self)
        # A request with `Connection: close` may be followed by others, which are thrown away.
        parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return parser

    def _without_upgrade(self) -> bytes:
        """Return a request's head without its wish for another protocol, which is not heard, as in Go.

        CONNECT is nothing but such a wish, and gives what no parser takes. The parser has taken the request's body for
        that other protocol; read as the next request it would be one that nobody sent. So the request is read again.
        """
        assert self._parser is not None
        method, version = self._parser.get_method(), self._parser.get_http_version().encode()
        self._parser = self._new_parser()
        if method == b"CONNECT":
            return b"\0"
        kept = b"".join(b"%s: %s\r\n" % header for header in self._headers if header[0] != b"upgrade")
        return b"%s %s HTTP/%s\r\n%s\r\n" % (method, self._url, version, kept)

    def on_message_begin(self) -> None:
        """Begin a request's headers."""
        self._url = b""
        self._headers = []
        self._in_head = True
        self._expects_continue = False
        self._expect_head()

    def on_url(self, url: bytes) -> None:
        """Take a piece of the request's target."""
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header; trailers are not headers."""
        if not self._in_head:
            return
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self._expects_continue = True
        self._headers.append((name, value))
        if len(self._headers) > MAX_HEADERS:
            self._refuse(b"431 Request Header Fields Too Large", b"too many request headers")

    def on_headers_complete(self) -> None:
        """Have the request answered, or keep it until those before it are."""
        self._in_head = False
        self._outside_body = 0
        parser, state = self._parser, self._state
        assert parser is not None
        if self.transport.is_closing() or parser.should_upgrade():
            return
        if state.limits.read_header_timeout_s:
            self._read_by = self._after(state.limits.read_timeout_s)
        version = parser.get_http_version()
        exchange = self._reading = Exchange(
            self,
            self._scope(parser, version),
            keep_alive=version != "1.0" and parser.should_keep_alive(),
            expects_continue=self._expects_continue,
        )
        if self._answering is None or self._answering.complete:
            self._answer(exchange)
            return
        self._pause_reading()
        if self._pipeline is None:
            self._pipeline = deque()
        self._pipeline.append(exchange)

    def _scope(self, parser: httptools.HttpRequestParser, version: str) -> dict[str, Any]:
        url = httptools.parse_url(self._url)
        path = url.path.decode("ascii")
        return {
            "type": "http",
            "asgi": _ASGI,
            "http_version": version,
            "scheme": self._state.scheme,
            "method": parser.get_method().decode("ascii"),
            "root_path": "",
            "path": unquote(path) if "%" in path else path,
            "raw_path": url.path,
            "query_string": url.query or b"",
            "headers": self._headers,
        }

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        self._outside_body = 0
        exchange = self._reading
        if exchange is None or exchange.complete or self.transport.is_closing():
            return
        if exchange.feed(body):
            self._pause_reading()

    def on_message_complete(self) -> None:
        """Nothing more is expected of the client until its next request."""
        assert self._parser is not None
        if self._parser.should_upgrade():
            return
        self._in_head = True
        self._outside_body = 0
        self._read_by = _NEVER
        if self._reading is not None and not self.transport.is_closing():
            self._reading.end_body()

    # answering

    def _answer(self, exchange: Exchange) -> None:
        self._answering = exchange
        state = self._state
        if state.limits.write_timeout_s:
            self._write_by = self._after(state.limits.write_timeout_s)
        exchange.task = state.loop.create_task(exchange.run(state.application, state.running))

    def answered(self) -> None:
        """The answer was written; the next one of a pipeline begins."""
        if self.transport.get_write_buffer_size() == 0:  # else the client still has to read it in time
            self._write_by = _NEVER
        if self.transport.is_closing():
            return
        if self._read_paused:
            self.resume_reading()
        if self._pipeline:
            self._answer(self._pipeline.popleft())
        else:
            self._idle_by = self._after(self._state.idle_timeout_s)

    def date_line(self) -> bytes:
        """Return the header `date` of now."""
        return self._state.date_line()

    async def drained(self) -> None:
        """Wait until the client has read enough of what was written, or is gone."""
        while self.write_paused:
            if self._drained is None:
                self._drained = self._state.loop.create_future()
            await asyncio.shield(self._drained)

    def _pause_reading(self) -> None:
        if not self._read_paused and not self.transport.is_closing():
            self._read_paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Read on, if reading was paused."""
        if self._read_paused and not self.transport.is_closing():
            self._read_paused = False
            self.transport.resume_reading()

    def shutdown(self) -> None:
        """Close once all requests are answered; over TLS not every client answers to that."""
        if self._reading is not None and not self._reading.complete:
            self._reading.keep_alive = False
            return
        self.transport.close()
        self._state.loop.call_later(_FAREWELL_S, self._end_farewell)

    def _end_farewell(self) -> None:
        if self.transport.get_write_buffer_size() == 0:
            self.transport.abort()

    # bounds

    def _after(self, seconds: float) -> float:
        return self._state.loop.time() + seconds if seconds else _NEVER

    def _expect_head(self) -> None:
        limits = self._state.limits
        self._read_by = self._after(limits.read_header_timeout_s or limits.read_timeout_s)

    def check_deadlines(self, now: float) -> None:
        """Close if a time (loop's clock, s) is over; without an answer, as Go does: it could not be read in time."""
        if now >= self._read_by:
            self.transport.abort()
        elif now >= self._write_by:
            answering = self._answering
            if (answering is not None and not answering.complete) or self.transport.get_write_buffer_size():
                self.transport.abort()
            else:
                self._write_by = _NEVER
        elif now >= self._idle_by:
            self.transport.close()

    def _refuse(self, status: bytes, message: bytes) -> None:
        """Answer for the application and close; nothing is answered in the middle of another answer."""
        if self.transport.is_closing():
            return
        answering = self._answering
        if answering is None or answering.complete or not answering.started:
            head = b"HTTP/1.1 %s\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\n" % (
                status,
                len(message) + 1,
            )
            self.transport.write(head + b"connection: close\r\n\r\n" + message + b"\n")
        for exchange in (answering, *(self._pipeline or ())):
            if exchange is not None and not exchange.complete:
                exchange.leave()
        self.transport.close()
