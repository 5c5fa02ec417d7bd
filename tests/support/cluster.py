"""A cluster of local processes on one log and one bucket: ingesters in zones, distributors, queriers.

`Load` pushes rounds through the distributors and knows exactly what was acknowledged; `Checker` asks the queriers all
the while, and holds every answer against that.
"""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable
from pathlib import Path

import httpx

from partitions.model import PartitionState
from tests.support.observe import wait_until
from tests.support.program import Program
from tests.support.remote_write import body

SERIES = 60
STEP_MS = 1000
OFFSETS_HEADER = "X-Read-Consistency-Offsets"


class Cluster:
    """The processes by name. Whoever makes one ends it: use it as a context manager."""

    def __init__(self, directory: Path, *log_flags: str) -> None:
        self.directory = directory
        self.bucket = directory / "bucket"
        self.programs: dict[str, Program] = {}
        self._targets: dict[str, str] = {}
        self._flags = [
            *log_flags,
            f"-blocks-storage.filesystem.dir={self.bucket}",
            "-server.grpc-listen-port=0",
            "-server.grpc-listen-address=127.0.0.1",
            "-ingester.ring.instance-addr=127.0.0.1",
            "-distributor.ring.instance-addr=127.0.0.1",
            "-ingester.ring.heartbeat-period=1s",
            "-ingester.ring.heartbeat-timeout=10s",
            "-ingester.partition-ring.min-partition-owners-duration=0s",
            "-distributor.ingestion-rate-limit=1e9",
        ]

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        for program in self.programs.values():
            program.__exit__()

    def __getitem__(self, name: str) -> Program:
        return self.programs[name]

    def add(self, name: str, target: str, *flags: str) -> Program:
        """Make a process of a target; it is not started."""
        self._targets[name] = target
        ring = "distributor" if target == "distributor" else "ingester"
        program = self.programs[name] = Program(
            self.directory / name,
            f"-target={target}",
            f"-{ring}.ring.instance-id={name}",
            *self._flags,
            *flags,
        )
        return program

    def add_ingester(self, zone: str, number: int, *flags: str) -> Program:
        """Make an ingester of a zone, for the partition of this number."""
        return self.add(
            f"ingester-{zone}-{number}", "ingester", f"-ingester.ring.instance-availability-zone={zone}", *flags
        )

    def serving(self, component: str) -> list[Program]:
        """Return the running processes that have a component."""
        wanted = (component, "all")
        return [p for name, p in list(self.programs.items()) if self._targets[name] in wanted and is_running(p)]

    def start(self, names: Iterable[str]) -> None:
        """Start some processes at once; return when all of them are ready."""
        programs = [self.programs[name] for name in names]
        for program in programs:
            program.start(wait=False)
        for program in programs:
            program.wait_ready()

    def lose_disk(self, name: str) -> None:
        """Remove everything that a process, which does not run, has on its disk."""
        assert not is_running(self.programs[name])
        for path in self.programs[name].directory.iterdir():
            if path.is_dir():
                shutil.rmtree(path)

    def flush(self, name: str) -> None:
        """Have a process's partitions cut; return once all of it is in blocks."""
        answer = self.programs[name].http.post("/ingester/flush", params={"wait": "true"}, timeout=240)
        assert answer.status_code == 204, answer.text

    def partition_ring(self) -> dict[int, dict]:
        """Return the partition ring as a distributor sees it, by partition."""
        answer = self.serving("distributor")[0].http.get(
            "/ingester/partition-ring", headers={"Accept": "application/json"}
        )
        assert answer.status_code == 200, answer.text
        return {row["id"]: row for row in answer.json()["partitions"]}

    def wait_active(self, partitions: Iterable[int], timeout_s: float = 120) -> None:
        """Return once exactly these partitions are in the ring, all of them ACTIVE."""
        wanted = dict.fromkeys(partitions, PartitionState.ACTIVE)
        wait_until(
            lambda: {p: row["state"] for p, row in self.partition_ring().items()} == wanted,
            f"a ring of the ACTIVE partitions {sorted(wanted)}",
            timeout_s,
        )

    def begin(self, *arguments: str) -> Command:
        """Begin a command of the program with the cluster's flags."""
        return Command(self.directory, [*arguments, *self._flags])

    def replay(self, partitions: Iterable[int]) -> list[dict]:
        """Replay partitions against the bucket; every block of every zone has to be what the log says."""
        commands = [self.begin("replay", f"--partition={partition}", "--json") for partition in partitions]
        return [json.loads(command.end()) for command in commands]


class Command:
    """A command that runs beside the cluster."""

    def __init__(self, directory: Path, arguments: list[str]) -> None:
        self._errors = tempfile.TemporaryFile("w+", dir=directory)  # noqa: SIM115 it lives as long as the command
        program = Path(sys.executable).parent / "mimir-ingest"
        self._process = subprocess.Popen(
            [program, *arguments], stdout=subprocess.PIPE, stderr=self._errors, text=True, cwd=directory
        )

    def said(self) -> str:
        """Return what it has told on stderr so far."""
        self._errors.seek(0)
        return self._errors.read()

    def end(self, timeout_s: float = 300) -> str:
        """Wait until it has succeeded; return its output."""
        try:
            output, _ = self._process.communicate(timeout=timeout_s)
        finally:
            self._process.kill()
        assert self._process.returncode == 0, f"exit code {self._process.returncode}: {output}{self.said()}"
        self._errors.close()
        return output


def is_running(program: Program) -> bool:
    """Whether a process was started and has not ended."""
    return program.process is not None and program.process.poll() is None


def labels(i: int) -> dict[str, str]:
    """Return the label set of one of the load's series."""
    return {"__name__": "counted_total", "instance": f"host-{i:03d}", "job": "cluster"}


class Load(threading.Thread):
    """Pushes a round of all series a request, to any distributor, again until it is acknowledged."""

    def __init__(self, cluster: Cluster, *, pause_s: float = 0.2, timeout_s: float = 10.0) -> None:
        super().__init__(daemon=True)
        self._cluster, self._pause_s, self._timeout_s = cluster, pause_s, timeout_s
        self.start_ms = (int(time.time()) - 3000) * 1000
        self.rounds = 0
        """Rounds that were acknowledged."""
        self.offsets: dict[int, int] = {}
        """Last offset of what was acknowledged, by partition, as the pushes' answers said."""
        self.failures = 0
        """Requests that were not acknowledged, and were sent again."""
        self.refused: list[str] = []
        """Answers that a sender does not repeat a request after: there must be none."""
        self._stopping = threading.Event()

    def value(self, series: int, number: int) -> float:
        """Return the value that a series has in a round."""
        return float(number * SERIES + series)

    def run(self) -> None:
        turn = itertools.count()
        while not self._stopping.is_set():
            at = self.start_ms + self.rounds * STEP_MS
            payload = body([(labels(i), [(at, self.value(i, self.rounds))]) for i in range(SERIES)])
            while not self._push(payload, next(turn)):
                if self.refused or self._stopping.is_set():
                    return
                time.sleep(0.1)
            time.sleep(self._pause_s)

    def _push(self, payload: bytes, turn: int) -> bool:
        distributors = self._cluster.serving("distributor")
        if not distributors:
            return False
        try:
            answer = distributors[turn % len(distributors)].push(payload, timeout_s=self._timeout_s)
        except httpx.TransportError:
            self.failures += 1
            return False
        if answer.status_code // 100 == 2:
            for partition, offset in parse_offsets(answer.headers[OFFSETS_HEADER]).items():
                self.offsets = {**self.offsets, partition: max(offset, self.offsets.get(partition, -1))}
            self.rounds += 1
            return True
        if answer.status_code < 500:
            self.refused.append(answer.text)
        self.failures += 1
        return False

    def wait_rounds(self, count: int, timeout_s: float = 120) -> None:
        """Return once that many more rounds are acknowledged."""
        wanted = self.rounds + count
        deadline = time.monotonic() + timeout_s
        while self.rounds < wanted:
            assert not self.refused, self.refused
            assert self.is_alive()
            assert time.monotonic() < deadline, f"stuck at round {self.rounds} after {self.failures} failures"
            time.sleep(0.05)

    def finish(self) -> None:
        """Stop after the round that is under way is acknowledged or given up."""
        self._stopping.set()
        self.join(120)
        assert not self.is_alive()
        assert not self.refused, self.refused


def parse_offsets(header: str) -> dict[int, int]:
    """Read `v1=0:12,1:-1`."""
    version, _, listed = header.partition("=")
    assert version == "v1", header
    return {int(p): int(o) for p, _, o in (item.partition(":") for item in listed.split(",") if item)}


def format_offsets(offsets: dict[int, int]) -> str:
    """Write what `parse_offsets` reads."""
    return "v1=" + ",".join(f"{partition}:{offset}" for partition, offset in sorted(offsets.items()))


class Checker(threading.Thread):
    """Asks queriers for raw samples, some series at a time, and compares them with what was acknowledged before.

    Everything acknowledged before the query has to be there, once, with its value; beyond that only rounds that were on
    their way. A query may fail while parts of the cluster are gone; an answer may never be wrong.
    """

    def __init__(self, cluster: Cluster, load: Load, *, pause_s: float = 0.2) -> None:
        super().__init__(daemon=True)
        self._cluster, self._load, self._pause_s = cluster, load, pause_s
        self.answers = 0
        """Answers that were right."""
        self.wrong: list[str] = []
        """What was wrong with an answer: there must be none."""
        self.errors: list[str] = []
        """Queries that failed."""
        self._stopping = threading.Event()

    def run(self) -> None:
        for turn in itertools.count():
            if self._stopping.is_set() or self.wrong:
                return
            queriers = self._cluster.serving("querier")
            if queriers:
                self._ask(queriers[turn % len(queriers)], turn)
            time.sleep(self._pause_s)

    def check_all(self, querier: Program) -> None:
        """Ask one querier for all series, after `finish`."""
        for turn in range(10):
            answers = self.answers
            self._ask(querier, turn)
            assert self.answers == answers + 1, self.wrong or self.errors[-1:]

    def _ask(self, querier: Program, turn: int) -> None:
        load, digit = self._load, turn % 10
        rounds, offsets = load.rounds, load.offsets  # in this order: the offsets of a round are noted before it counts
        # Every other query reads its own writes by the offsets that the pushes' answers gave.
        header = {OFFSETS_HEADER: format_offsets(offsets)} if turn % 2 else {"X-Read-Consistency": "strong"}
        expression = f'counted_total{{instance=~"host-..{digit}"}}[{rounds + 60}s]'
        at = load.start_ms + (rounds + 30) * STEP_MS
        try:
            answer = querier.http.get(
                "/prometheus/api/v1/query",
                params={"query": expression, "time": f"{at / 1000:.3f}"},
                headers=header,
                timeout=30,
            )
        except httpx.TransportError as error:
            self.errors.append(f"{type(error).__name__}: {error}")
            return
        if answer.status_code != 200:
            self.errors.append(answer.text)
            return
        found = {r["metric"]["instance"]: r["values"] for r in answer.json()["data"]["result"]}
        for series in range(digit, SERIES, 10):
            problem = self._compare(series, found.get(labels(series)["instance"], []), rounds)
            if problem:
                self.wrong.append(f"query {turn} ({header}), series {series}, {rounds} rounds acknowledged: {problem}")
                return
        self.answers += 1

    def _compare(self, series: int, values: list, rounds: int) -> str:
        load = self._load
        got = [(round((t - load.start_ms / 1000) * 1000 / STEP_MS), float(v)) for t, v in values]
        wrong = [(n, v) for n, v in got if v != load.value(series, n)]
        if wrong:
            return f"wrong values {wrong[:5]}"
        numbers = [n for n, _ in got]
        if len(set(numbers)) != len(numbers):
            return f"samples twice: {sorted({n for n in numbers if numbers.count(n) > 1})[:5]}"
        missing = sorted(set(range(rounds)) - set(numbers))
        if missing:
            return f"{len(missing)} samples are missing, rounds {missing[:5]} to {missing[-1]}"
        # One round may be on its way, and others have been acknowledged since.
        ahead = [n for n in numbers if n >= rounds]
        return "" if ahead == list(range(rounds, rounds + len(ahead))) else f"a gap in rounds {ahead} after {rounds}"

    def wait_answers(self, count: int, timeout_s: float = 120) -> None:
        """Return once that many more answers were right."""
        wanted = self.answers + count
        deadline = time.monotonic() + timeout_s
        while self.answers < wanted:
            assert not self.wrong, self.wrong
            assert self.is_alive()
            assert time.monotonic() < deadline, f"queries fail: {self.errors[-3:]}"
            time.sleep(0.05)

    def finish(self) -> None:
        """Stop; every answer was right."""
        self._stopping.set()
        self.join(240)
        assert not self.is_alive()
        assert not self.wrong, self.wrong
