"""Hostile HTTP to a running program: `python -m tests.fuzz.connections --url URL --pid PID --rounds 100`.

Any of its listeners: over TLS with `--ca FILE`, with a client's certificate with `--certificate FILE --key FILE`.

Every request gets a status below 500 (501 for a method or encoding that HTTP itself does not know) or a closed
connection, within a second or so; afterwards the process holds as many descriptors as before. A line of the output is
what did not, or begins with `#`.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import socket
import ssl
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from tests.fuzz.hostile_requests import CLOSE, GET, GET_OF, PATHS, bodies, framing, lines

WAIT_S = 8.0


class Target:
    """The program's listener and process; `tls` is None for plain HTTP."""

    def __init__(self, url: str, pid: int, tls: ssl.SSLContext | None = None) -> None:
        parts = urlsplit(url)
        self._address = parts.hostname, parts.port
        self._pid = pid
        self.tls = tls

    def connect(self) -> socket.socket:
        """Open a connection."""
        peer = self.connect_plainly()
        if self.tls is None:
            return peer
        try:
            return self.tls.wrap_socket(peer, server_hostname=self._address[0])
        except BaseException:
            peer.close()
            raise

    def connect_plainly(self) -> socket.socket:
        """Open a connection without TLS."""
        return socket.create_connection(self._address, timeout=WAIT_S)

    def send(
        self, data: bytes, *, half_close: bool = False, pieces: int = 1, briefly: bool = False
    ) -> tuple[list[int], bool, bytes]:
        """Send; return (statuses, whether the connection was left hanging, the answer).

        `briefly`: do not wait for the end behind an answer.
        """
        answer = b""
        with self.connect() as peer:
            try:
                size = max(1, -(-len(data) // pieces))
                for at in range(0, len(data), size):
                    peer.sendall(data[at : at + size])
                if half_close and not isinstance(peer, ssl.SSLSocket):  # TLS has no half of a connection
                    peer.shutdown(socket.SHUT_WR)
                answer = _read(peer, briefly=briefly)
            except TimeoutError as error:
                return _statuses(answer := error.args[0]), True, answer
            except OSError:
                pass
        return _statuses(answer), False, answer

    def send_after(self, first: bytes, second: bytes, last: bytes) -> list[int]:
        """Send one request after the other on one connection, each when the answer to the one before is there."""
        answer = b""
        with self.connect() as peer:
            peer.settimeout(WAIT_S)
            try:
                for data in (first, second):
                    peer.sendall(data)
                    before = len(_statuses(answer))
                    while len(_statuses(answer)) == before and (piece := peer.recv(1 << 20)):
                        answer += piece
                peer.sendall(last)
                answer += _read(peer)
            except TimeoutError:
                return [*_statuses(answer), 599]
            except OSError:
                pass
        return _statuses(answer)

    def told(self, statuses: Counter[int]) -> str:
        """Say how many requests were answered how, and what the process holds."""
        descriptors, threads = (len(os.listdir(f"/proc/{self._pid}/{what}")) for what in ("fd", "task"))
        resident = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{self._pid}/status").read_text())
        answers = dict(sorted(statuses.items()))
        return f"{sum(answers.values())} answers {answers}, {descriptors} fds, {threads} threads, {resident[1]} KiB"


def judge(target: Target, data: bytes, statuses: Counter[int], **how: bool | int) -> tuple[str, bool]:
    """Send one request; return what was wrong with its answer, and whether the connection stayed open behind it."""
    begun = time.monotonic()
    found, hanging, answer = target.send(data, **how)
    took = time.monotonic() - begun
    statuses.update(found or [0])
    heads = b"\r\n".join(re.findall(rb"HTTP/1\.[01] \d{3} .*?\r\n\r\n", answer, re.DOTALL))
    wrong = [status for status in found if status >= 500 and status != 501]
    injected = re.search(rb"\r\n(Set-Cookie|X):", heads, re.IGNORECASE)
    if wrong or injected or (hanging and not found):
        return f"{found} in {took:.2f} s, open: {hanging}, {answer[:200]!r}", hanging
    return "", hanging


def _read(peer: socket.socket, *, briefly: bool = False) -> bytes:
    """Return all until the end, or the first answer. Raises TimeoutError with what came when that takes WAIT_S."""
    answer, until = bytearray(), time.monotonic() + WAIT_S
    try:
        while time.monotonic() < until and (piece := peer.recv(1 << 16)):
            answer += piece
            if briefly and _statuses(answer):
                break
    except TimeoutError:
        raise TimeoutError(bytes(answer)) from None
    except OSError:
        pass
    return bytes(answer)


def _statuses(answer: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.[01] (\d{3}) ", answer)]


def repeated(target: Target, statuses: Counter[int]) -> Iterator[str]:
    """Send requests with the headers of the one before, which are not parsed again; give what is wrong."""
    first, last = GET_OF % b"/ready" + b"\r\n", GET_OF % b"/ready" + CLOSE
    odd = [GET_OF % path + b"\r\n" for path in PATHS]
    odd += [
        first[:4] + b"\0" + first[4:],
        first.lower(),
        first + first[:-2],
        b"\r\n" + first,
        first.replace(b" ", b"\t", 1),
    ]
    odd += [
        first.replace(b"/ready", path) for path in (b"/a b", b"/\xc3\xa9", b"/a#b?c#d", b"", b"/a HTTP/1.1\r\nX: y")
    ]
    for data in odd:
        found = target.send_after(first, data, last)
        statuses.update(found)
        if len(found) < 2 or any(status >= 500 and status != 501 for status in found):
            yield f"{found} to {data[:100]!r}"


def no_handshakes(target: Target) -> Iterator[str]:
    """Send to a TLS listener what is no TLS, or the beginning of some; give what is wrong."""
    hello = bytes.fromhex("16030100f1010000ed0303") + random.Random(1).randbytes(236)
    alert, early = bytes.fromhex("15030300020228"), bytes.fromhex("1703030020") + bytes(32)
    records = [b"\x16\x03\x01" + bytes([size >> 8, size & 255]) + bytes(200) for size in (0, 1, 16384, 65535)]
    odd = [hello, hello[:40], hello + early, alert, early, GET + CLOSE, b"\x80\x2e\x01\x03\x01" + bytes(60), *records]
    for data in odd:
        with target.connect_plainly() as peer:
            peer.settimeout(0.3)  # some are the beginning of what might follow
            peer.sendall(data)
            try:
                answer = _read(peer)
            except TimeoutError as error:
                answer = error.args[0]
        if answer[:1] not in (b"", b"\x15", b"\x16"):  # an alert or a handshake
            yield f"{data[:20]!r}: {answer[:100]!r}"


def idle_connections(target: Target, count: int) -> str:
    """Hold many connections that send nothing or the beginning of a head, and ask meanwhile."""
    held = []
    for i in range(count):
        try:
            # Of a TLS listener every third is never greeted.
            peer = target.connect() if target.tls is None or i % 3 else target.connect_plainly()
        except OSError:
            break
        if i % 2:
            peer.sendall(GET[: 10 + i % 60])
        held.append(peer)
    begun = time.monotonic()
    statuses, _, _ = target.send(GET + CLOSE)
    took = time.monotonic() - begun
    for peer in held:
        peer.close()
    return f"{len(held)} idle connections: asked meanwhile {statuses} in {took:.3f} s"


def attack(target: Target, *, rounds: int, idle: int) -> Iterator[str]:
    """Send everything, `rounds` times; give what was wrong and, marked with `#`, how far it is."""
    everything = framing() | lines()
    heavy = bodies()
    statuses: Counter[int] = Counter()
    kept: set[str] = set()
    for number in range(rounds):
        chosen = everything | (heavy if number % 20 == 0 else {})
        for name in chosen.keys() - kept:
            odd, open_after = judge(
                target, chosen[name], statuses, half_close=number % 3 == 2, pieces=1 + 6 * (number % 2)
            )
            if open_after:
                kept.add(name)
            if odd:
                yield f"round {number}, {name}: {odd}"
        if number % 5 == 0:
            yield from (f"round {number}, repeated head: {odd}" for odd in repeated(target, statuses))
            if target.tls is not None:
                yield from (f"round {number}, no handshake: {odd}" for odd in no_handshakes(target))
            yield f"# {target.told(statuses)}"
    yield f"# {idle_connections(target, idle)}"
    time.sleep(2)
    yield f"# {target.told(statuses)}"


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--pid", type=int, required=True)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--idle", type=int, default=3000)
    parser.add_argument("--ca", help="who signed the listener's certificate")
    parser.add_argument("--certificate", help="the client's")
    parser.add_argument("--key", help="the client's")
    given = parser.parse_args()
    tls = None
    if given.ca:
        tls = ssl.create_default_context(cafile=given.ca)
        if given.certificate:
            tls.load_cert_chain(given.certificate, given.key)
    for line in attack(Target(given.url, given.pid, tls), rounds=given.rounds, idle=given.idle):
        print(line, flush=True)


if __name__ == "__main__":
    main()
