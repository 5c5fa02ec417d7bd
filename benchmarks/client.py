"""Requests over loopback, one at a time or several at once, from one thread: as thin as a client in Python can be.

Connections stay open, as those of Grafana and of Go's clients do; a `fresh` request has one of its own.
"""

from __future__ import annotations

import re
import select
import socket
import time
import urllib.parse

_READ_BYTES = 1 << 18
_FRAMING = re.compile(rb"\r\n(?:content-length: *(\d+)|transfer-encoding: *chunked)\r\n", re.IGNORECASE)
_HEAD_END = b"\r\n\r\n"
_LAST_CHUNK = b"\r\n0\r\n\r\n"
"""Ends a chunked answer, and stands nowhere else in one: JSON has line breaks in strings alone, and escaped."""


class Request:
    """A GET: the bytes to send, and where to."""

    def __init__(self, url: str, *, fresh: bool = False) -> None:
        """`fresh`: over a connection of its own."""
        parts = urllib.parse.urlsplit(url)
        self.address, self.fresh = (parts.hostname, parts.port), fresh
        close = "Connection: close\r\n" if fresh else ""
        self.sent = f"GET {parts.path}?{parts.query} HTTP/1.1\r\nHost: {parts.netloc}\r\n{close}\r\n".encode()


class _Connection:
    """One request after another; `ready` tells when there is something to receive."""

    def __init__(self, request: Request, ready: select.epoll) -> None:
        self._request, self._ready = request, ready
        self._socket: socket.socket | None = None
        self._answer, self._size = b"", 0
        self.began_s = 0.0

    def send(self) -> int:
        """Send the request; return the connection's file descriptor."""
        self._answer, self._size = b"", 0
        self.began_s = time.perf_counter()
        if self._socket is None:
            self._socket = socket.create_connection(self._request.address)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._ready.register(self._socket, select.EPOLLIN)
        self._socket.sendall(self._request.sent)
        return self._socket.fileno()

    def receive(self) -> bool:
        """Take what has come; return whether the answer is whole. Raises RuntimeError for anything but 200."""
        piece = self._socket.recv(_READ_BYTES)
        self._answer += piece
        if not self._size:
            self._size = self._framing()
        whole = self._answer.endswith(_LAST_CHUNK) if self._size < 0 else 0 < self._size <= len(self._answer)
        if not piece and not whole:
            raise RuntimeError("the connection ended before the answer did")
        if whole and self._request.fresh:
            self.close()
        return whole

    def _framing(self) -> int:
        """Return the answer's size with its head: -1 if it is chunked, 0 if the head is not there yet."""
        head, end, _ = self._answer.partition(_HEAD_END)
        if not end:
            return 0
        found = _FRAMING.search(head + b"\r\n")
        if not head.startswith(b"HTTP/1.1 200 ") or not found:
            raise RuntimeError(self._answer.decode("utf-8", "replace"))
        return len(head) + len(end) + int(found[1]) if found[1] else -1

    def close(self) -> None:
        """End it; the next request begins another."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def latencies_ms(request: Request, *, at_once: int, least: int, seconds: float) -> list[float]:
    """Send a request over and over, each of `at_once` connections its next one when it has its answer.

    Returns the time of each request from its beginning to its answer's end: of `least` or more, and of all that were
    begun within `seconds`. Raises RuntimeError for anything but 200.
    """
    found: list[float] = []
    with select.epoll() as ready:
        connections = [_Connection(request, ready) for _ in range(at_once)]
        try:
            stop_s = time.perf_counter() + seconds
            open_ones = {connection.send(): connection for connection in connections}
            while open_ones:
                for number, _ in ready.poll():
                    connection = open_ones[number]
                    if not connection.receive():
                        continue
                    now_s = time.perf_counter()
                    found.append((now_s - connection.began_s) * 1000)
                    del open_ones[number]
                    if now_s < stop_s or len(found) + len(open_ones) < least:
                        open_ones[connection.send()] = connection
        finally:
            for connection in connections:
                connection.close()
    return found
