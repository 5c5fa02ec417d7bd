"""What Mimir's server does around every handler, as small ASGI wrappers that the composition root stacks.

    StripPrefix ─► CleanPath ─► Router ─┬─► push and other bare applications
                                        └─► Gzip ─► FastAPI (see `plain_routing`)

Paths are matched in their percent-encoded form: a variable reaches its handler still encoded (spec: http api 1.2, 1.6).
"""

from __future__ import annotations

import asyncio
import functools
import re
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request, Response

from mimir_ingest.api.errors import (
    METHOD_NOT_ALLOWED,
    NOT_FOUND,
    Answer,
    Application,
    Headers,
    Message,
    Receive,
    Scope,
    Send,
)
from mimir_ingest.api.negotiate import parse_weights
from mimir_ingest.api.repeated_head import facts_of

GZIP_MIN_BYTES = 1400
"""Smaller bodies are not compressed; Mimir's bound."""
_GZIP_THREAD_BYTES = 65_536  # why: compressing 64 KiB at level 1 takes about 1 ms; more leaves the event loop


def raw_path(scope: Scope) -> bytes:
    """Return the path as the client sent it, without the query."""
    found = scope.get("raw_path")
    return found.partition(b"?")[0] if found is not None else scope["path"].encode("utf-8")


@dataclass(frozen=True, slots=True)
class Route:
    """One path with its application."""

    path: str
    """Exact, or with `{name}` for a whole segment."""
    methods: frozenset[str] | None
    """Methods it answers; None is any. HEAD is not implied by GET."""
    application: Application


class Router:
    """Finds the application for a raw path; variables go to `scope["path_params"]`, still encoded.

    Paths that no route has go to `fallback`, or are answered with 404.
    """

    def __init__(self, routes: Iterable[Route], *, fallback: Application | None = None) -> None:
        self._exact: dict[bytes, list[Route]] = {}
        self._patterns: list[tuple[re.Pattern[bytes], list[Route]]] = []
        patterns: dict[str, list[Route]] = {}
        for route in routes:
            if "{" in route.path:
                patterns.setdefault(route.path, []).append(route)
            else:
                self._exact.setdefault(route.path.encode(), []).append(route)
        for path, found in patterns.items():
            parts = re.split(r"\{(\w+)\}", path)
            text = "".join(f"(?P<{p}>[^/]+)" if i % 2 else re.escape(p) for i, p in enumerate(parts))
            self._patterns.append((re.compile(text.encode()), found))
        self._fallback = fallback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Dispatch one request; other connection types go to the fallback."""
        if scope["type"] == "http":
            path = raw_path(scope)
            routes = self._exact.get(path)
            variables: dict[str, str] = {}
            if routes is None:
                for pattern, candidates in self._patterns:
                    if match := pattern.fullmatch(path):
                        routes = candidates
                        variables = {name: value.decode("latin-1") for name, value in match.groupdict().items()}
                        break
            if routes is not None:
                for route in routes:
                    if route.methods is None or scope["method"] in route.methods:
                        scope["path_params"] = variables
                        await route.application(scope, receive, send)
                        return
                await METHOD_NOT_ALLOWED.send(send)
                return
        if self._fallback is not None:
            await self._fallback(scope, receive, send)
        elif scope["type"] == "http":
            await NOT_FOUND.send(send)


def clean_path(path: bytes) -> bytes:
    """Return a path without empty and dot segments, the trailing slash kept. Source: Go `path.Clean`, gorilla/mux."""
    if path.startswith(b"/") and b"//" not in path and b"/." not in path:
        return path
    kept: list[bytes] = []
    for segment in path.split(b"/"):
        if segment == b"..":
            del kept[-1:]
        elif segment not in (b"", b"."):
            kept.append(segment)
    cleaned = b"/" + b"/".join(kept)
    return cleaned + b"/" if kept and path.endswith(b"/") else cleaned


class CleanPath:
    """Redirects (301) a path with duplicate slashes or dot segments to its clean form, the query kept.

    The scope's `path`, by which FastAPI routes, becomes the encoded one too.
    """

    def __init__(self, application: Application) -> None:
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Redirect or pass on, with the raw path as the one to route by."""
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        path = raw_path(scope)
        cleaned = clean_path(path)
        if cleaned != path:
            query = scope.get("query_string") or b""
            # A browser takes a backslash for a slash, and two slashes for another host.
            location = cleaned.replace(b"\\", b"%5C") + (b"?" + query if query else b"")
            await Answer(301, headers=((b"location", location),)).send(send)
            return
        scope["raw_path"], scope["path"] = path, path.decode("latin-1")
        await self._application(scope, receive, send)


class StripPrefix:
    """Takes `server.path_prefix` off every path; a path without it is unknown."""

    def __init__(self, application: Application, prefix: str) -> None:
        self._application = application
        self._prefix = prefix.rstrip("/").encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Strip or answer 404."""
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        path = raw_path(scope)
        if not path.startswith(self._prefix + b"/"):
            await NOT_FOUND.send(send)
            return
        path = path[len(self._prefix) :]
        scope["raw_path"], scope["path"] = path, path.decode("latin-1")
        await self._application(scope, receive, send)


def plain_routing(application: FastAPI) -> None:
    """Make FastAPI answer unknown paths and methods as Mimir's router does, and never redirect trailing slashes."""

    async def unknown_path(scope: Scope, receive: Receive, send: Send) -> None:
        await NOT_FOUND.send(send)

    async def wrong_method(request: Request, error: Any) -> Response:
        return Response(status_code=405)

    application.router.redirect_slashes = False
    application.router.default = unknown_path
    application.add_exception_handler(405, wrong_method)


def _least_bytes(scope: Scope, min_bytes: int = GZIP_MIN_BYTES) -> int | None:
    """Return from how many bytes on an answer is compressed for a request's sender; None: never."""
    header = b",".join([value for name, value in scope["headers"] if name == b"accept-encoding"])
    gzip, identity = (_accepts_again if len(header) <= _REMEMBERED_BYTES else accepts)(header.decode("latin-1"))
    if not gzip or scope["method"] == "HEAD":
        return None
    return max(min_bytes if identity else 0, 1)


def _varies(headers: Headers) -> bool:
    """Whether headers say that the answer depends on the encodings that its client accepts."""
    return any(name == b"vary" and b"accept-encoding" in value.lower() for name, value in headers)


@functools.lru_cache(64)
def _varying(headers: tuple[tuple[bytes, bytes], ...]) -> tuple[tuple[bytes, bytes], ...]:
    """Return an answer's headers, saying that it depends on the encodings that its client accepts."""
    return headers if _varies(list(headers)) else (*headers, _VARY)


async def encoded(answer: Answer, scope: Scope, more_headers: Headers) -> Answer:
    """Return a whole answer, with more headers of its own, as `Gzip` sends it."""
    headers = (*_varying(answer.headers), *more_headers)
    facts = facts_of(scope)
    least = facts.get(_least_bytes, -1)
    if least == -1:
        least = facts[_least_bytes] = _least_bytes(scope)
    body = answer.body
    if least is None or len(body) < least or any(name == b"content-encoding" for name, _ in headers):
        return Answer(answer.status, body, headers)
    packed = await asyncio.to_thread(_gzip, body) if len(body) >= _GZIP_THREAD_BYTES else _gzip(body)
    return Answer(answer.status, packed, (*headers, (b"content-encoding", b"gzip")))


def _gzip(body: bytes) -> bytes:
    return zlib.compress(body, 1, 31)


def accepts(header: str) -> tuple[bool, bool]:
    """Return (whether gzip is accepted, whether the plain body is) by an `Accept-Encoding` header."""
    weights = parse_weights(header)
    rest = weights.get("*")
    gzip = weights.get("gzip", weights.get("x-gzip", rest or 0.0)) > 0
    identity = weights.get("identity", 0.0 if rest == 0 else 1.0) > 0
    return gzip, identity


_VARY = (b"vary", b"Accept-Encoding")
_accepts_again = functools.lru_cache(64)(accepts)
_REMEMBERED_BYTES = 200
"""why: clients send one of few short headers; remembering long ones would cost memory."""


class Gzip:
    """Compresses responses of 1400 bytes and more for clients that take gzip; always adds `Vary: Accept-Encoding`.

    Level 1: these bodies are JSON and pages, on which it costs a third of the default's time.
    """

    def __init__(self, application: Application, *, min_bytes: int = GZIP_MIN_BYTES) -> None:
        self._application, self._min_bytes = application, min_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request through the compressor if the client wants it."""
        if scope["type"] != "http":
            await self._application(scope, receive, send)
            return
        stream = _GzipStream(send, least_bytes=_least_bytes(scope, self._min_bytes))
        await self._application(scope, receive, stream.send)


class _GzipStream:
    """One response on its way out: held back until it is known whether it is long enough."""

    def __init__(self, send: Send, *, least_bytes: int | None) -> None:
        self._send, self._least_bytes = send, least_bytes
        self._start: Message | None = None
        self._held = b""
        self._write: Callable[[bytes], bytes] | None = None
        self._compressor: Any = None

    async def send(self, message: Message) -> None:
        """Take the next message of the application."""
        if message["type"] == "http.response.start":
            headers: Headers = list(message["headers"])
            if not _varies(headers):
                headers.append(_VARY)
            self._start = {**message, "headers": headers}
            plain = any(n == b"content-encoding" for n, _ in headers) or message["status"] in (204, 304)
            if plain or self._least_bytes is None:
                await self._release_start()
        elif message["type"] != "http.response.body":
            await self._release_start()
            await self._send(message)
        elif self._compressor is not None:
            await self._send_compressed(message.get("body", b""), more=message.get("more_body", False))
        elif self._start is None:
            await self._send(message)
        else:
            await self._decide(message)

    async def _decide(self, message: Message) -> None:
        self._held += message.get("body", b"")
        more = message.get("more_body", False)
        if self._start is None or self._least_bytes is None:
            return
        if len(self._held) >= self._least_bytes:
            self._compressor = zlib.compressobj(1, zlib.DEFLATED, 31)
            headers = [h for h in self._start["headers"] if h[0] not in (b"content-length", b"accept-ranges")]
            self._start["headers"] = [*headers, (b"content-encoding", b"gzip")]
            held, self._held = self._held, b""
            await self._send_compressed(held, more=more)
        elif not more:
            await self._release_start()
            await self._send({"type": "http.response.body", "body": self._held})

    async def _release_start(self) -> None:
        if self._start is not None:
            start, self._start = self._start, None
            await self._send(start)

    async def _send_compressed(self, body: bytes, *, more: bool) -> None:
        def compress() -> bytes:
            out = self._compressor.compress(body)
            # Streams are flushed at each message, so that a slow producer's parts arrive as they come.
            return out + self._compressor.flush(zlib.Z_SYNC_FLUSH if more else zlib.Z_FINISH)

        out = await asyncio.to_thread(compress) if len(body) >= _GZIP_THREAD_BYTES else compress()
        if self._start is not None and not more:
            self._start["headers"].append((b"content-length", b"%d" % len(out)))
        await self._release_start()
        await self._send({"type": "http.response.body", "body": out, "more_body": more})
