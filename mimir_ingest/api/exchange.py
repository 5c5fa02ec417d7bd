"""One request and its answer: an ASGI application's `receive` and `send`, over the connection that has it.

An answer's head waits for its body, as ASGI demands, and both leave in one write. Nothing is made for what may happen
and seldom does: the event for a request that has to be waited for, the future for a client that reads slowly.
"""

from __future__ import annotations

import asyncio
import functools
import http
import re
from typing import Protocol

import structlog

from mimir_ingest.api.errors import CLIENT_CLOSED_REQUEST, Application, Headers, Message, Scope, text_answer

HELD_BODY_BYTES = 65_536
"""Bytes of a body that wait for the application before no more are read."""
_JOINED_BYTES = 65_536  # why: copying this much costs less than a second piece of an answer

_FORBIDDEN_IN_NAME = re.compile(rb'[\x00-\x20\x7f()<>@,;:\[\]={}\\"]')
_FORBIDDEN_IN_VALUE = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_REMEMBERED_BYTES = 200
_WITHOUT_BODY = (204, 304)
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_BROKEN = text_answer(500, "internal error")
_log = structlog.get_logger()


def _status_line(status: int) -> bytes:
    try:
        phrase = http.HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return f"HTTP/1.1 {status} {phrase}\r\n".encode()


_STATUS_LINES = {status: _status_line(status) for status in range(100, 600)}


def _line(name: bytes, value: bytes) -> tuple[bytes, str]:
    """Return (a header's line, what it says of the framing: see `_begin`). Raises ValueError for what is no header."""
    if not name or _FORBIDDEN_IN_NAME.search(name) or _FORBIDDEN_IN_VALUE.search(value):
        raise ValueError(f"no header: {name!r}: {value!r}")
    lower, says = name.lower(), ""
    if lower == b"content-length":
        says = "length"
    elif lower == b"transfer-encoding" and value.lower() == b"chunked":
        says = "chunked"
    elif lower == b"connection" and b"close" in value.lower():
        says = "close"
    return b"%s: %s\r\n" % (lower, value), says


_line_again = functools.lru_cache(512)(_line)
_ITS_OWN = frozenset((b"content-length", b"server-timing"))
"""Headers that differ from answer to answer, so that none is worth remembering."""


class Traffic:
    """What went through an exchange, for whoever measures it; in its scope as `traffic`."""

    __slots__ = ("received", "sent", "status")

    def __init__(self) -> None:
        self.status = CLIENT_CLOSED_REQUEST
        """Of the answer; without one the client is taken for gone."""
        self.received = self.sent = 0
        """Bytes of the request's body that the application took, and of the answer's body."""


class Carrier(Protocol):
    """What an exchange needs of its connection."""

    transport: asyncio.Transport
    write_paused: bool

    def date_line(self) -> bytes:
        """Return the header `date` of now."""
        ...

    def resume_reading(self) -> None:
        """Read on, if reading was paused."""
        ...

    async def drained(self) -> None:
        """Wait until the client has read enough of what was written, or is gone."""
        ...

    def answered(self) -> None:
        """Take note that the exchange is complete."""
        ...


class Exchange:
    """One request, from its headers to the last byte of its answer. Used from one event loop."""

    __slots__ = (
        "_carrier",
        "_chunked",
        "_event",
        "_head",
        "_left",
        "_news",
        "body",
        "complete",
        "expects_continue",
        "gone",
        "keep_alive",
        "more_body",
        "scope",
        "started",
        "task",
        "traffic",
    )

    def __init__(
        self, carrier: Carrier, scope: Scope, *, keep_alive: bool, expects_continue: bool, whole: bool = False
    ) -> None:
        """Begin an exchange; `whole`: the request has come and has no body."""
        self._carrier, self.scope = carrier, scope
        self.keep_alive, self.expects_continue = keep_alive, expects_continue
        self.traffic = scope["traffic"] = Traffic()
        self.task: asyncio.Task[None] | None = None
        self.body: bytes | bytearray = b""
        """What came of the request's body and was not received yet."""
        self.more_body = not whole
        self.gone = False
        """The client closed the connection before it had its answer."""
        self.started = self.complete = False
        self._news = whole
        self._event: asyncio.Event | None = None
        self._head = b""
        self._chunked = False
        self._left: int | None = None
        """Bytes that the body still has to have; None: it ends when it ends."""

    async def run(self, application: Application, running: set[Exchange]) -> None:
        """Let the application answer, while it stands in `running`.

        What the application leaves undone becomes a 500, or the end of the connection.
        """
        running.add(self)
        try:
            try:
                await application(self.scope, self.receive, self.send)
                if self.complete or self.gone:
                    return
                _log.error("request without a whole answer", path=self.scope["path"])
            except (Exception, asyncio.CancelledError) as error:
                if self.gone:
                    return
                _log.error("request failed", path=self.scope["path"], err=repr(error), exc_info=error)
            await self._give_up()
        finally:
            running.discard(self)

    async def _give_up(self) -> None:
        """Answer for the application, or end the connection where it has begun to."""
        if self._carrier.transport.is_closing():
            return
        if self.started:
            self._carrier.transport.close()
            return
        self.keep_alive = False
        self._head = b""
        await _BROKEN.send(self.send)

    def feed(self, piece: bytes) -> bool:
        """Take a piece of the request's body; return whether it is enough for now."""
        if not self.body:
            self.body = piece
        else:
            if isinstance(self.body, bytes):
                self.body = bytearray(self.body)
            self.body += piece
        self.notify()
        return len(self.body) > HELD_BODY_BYTES

    def end_body(self) -> None:
        """Take note that the request has come as a whole."""
        self.more_body = False
        self.notify()

    def leave(self) -> None:
        """Take note that the client has gone."""
        self.gone = True
        self.notify()

    def notify(self) -> None:
        """Wake whoever waits to receive."""
        self._news = True
        if self._event is not None:
            self._event.set()

    async def receive(self) -> Message:
        """Return what has come of the request since the last call; wait for it, or for the exchange's end."""
        if self.expects_continue and not self._carrier.transport.is_closing():
            self.expects_continue = False
            self._carrier.transport.write(_CONTINUE)
        if not (self._news or self.gone or self.complete):
            self._carrier.resume_reading()
            if self._event is None:
                self._event = asyncio.Event()
            self._event.clear()
            await self._event.wait()
        self._news = False
        if self.gone or self.complete:
            return {"type": "http.disconnect"}
        body, self.body = self.body, b""
        self.traffic.received += len(body)
        return {"type": "http.request", "body": bytes(body), "more_body": self.more_body}

    async def send(self, message: Message) -> None:
        """Take the head of the answer or a piece of its body. Raises RuntimeError, ValueError for what is no answer.

        Waits while the client does not read; of one that has gone nothing is asked.
        """
        if self._carrier.write_paused and not self.gone:
            await self._carrier.drained()
        kind = message["type"]
        if kind == "http.response.start":
            self.traffic.status = message["status"]
        else:
            self.traffic.sent += len(message.get("body", b""))
        if self.gone:
            return
        if kind == "http.response.start" and not (self.started or self._head):
            self._begin(message["status"], message.get("headers", ()))
        elif kind == "http.response.body" and not self.complete and (self.started or self._head):
            self._write(message.get("body", b""), more=message.get("more_body", False))
        else:
            raise RuntimeError(f"{kind} at the wrong time")

    def _begin(self, status: int, headers: Headers) -> None:
        """Make the head; it leaves with the first piece of the body."""
        self.expects_continue = False
        self._left, self._chunked = None, False
        lines = [_STATUS_LINES[status], self._carrier.date_line()]
        framed = closes = False
        for name, value in headers:
            again = name not in _ITS_OWN and len(value) <= _REMEMBERED_BYTES
            line, says = _line_again(name, value) if again else _line(name, value)
            lines.append(line)
            if not says:
                continue
            if says == "length":
                if not framed:
                    self._left, framed = int(value), True
            elif says == "chunked":
                self._chunked = framed = True
            else:
                self.keep_alive, closes = False, True
        if not self.keep_alive and not closes:
            lines.append(b"connection: close\r\n")
        if self.scope["method"] == "HEAD" or status in _WITHOUT_BODY:
            self._left, self._chunked = -1, False
        elif not framed and self.scope["http_version"] != "1.0":  # its clients read until the connection ends
            self._chunked = True
            lines.append(b"transfer-encoding: chunked\r\n")
        lines.append(b"\r\n")
        self._head = b"".join(lines)

    def _write(self, body: bytes, *, more: bool) -> None:
        """Send a piece of the body, and the head before the first."""
        if self._chunked:
            framed = b"%x\r\n%b\r\n" % (len(body), body) if body else b""
            body = framed if more else framed + b"0\r\n\r\n"
        elif self._left == -1:
            body = b""
        elif self._left is not None:
            self._left -= len(body)
            if self._left < 0 or (self._left and not more):
                raise RuntimeError("the answer has not the length that it announced")
        head, self._head = self._head, b""
        self.started = True
        transport = self._carrier.transport
        if head and len(body) > _JOINED_BYTES:
            transport.writelines((head, body))
        elif head or body:
            transport.write(head + body)
        if not more:
            self.complete = True
            if self._event is not None:
                self._event.set()
            if not self.keep_alive:
                transport.close()
            self._carrier.answered()
