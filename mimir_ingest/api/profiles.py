"""`/debug/pprof/…` and `/debug/fgprof`: profiles for `go tool pprof` and those who scrape them (spec http-api.md 3.11).

    profile                  time on the processor, by stack, for `?seconds=`
    goroutine, threadcreate  stacks of threads and of the event loop's tasks; of threads alone
    heap, allocs             memory by the line that allocated it, while Python traces that
    block, mutex             always empty: nothing here counts contention
    trace                    501: a trace of Go's scheduler has no counterpart
    fgprof                   what every thread did at 99 looks a second, waiting included

One profile that takes time is taken at once, others meanwhile are 500 as in Go. Whoever leaves ends theirs.
"""

from __future__ import annotations

import asyncio
import gc
import gzip
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse

from mimir_ingest.api.disconnect import ClientGone, unless_gone
from mimir_ingest.api.errors import CLIENT_CLOSED_REQUEST
from mimir_ingest.api.pages import render_page
from mimir_ingest.api.params import Params
from mimir_ingest.api.ready import ANY_METHOD
from mimir_ingest.obs.profiling import (
    CPU_PERIOD_S,
    WALL_PERIOD_S,
    sample_cpu,
    sample_wall,
    task_stacks,
    thread_stacks,
)
from mimir_ingest.wire.pprof import Frame, Stack, ValueKind, encode_profile

DEFAULT_SECONDS = 30
_COUNTS = ("samples", "count")
_NOT_TRACED = "memory is traced only in a process that is started with PYTHONTRACEMALLOC=1 in its environment"
_TEXTS = {
    "profile": "CPU profile; ?seconds=30",
    "goroutine": "stacks of all threads and of the event loop's tasks; ?debug=1 as text",
    "threadcreate": "stacks of all threads",
    "heap": "memory in use, where it is traced; ?gc=1 collects garbage first",
    "allocs": "as heap",
    "block": "empty: contention is not counted",
    "mutex": "empty: contention is not counted",
}

Sampler = Callable[[float, threading.Event], Mapping[Stack, Sequence[int]]]


class _Refused(Exception):
    """What was asked cannot be had."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status, self.text = status, text


class Profiles:
    """Takes profiles, one at a time. Used from one event loop.

    Parameters
    ----------
    max_seconds : time that an answer may take
    """

    def __init__(self, *, max_seconds: float) -> None:
        self._max_seconds = max_seconds
        self._busy = asyncio.Lock()

    async def cpu(self, request: Request, params: Params) -> Response:
        """Return the profile of the processor."""
        text = params.get("seconds")
        seconds = int(text) if text.isdecimal() and len(text) < 10 and int(text) > 0 else DEFAULT_SECONDS
        taken = await self._taken(request, seconds, sample_cpu)
        return _answer("profile", _profile((_COUNTS, ("cpu", "nanoseconds")), taken, seconds, CPU_PERIOD_S))

    async def wall(self, request: Request, params: Params) -> Response:
        """Return what all threads did, as pprof or in folded lines."""
        text, form = params.get("seconds") or str(DEFAULT_SECONDS), params.get("format") or "pprof"
        if not text.isdecimal() or len(text) > 9 or int(text) == 0:
            raise _Refused(400, "bad seconds: it has to be a number of at least 1")
        if form not in ("pprof", "folded"):
            raise _Refused(400, "bad format: it has to be pprof or folded")
        seconds = int(text)
        taken = await self._taken(request, seconds, sample_wall)
        if form == "folded":
            lines = (";".join(f.function for f in reversed(stack)) + f" {looks}" for stack, (looks, _) in taken.items())
            return PlainTextResponse("".join(f"{line}\n" for line in lines))
        return _answer("profile", _profile((_COUNTS, ("time", "nanoseconds")), taken, seconds, WALL_PERIOD_S))

    async def _taken(self, request: Request, seconds: float, sample: Sampler) -> Mapping[Stack, Sequence[int]]:
        """Look for so long. Raises _Refused, ClientGone."""
        if 0 < self._max_seconds < seconds:
            raise _Refused(400, "profile duration exceeds server's WriteTimeout")
        if self._busy.locked():
            raise _Refused(500, "Could not enable CPU profiling: cpu profiling already in use")
        async with self._busy:
            stopped = threading.Event()
            try:
                return await unless_gone(request.receive, asyncio.to_thread(sample, seconds, stopped))
            except OSError as error:
                raise _Refused(
                    501, f"the system does not tell how long threads were on the processor: {error}"
                ) from error
            finally:
                stopped.set()


def profiles_router(profiles: Profiles, *, instrumented: bool) -> APIRouter:
    """Build the routes; without `instrumented` (`-server.register-instrumentation`) `/debug/fgprof` alone."""
    router = APIRouter()

    async def pprof(request: Request) -> Response:
        params = Params.parse(request.scope["query_string"])
        path = request.path_params["profile"]
        if path == "":
            return Response(status_code=301, headers={"Location": "pprof/"})
        if path == "/":
            return render_page("profiles.html", root="../../", profiles=_TEXTS)
        try:
            return await _pprof(profiles, path.removeprefix("/"), request, params)
        except _Refused as refused:
            return _text(refused.text, refused.status)
        except ClientGone:
            return Response(status_code=CLIENT_CLOSED_REQUEST)

    async def fgprof(request: Request) -> Response:
        try:
            return await profiles.wall(request, Params.parse(request.scope["query_string"]))
        except _Refused as refused:
            return _text(refused.text, refused.status)
        except ClientGone:
            return Response(status_code=CLIENT_CLOSED_REQUEST)

    if instrumented:
        router.add_api_route("/debug/pprof{profile:path}", pprof, methods=ANY_METHOD)
    router.add_api_route("/debug/fgprof", fgprof, methods=["GET"])
    return router


async def _pprof(profiles: Profiles, name: str, request: Request, params: Params) -> Response:
    """Return the profile of this name. Raises _Refused, ClientGone."""
    if name == "profile":
        return await profiles.cpu(request, params)
    if name == "trace":
        raise _Refused(501, "there is no trace of Go's scheduler; /debug/fgprof tells what threads do and wait for")
    if name in ("block", "mutex"):
        return _answer(name, _profile((("contentions", "count"), ("delay", "nanoseconds")), {}))
    if name in ("heap", "allocs"):
        return await asyncio.to_thread(_memory, name, params.get("gc") == "1")
    if name not in ("goroutine", "threadcreate"):
        raise _Refused(404, "404 page not found")
    stacks = [(thread.name, stack) for thread, stack in thread_stacks()]
    if name == "goroutine":
        stacks += task_stacks()
    if params.get("debug") in ("1", "2"):
        return PlainTextResponse("".join(f"{title}\n{_lines(stack)}\n" for title, stack in stacks))
    counts = Counter(stack for _, stack in stacks)
    return _answer(name, _profile(((name, "count"),), {stack: (count,) for stack, count in counts.items()}))


def _memory(name: str, collect: bool) -> Response:
    """Return what is in use by the line that allocated it; what was let go is not traced. Raises _Refused."""
    if not tracemalloc.is_tracing():
        raise _Refused(501, _NOT_TRACED)
    if collect:
        gc.collect()
    samples: dict[Stack, tuple[int, ...]] = {}
    for found in tracemalloc.take_snapshot().statistics("traceback"):
        # Python traces files and lines, not functions: a line is its own.
        stack = tuple(Frame(f"{f.filename}:{f.lineno}", f.filename, f.lineno) for f in reversed(found.traceback))
        samples[stack] = (found.count, found.size) * 2
    kinds = tuple(
        (f"{what}_{of}", unit) for what in ("alloc", "inuse") for of, unit in (("objects", "count"), ("space", "bytes"))
    )
    return _answer(name, _profile(kinds, samples))


def _lines(stack: Stack) -> str:
    return "".join(f"\t{frame.function} {frame.file}:{frame.line}\n" for frame in stack)


def _profile(
    kinds: Sequence[ValueKind], samples: Mapping[Stack, Sequence[int]], seconds: float = 0, period_s: float = 0
) -> bytes:
    spans = {"duration_ns": int(seconds * 1e9), "period_ns": int(period_s * 1e9)}
    return gzip.compress(encode_profile(kinds, samples, time_ns=time.time_ns(), **spans), 1)


def _answer(name: str, content: bytes) -> Response:
    disposition = {"Content-Disposition": f'attachment; filename="{name}"', "X-Content-Type-Options": "nosniff"}
    return Response(content, media_type="application/octet-stream", headers=disposition)


def _text(text: str, status: int) -> Response:
    return PlainTextResponse(f"{text}\n", status, headers={"X-Content-Type-Options": "nosniff"})
