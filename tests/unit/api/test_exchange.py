"""Requests and answers on one connection, byte by byte, over a transport that notes what is sent."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from mimir_ingest.api.connection import Connection, ConnectionLimits, ListenerState
from mimir_ingest.api.errors import Answer
from mimir_ingest.api.repeated_head import facts_of
from mimir_ingest.api.server import HttpServer


class Wire:
    """A transport."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.unread = 0
        self.closed = self.aborted = self.paused = False

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.sent.append(data)

    def writelines(self, pieces) -> None:
        self.write(b"".join(pieces))

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return self.unread

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


class Peer:
    """A connection with an application: `asked` has its scopes and the bodies that it received."""

    def __init__(self, application=None, *, limits=None) -> None:
        self.asked: list[tuple[dict, bytes]] = []
        self.left = 0
        state = ListenerState(application or self.echo, limits or ConnectionLimits(), idle_timeout_s=60, tls=False)
        self.state, self.wire, self.connection = state, Wire(), Connection(state)
        self.connection.connection_made(self.wire)

    async def echo(self, scope, receive, send) -> None:
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.left += 1
                return
            body += message["body"]
            if not message["more_body"]:
                break
        asked = {name: value for name, value in scope.items() if name not in ("traffic", "header_facts")}
        self.asked.append(({**asked, "headers": list(scope["headers"])}, body))
        await Answer(200, body or scope["raw_path"]).send(send)

    async def settle(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)

    async def say(self, *pieces: bytes) -> bytes:
        """Send pieces one after another; return what was answered since."""
        before = len(self.wire.sent)
        for piece in pieces:
            if not self.wire.closed:
                self.connection.data_received(piece)
                await self.settle()
        return b"".join(self.wire.sent[before:])


def undated(answer: bytes) -> bytes:
    return b"\r\n".join(line for line in answer.split(b"\r\n") if not line.startswith(b"date: "))


GET = b"GET /a%2Fb?x=%20y HTTP/1.1\r\nHost: x\r\nX-One: 1\r\nx-one: 2\r\n\r\n"
REQUESTS = {
    "get": GET,
    "length": b"POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
    "chunks": b"POST /p HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3\r\nabc\r\n2;e=f\r\nde\r\n0\r\nX-T: 1\r\n\r\n",
    "expect": b"POST /p HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi",
    "http/1.0": b"GET /old HTTP/1.0\r\n\r\n",
    "upgrade": b"POST /p HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 2\r\n\r\nhi",
    "close": b"GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
}


@pytest.mark.parametrize("name", REQUESTS)
async def test_a_request_is_the_same_wherever_its_bytes_are_parted(name):
    data = REQUESTS[name]
    whole = Peer()
    answer = undated(await whole.say(data)).removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
    ways = [[data[:i], data[i:]] for i in range(1, len(data))] + [[bytes([byte]) for byte in data]]
    for pieces in ways:
        peer = Peer()
        assert undated(await peer.say(*pieces)).removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n") == answer, pieces
        assert peer.asked == whole.asked
        assert peer.wire.closed == whole.wire.closed == (name in ("http/1.0", "close"))


async def test_a_scope_says_what_was_asked():
    peer = Peer()
    await peer.say(GET)
    scope, body = peer.asked[0]
    assert (scope["method"], scope["http_version"], scope["scheme"], body) == ("GET", "1.1", "http", b"")
    assert (scope["path"], scope["raw_path"], scope["query_string"]) == ("/a/b", b"/a%2Fb", b"x=%20y")
    assert scope["headers"] == [(b"host", b"x"), (b"x-one", b"1"), (b"x-one", b"2")]


async def test_an_answer_is_one_write():
    peer = Peer()
    answer = await peer.say(GET)
    assert len(peer.wire.sent) == 1
    head, _, body = answer.partition(b"\r\n\r\n")
    assert body == b"/a%2Fb"
    assert sorted(line.partition(b": ")[0] for line in head.split(b"\r\n")[1:]) == [b"content-length", b"date"]


async def test_requests_sent_at_once_wait_for_those_before_them_and_no_more_are_read():
    gates = {b"/1": asyncio.Event(), b"/2": asyncio.Event(), b"/3": asyncio.Event()}

    async def application(scope, receive, send) -> None:
        begun.append(scope["raw_path"])
        await gates[scope["raw_path"]].wait()
        await Answer(200, scope["raw_path"]).send(send)

    begun: list[bytes] = []
    peer = Peer(application)
    await peer.say(b"".join(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path for path in gates))
    assert begun == [b"/1"]
    assert peer.wire.paused
    for i, (path, gate) in enumerate(gates.items()):
        assert len(peer.wire.sent) == i
        gate.set()
        await peer.settle()
        assert peer.wire.sent[i].endswith(path)
    assert not peer.wire.paused
    assert begun == list(gates)


async def test_a_client_that_leaves_is_told_to_the_one_that_answers_and_to_nobody_else():
    peer = Peer()
    await peer.say(b"POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhe")
    peer.connection.connection_lost(None)
    await peer.settle()
    assert (peer.left, peer.asked, peer.wire.sent) == (1, [], [])
    assert not peer.state.connections
    assert not peer.state.running


async def test_what_is_sent_to_a_client_that_has_left_goes_nowhere_and_what_waits_behind_never_begins():
    gate = asyncio.Event()
    begun = []

    async def application(scope, receive, send) -> None:
        begun.append(scope["raw_path"])
        assert (await receive())["type"] == "http.request"
        await gate.wait()
        assert (await receive())["type"] == "http.disconnect"
        await Answer(200, b"late").send(send)

    peer = Peer(application)
    await peer.say(GET + GET)
    peer.connection.connection_lost(ConnectionResetError())
    gate.set()
    await peer.settle()
    assert (begun, peer.wire.sent) == ([b"/a%2Fb"], [])
    assert not peer.state.running


async def stream(scope, receive, send) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for piece in (b"ab", b"", b"cde"):
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body"})


async def test_a_body_of_unknown_length_is_chunked_and_its_head_leaves_with_the_first_piece():
    peer = Peer(stream)
    await peer.say(GET)
    assert [undated(sent).partition(b"\r\n\r\n")[2] or sent for sent in peer.wire.sent] == [
        b"2\r\nab\r\n",
        b"3\r\ncde\r\n",
        b"0\r\n\r\n",
    ]
    assert b"transfer-encoding: chunked" in peer.wire.sent[0]


async def test_a_client_of_http_1_0_gets_no_chunks_but_the_end_of_the_connection():
    peer = Peer(stream)
    answer = undated(await peer.say(b"GET / HTTP/1.0\r\n\r\n"))
    assert answer == b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nabcde"
    assert peer.wire.closed


async def test_answers_without_a_body_have_none():
    peer = Peer()
    head = await peer.say(GET.replace(b"GET", b"HEAD"))
    assert b"content-length: 6" in head
    assert head.endswith(b"\r\n\r\n")

    async def nothing(scope, receive, send) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    assert undated(await Peer(nothing).say(GET)) == b"HTTP/1.1 204 No Content\r\n\r\n"


async def test_a_client_is_told_to_continue_if_its_body_is_wanted_only():
    head, body = REQUESTS["expect"][:-2], REQUESTS["expect"][-2:]
    peer = Peer()
    assert await peer.say(head) == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert (await peer.say(body)).endswith(b"hi")

    async def refuse(scope, receive, send) -> None:
        await Answer(413).send(send)

    assert (await Peer(refuse).say(head)).startswith(b"HTTP/1.1 413 ")


def broken(*, after: int, headers=((b"content-length", b"4"),)):
    async def application(scope, receive, send) -> None:
        messages = [
            {"type": "http.response.start", "status": 200, "headers": list(headers)},
            {"type": "http.response.body", "body": b"ab", "more_body": True},
        ]
        for message in messages[:after]:
            await send(message)
        raise RuntimeError("broken")

    return application


@pytest.mark.parametrize("after", [0, 1, 2])
async def test_an_application_that_fails_is_a_500_or_the_end_of_what_was_begun(after):
    peer = Peer(broken(after=after))
    answer = await peer.say(GET)
    assert peer.wire.closed
    if after < 2:
        assert answer.startswith(b"HTTP/1.1 500 ")
        assert b"connection: close" in answer
        assert answer.endswith(b"internal error\n")
    else:
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert answer.endswith(b"\r\n\r\nab")


@pytest.mark.parametrize(
    "header", [(b"x-a", b"a\r\nx-b: c"), (b"x-a", b"a\nb"), (b"x a", b"b"), (b"", b"b"), (b"x-a", b"\x00")]
)
async def test_a_header_that_would_be_two_is_never_sent(header):
    peer = Peer(broken(after=1, headers=[header]))
    assert (await peer.say(GET)).startswith(b"HTTP/1.1 500 ")


@pytest.mark.parametrize("body", [b"abc", b"abcde"])
async def test_a_body_that_has_not_its_announced_length_ends_the_connection(body):
    async def application(scope, receive, send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
        await send({"type": "http.response.body", "body": body})

    peer = Peer(application)
    answer = await peer.say(GET)
    assert peer.wire.closed
    assert not answer.startswith(b"HTTP/1.1 200 ")


async def test_a_500_is_not_framed_as_what_it_replaces():
    answer = await Peer(broken(after=1, headers=[])).say(GET)
    assert b"chunked" not in answer
    assert answer.endswith(b"\r\n\r\ninternal error\n")


async def test_an_application_that_answers_nothing_is_a_500():
    async def silent(scope, receive, send) -> None:
        return

    assert (await Peer(silent).say(GET)).startswith(b"HTTP/1.1 500 ")


@pytest.mark.parametrize("leaves", [False, True])
async def test_an_answer_waits_for_a_client_that_reads_slowly_until_it_reads_or_leaves(leaves):
    peer = Peer(stream)
    peer.connection.pause_writing()
    assert await peer.say(GET) == b""
    assert peer.state.running
    if leaves:
        peer.connection.connection_lost(None)
    else:
        peer.connection.resume_writing()
    await peer.settle()
    assert bool(peer.wire.sent) is not leaves
    assert not peer.state.running


async def test_a_long_body_is_read_as_it_is_wanted():
    gate = asyncio.Event()
    received = []

    async def application(scope, receive, send) -> None:
        await gate.wait()
        more = True
        while more:
            message = await receive()
            received.append(len(message["body"]))
            more = message["more_body"]
        await Answer(200).send(send)

    peer = Peer(application)
    await peer.say(b"POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n", bytes(60_000), bytes(60_000))
    assert peer.wire.paused
    gate.set()
    await peer.settle()
    assert not peer.wire.paused
    assert (await peer.say(bytes(80_000))).startswith(b"HTTP/1.1 200 ")
    assert received == [120_000, 80_000]


async def test_deadlines_are_those_of_the_part_of_the_request_that_is_under_way():
    limits = ConnectionLimits(read_timeout_s=30, read_header_timeout_s=10, write_timeout_s=20)
    gate = asyncio.Event()

    async def application(scope, receive, send) -> None:
        while (await receive())["more_body"]:
            pass
        await gate.wait()
        await Answer(200, b"x").send(send)

    def closes(peer: Peer, after_s: float) -> bool:
        peer.connection.check_deadlines(peer.state.loop.time() + after_s)
        return peer.wire.aborted

    for pieces, seconds in (
        ((), 10),
        ((b"GET / HTTP",), 10),
        ((b"POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nab",), 20),
        ((GET,), 20),
    ):
        peer = Peer(application, limits=limits)
        await peer.say(*pieces)
        assert not closes(peer, seconds - 1), pieces
        assert closes(peer, seconds + 1), pieces
    gate.set()
    idle = Peer(application, limits=limits)
    await idle.say(GET)
    assert not closes(idle, 59)
    assert not idle.wire.closed
    assert not closes(idle, 61)
    assert idle.wire.closed
    unread = Peer(application, limits=limits)
    unread.wire.unread = 1
    await unread.say(GET)
    assert closes(unread, 21)


async def test_the_end_waits_for_answers_and_cancels_what_takes_longer_than_it_may():
    async def application(scope, receive, send) -> None:
        begun.set()
        if scope["path"] == "/long":
            await asyncio.Event().wait()
        await gate.wait()
        await Answer(200, b"done").send(send)

    for path, grace_s in ((b"/short", 20), (b"/long", 0.05)):
        begun, gate = asyncio.Event(), asyncio.Event()
        server = HttpServer(host="127.0.0.1", port=0, idle_timeout_s=60, graceful_timeout_s=grace_s)
        port = server.listen()
        await server.serve(application)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % path)
        await begun.wait()
        stopping = asyncio.create_task(server.stop())
        await asyncio.sleep(0.02)
        gate.set()
        answer = b""
        with contextlib.suppress(ConnectionError):
            answer = await asyncio.wait_for(reader.read(), 20)
        await stopping
        await server.stop()
        assert answer.startswith(b"HTTP/1.1 200 " if path == b"/short" else b"HTTP/1.1 500 ")
        assert b"connection: close" in answer
        writer.close()
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", port)


REPEATED = [
    b"GET /prometheus/api/v1/query?query=up%7Ba%3D%22b%22%7D&time=1 HTTP/1.1\r\n",
    b"GET /a%2Fb?x=%20y HTTP/1.1\r\n",
    b"GET /a?b?c=/d HTTP/1.1\r\n",
    b"GET //a/../b? HTTP/1.1\r\n",
    b"GET /a#b?c HTTP/1.1\r\n",
    b"GET http://other/a?b HTTP/1.1\r\n",
    b"GET /%ff HTTP/1.1\r\n",
    b'GET /<a>"|{}\\^`~ HTTP/1.1\r\n',
    b"HEAD /a HTTP/1.1\r\n",
    b"POST /a HTTP/1.1\r\n",
    b"GET /a HTTP/1.0\r\n",
    b"GET /a  HTTP/1.1\r\n",
    b"GET  /a HTTP/1.1\r\n",
    b"GET /a b HTTP/1.1\r\n",
    b"GET /a\x7f HTTP/1.1\r\n",
    b"GET /\xc3\xa9 HTTP/1.1\r\n",
    b"GET /a HTTP/1.1\r\nX-More: 1\r\n",
    b"GET /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n",
    b"\r\nGET /a HTTP/1.1\r\n",
]
HEADERS = {
    "plain": b"Host: x\r\nX-One: 1\r\nx-one: 2\r\n\r\n",
    "close": b"Host: x\r\nConnection: close\r\n\r\n",
    "expect": b"Host: x\r\nExpect: 100-continue\r\n\r\n",
    "no body": b"Host: x\r\nContent-Length: 0\r\n\r\n",
    "body": b"Host: x\r\nContent-Length: 3\r\n\r\nabc",
    "chunks": b"Host: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "upgrade": b"Host: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
}


@pytest.mark.parametrize("headers", HEADERS)
async def test_a_request_means_the_same_after_another_with_its_headers(headers):
    for line in REPEATED:
        request = line + HEADERS[headers]
        first, second = Peer(), Peer()
        wanted = undated(await first.say(request))
        before = await second.say(b"GET /before HTTP/1.1\r\n" + HEADERS[headers])
        assert before.count(b"HTTP/1.1 200 OK") == 1
        if second.wire.closed:
            continue
        assert undated(await second.say(request)) == wanted, line
        assert second.wire.closed == first.wire.closed
        assert second.asked[1:] == first.asked


async def test_a_repeated_request_in_pieces_or_while_another_is_answered_is_parsed():
    peer = Peer()
    again = b"GET /again HTTP/1.1\r\nHost: x\r\n\r\n"
    await peer.say(again, again, again[:7], again[7:], again + again[:9], again[9:], again)
    assert [scope["raw_path"] for scope, _ in peer.asked] == [b"/again"] * 6
    gate = asyncio.Event()

    async def waits(scope, receive, send):
        await gate.wait()
        await Answer(200, scope["raw_path"]).send(send)

    slow = Peer(waits)
    await slow.say(again, again.replace(b"again", b"other"), again)
    assert not slow.wire.sent
    gate.set()
    await slow.settle()
    await slow.settle()
    assert [sent.rpartition(b"\r\n")[2] for sent in slow.wire.sent] == [b"/again", b"/other", b"/again"]


async def test_what_was_worked_out_from_headers_holds_for_these_headers_only():
    facts = []

    async def application(scope, receive, send):
        found = facts_of(scope)
        facts.append(found.setdefault("who", dict(scope["headers"])[b"host"]))
        facts.append(facts_of({**scope, "headers": list(scope["headers"])}))
        await Answer(200).send(send)

    peer = Peer(application)
    for host in (b"x", b"x", b"x", b"y", b"y", b"x"):
        await peer.say(b"GET /a HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
    assert facts[::2] == [b"x", b"x", b"x", b"y", b"y", b"x"]
    assert facts[1::2] == [{}] * 6
