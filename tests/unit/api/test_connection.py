"""What a listener does with clients that do not speak HTTP as they should, seen from a socket."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from mimir_ingest.api.connection import MAX_HEAD_BYTES, MAX_HEADERS, ConnectionLimits
from mimir_ingest.api.errors import Answer
from mimir_ingest.api.server import HttpServer

PATIENCE_S = 60
IDLE_S = 0.4


class FastClock:
    """An event loop whose time can be set forward."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.ahead_s = 0.0

    def time(self) -> float:
        return self._loop.time() + self.ahead_s

    def __getattr__(self, name: str) -> object:
        return getattr(self._loop, name)


class Listening:
    """A listener whose application answers with method, path and body, and notes what it was asked."""

    def __init__(self, **limits: float) -> None:
        self.limits = ConnectionLimits(**limits)
        self.asked: list[tuple[str, bytes]] = []
        self.gone = 0
        self.release = asyncio.Event()

    async def __aenter__(self) -> Listening:
        self.server = HttpServer(host="127.0.0.1", port=0, idle_timeout_s=60, graceful_timeout_s=5, limits=self.limits)
        self.port = self.server.listen()
        await self.server.serve(self.application)
        return self

    async def __aexit__(self, *error: object) -> None:
        self.release.set()
        await self.server.stop()

    async def application(self, scope, receive, send) -> None:
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.gone += 1
                return
            body += message["body"]
            if not message["more_body"]:
                break
        self.asked.append((scope["path"], body))
        if scope["path"] == "/slow":
            await self.release.wait()
        if scope["path"] == "/large":
            body = bytes(100 << 20)
        headers = sorted(name for name, _ in scope["headers"] if name.startswith(b"x-"))
        await Answer(200, body or b",".join(headers)).send(send)

    @contextlib.asynccontextmanager
    async def connect(self):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            yield reader, writer
        finally:
            writer.close()

    async def talk(self, data: bytes) -> bytes:
        """Send bytes and return everything that comes until the listener closes, or is idle."""
        async with self.connect() as (reader, writer):
            writer.write(data)
            answer = b""
            with contextlib.suppress(ConnectionError):
                while piece := await self._piece(reader, IDLE_S if answer else PATIENCE_S):
                    answer += piece
            return answer

    @staticmethod
    async def _piece(reader: asyncio.StreamReader, patience_s: float) -> bytes:
        """Return what comes next; nothing at the end, and when the listener, and not the machine, stood still."""
        while True:
            began = asyncio.get_running_loop().time()
            try:
                return await asyncio.wait_for(reader.read(65536), patience_s)
            except TimeoutError:
                if asyncio.get_running_loop().time() - began < patience_s + 0.1:
                    return b""


HOST = b"Host: x\r\n"
GET = b"GET /a HTTP/1.1\r\n" + HOST + b"\r\n"
CHUNKED = b"POST /p HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
POST = b"POST /p HTTP/1.1\r\n" + HOST
BAD = {
    "two lengths that differ": POST + b"Content-Length: 3\r\nContent-Length: 30\r\n\r\nabc",
    "two equal lengths": POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "a length and chunks": POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and a length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    "chunked that is not last": POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "chunked twice": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "a list of lengths": POST + b"Content-Length: 3, 3\r\n\r\nabc",
    "a negative length": POST + b"Content-Length: -1\r\n\r\nabc",
    "a length with a sign": POST + b"Content-Length: +3\r\n\r\nabc",
    "a length past 64 bits": POST + b"Content-Length: 99999999999999999999\r\n\r\nabc",
    "a chunk size that is no number": CHUNKED + b"zz\r\nabc\r\n0\r\n\r\n",
    "a chunk size past 64 bits": CHUNKED + b"fffffffffffffffff\r\nabc\r\n0\r\n\r\n",
    "a chunk longer than its size": CHUNKED + b"1\r\nabc\r\n0\r\n\r\n",
    "a bare line feed in a chunk": CHUNKED + b"1\na\n0\n\n",
    "a space before a colon": b"GET /a HTTP/1.1\r\nHost : x\r\n\r\n",
    "a header without a colon": b"GET /a HTTP/1.1\r\nHost\r\n\r\n",
    "a zero in a header": b"GET /a HTTP/1.1\r\nHost: x\r\nX-A: a\x00b\r\n\r\n",
    "a bare carriage return in a header": b"GET /a HTTP/1.1\r\nHost: x\r\nX-A: a\rb: c\r\n\r\n",
    "another protocol": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "a method that is none": b"G@T /a HTTP/1.1\r\nHost: x\r\n\r\n",
    "a version that is none": b"GET /a HTTP/9.9\r\nHost: x\r\n\r\n",
    "CONNECT": b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n",
    "CONNECT with a path": b"CONNECT /a HTTP/1.1\r\nHost: x\r\n\r\n",
    "a path that is none": b"GET \x01 HTTP/1.1\r\nHost: x\r\n\r\n",
    "a path beyond ASCII": "GET /é HTTP/1.1\r\nHost: x\r\n\r\n".encode(),
}


async def test_requests_with_two_meanings_and_broken_ones_are_400_and_close_the_connection():
    async with Listening() as target:
        for name, data in BAD.items():
            answer = await target.talk(data + GET)
            assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n"), (name, answer)
            assert answer.count(b"HTTP/1.1 ") == 1, (name, answer)
            assert b"connection: close" in answer
        assert ("/a", b"") not in target.asked  # what followed was never taken for a request
        assert (await target.talk(GET)).startswith(b"HTTP/1.1 200")


async def test_headers_without_end_are_431_however_they_come():
    name = b"X-" + b"a" * MAX_HEAD_BYTES + b": b\r\n"
    long = [
        b"GET /" + b"a" * (MAX_HEAD_BYTES + 300_000) + b" HTTP/1.1\r\n",
        b"GET /a HTTP/1.1\r\n" + HOST + b"X-A: " + b"a" * (MAX_HEAD_BYTES + 300_000),
        b"GET /a HTTP/1.1\r\n" + HOST + name * 2,
        b"GET /a HTTP/1.1\r\n" + HOST + b"X-A: b\r\n" * (MAX_HEADERS + 1) + b"\r\n",
        b"GET /a HTTP/1.1\r\n" + HOST + b"a:\r\n" * MAX_HEAD_BYTES,
    ]
    async with Listening() as target:
        for data in long:
            assert b" 431 " in (await target.talk(data)).partition(b"\r\n")[0]
        assert target.asked == []


async def test_trailers_are_not_headers_and_neither_they_nor_extensions_of_chunks_are_endless():
    async with Listening() as target:
        answer = await target.talk(CHUNKED + b"0\r\nX-Scope-OrgID: other\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200")
        assert answer.endswith(b"\r\n\r\n")
        for endless in (b"1;" + b"a" * (2 << 20), b"1\r\na\r\n0\r\nX-A: " + b"a" * (2 << 20)):
            answer = await target.talk(CHUNKED + endless)
            assert b" 431 " in answer.partition(b"\r\n")[0] or b" 400 " in answer.partition(b"\r\n")[0]
        assert target.gone == 2


async def test_a_wish_for_another_protocol_is_not_heard_and_the_connection_goes_on():
    wish = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
    async with Listening() as target, target.connect() as (reader, writer):
        for path, body in ((b"/1", b""), (b"/2", b"body"), (b"/3", b"")):
            writer.write(b"POST %s HTTP/1.1\r\n%s%sContent-Length: %d\r\n\r\n%s" % (path, HOST, wish, len(body), body))
            assert (await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE_S)).startswith(b"HTTP/1.1 200")
            await reader.readexactly(len(body))
        assert target.asked == [("/1", b""), ("/2", b"body"), ("/3", b"")]
        hidden = b"GET /hidden HTTP/1.1\r\n" + HOST + b"\r\n"
        writer.write(POST + wish + b"Content-Length: %d\r\n\r\n%s" % (len(hidden), hidden))
        writer.write(POST + wish + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
        await asyncio.wait_for(reader.readuntil(b"abc"), PATIENCE_S)
        assert target.asked[3:] == [("/p", hidden), ("/p", b"abc")]


async def test_very_many_wishes_at_once_are_too_many():
    wish = b"GET /a HTTP/1.1\r\n" + HOST + b"Connection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    async with Listening() as target:
        answer = await target.talk(wish * 3000)
        assert answer.endswith(b"400 Bad Request\n")
        assert (await target.talk(wish * 50)).count(b"HTTP/1.1 200") == 50


async def test_requests_sent_at_once_are_answered_in_order():
    async with Listening(read_timeout_s=PATIENCE_S, write_timeout_s=PATIENCE_S) as target:
        requests = b"".join(b"POST /%d HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n%d" % (i, i) for i in range(9))
        answer = await target.talk(requests)
        assert [one[-1:] for one in answer.split(b"HTTP/1.1 200 OK")[1:]] == [b"%d" % i for i in range(9)]


@pytest.mark.parametrize(
    ("limits", "data"),
    [
        ({"read_timeout_s": 0.3}, b""),
        ({"read_timeout_s": 0.3}, b"GET /a HTTP/1.1\r\nHost:"),
        ({"read_header_timeout_s": 0.3}, b"GET /a HTTP/1.1\r\nHost:"),
        ({"read_timeout_s": 0.3}, POST + b"Content-Length: 10\r\n\r\nabc"),
        ({"read_timeout_s": 0.3}, CHUNKED + b"3\r\nabc\r\n"),
        ({"write_timeout_s": 0.3}, b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n"),
    ],
    ids=["nothing", "half a head", "half a head, header time-out", "half a body", "half the chunks", "a slow answer"],
)
async def test_a_connection_that_takes_its_time_is_closed(limits, data):
    async with Listening(**limits) as target, target.connect() as (reader, writer):
        writer.write(data)
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), PATIENCE_S) == b""


async def test_a_client_that_drips_a_byte_at_a_time_is_closed_all_the_same():
    async with Listening(read_timeout_s=0.5) as target, target.connect() as (reader, writer):
        writer.write(b"GET /a HTTP/1.1\r\nHost: x\r\nX-A: ")
        for _ in range(1000):
            await asyncio.sleep(0.02)
            if reader.at_eof() or reader.exception():
                break
            writer.write(b"a")
        assert reader.at_eof() or reader.exception()
        assert target.asked == []


async def test_a_client_that_does_not_read_its_answer_is_closed():
    async with Listening(write_timeout_s=0.5) as target, target.connect() as (reader, writer):
        writer.write(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        reader._transport.pause_reading()
        await asyncio.sleep(1.5)
        reader._transport.resume_reading()
        with contextlib.suppress(ConnectionError):
            assert len(await asyncio.wait_for(reader.read(), PATIENCE_S)) < 100 << 20


async def test_the_time_of_a_request_does_not_count_against_the_next():
    async with Listening(read_timeout_s=30, write_timeout_s=30) as target, target.connect() as (reader, writer):
        state = target.server._state
        state.loop = clock = FastClock(state.loop)
        for _ in range(5):
            writer.write(b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n")
            await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE_S)
            clock.ahead_s += 50
            state.sweep()
        assert len(target.asked) == 5


async def test_more_connections_than_allowed_are_answered_503():
    async with Listening(connections=2) as target, target.connect() as (one, write_one), target.connect():
        write_one.write(GET)
        await asyncio.wait_for(one.readuntil(b"\r\n\r\n"), PATIENCE_S)
        assert (await target.talk(GET)).startswith(b"HTTP/1.1 503 Service Unavailable")
        write_one.close()
        answer = b""
        while not answer.startswith(b"HTTP/1.1 200"):
            answer = await target.talk(GET)


async def test_a_waiting_client_does_not_hold_up_the_end():
    async with Listening() as target, target.connect() as (reader, writer):
        writer.write(GET)
        await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE_S)
        await asyncio.wait_for(target.server.stop(), PATIENCE_S)
