"""Requests made up from the API's description for hours: `python -m tests.fuzz.described --seconds 1800 --report FILE`.

Two programs: one that asks nobody who is there, one with credentials, tenants and a listener for operators; of each
also the internal listener. Valid and invalid requests to every operation in turn. The report has a line of JSON a round
and one for every answer that should not be; FILE.open.log and FILE.closed.log are the programs' logs.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import bcrypt
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from hypothesis.strategies import SearchStrategy
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import Failure, FailureGroup
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance

from tests.support import remote_write
from tests.support.openapi import document, internal_document
from tests.support.peers import pick_free_port
from tests.support.program import Program

TIMEOUT_S = 60
FLAGS = [
    "-distributor.influx-endpoint-enabled=true",
    "-querier.cardinality-analysis-enabled=true",
    "-querier.timeout=5s",  # what an owner waits for offsets that will not come
    "-server.admin-listen-address=127.0.0.1",
]
CREDENTIALS = f"""
basic_auth_users:
  prometheus: {bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()}
bearer_tokens:
  grafana: {hashlib.sha256(b"token").hexdigest()}
  operator: {hashlib.sha256(b"root").hexdigest()}
tenants:
  prometheus: [anonymous]
  grafana: [anonymous, a, b]
  operator: ["*"]
"""
AUTHORIZATIONS = [
    *["Bearer root"] * 10,
    *["Bearer token"] * 4,
    "Basic cHJvbWV0aGV1czpzZWNyZXQ=",
    "Basic cHJvbWV0aGV1czo=",
    "Basic !",
    "Bearer",
    "\xff",
    None,
]
TENANT_PATHS = "/api/", "/otlp/", "/prometheus/", "/ready"
"""Beginnings of what the tenants' listener has where operators have one of their own."""


@schemathesis.serializer("application/x-protobuf", "application/x-protobuf;proto=io.prometheus.write.v2.Request")
def protobuf(_context: object, value: object) -> bytes:
    """Return a made-up body as it is sent."""
    return value.encode("utf-8", "surrogatepass") if isinstance(value, str) else bytes(value)


def may_fail(method: str, text: str, status: int) -> bool:
    """Whether it is to answer so.

    As Mimir: a time-out that the request asked for, and what was never implemented. An owner: what it does not own or
    its log does not have, so that the querier asks elsewhere. 501: what does not exist here.
    """
    return (
        status == 501
        or (status == 503 and "timed out" in text)
        or (method == "DELETE" and "not implemented" in text)
        or (status == 500 and '"retriable":true' in text)
    )


def text_of(response: schemathesis.Response) -> str:
    """Return an answer's body for people."""
    return response.content.decode("utf-8", "replace")


def check(case: schemathesis.Case, response: schemathesis.Response) -> None:
    """Raise FailureGroup unless the answer is one, in a form that is described, and not a failure."""
    checks = [content_type_conformance, response_schema_conformance] if response.content else []
    if not may_fail(case.method, text_of(response), response.status_code):
        checks.append(not_a_server_error)
    if checks:  # none would be all
        case.validate_response(response, checks=checks)


def push_samples(program: Program, **headers: str) -> int:
    """Give the program what the described queries ask for; return the time (ms) of the last of it."""
    now_ms = int(time.time() * 1000)
    samples = [(now_ms - k * 15_000, float(k)) for k in range(20, 0, -1)]
    series = [({"__name__": "up", "job": job}, samples) for job in "ab"]
    series += [({"__name__": "h", "le": le}, samples) for le in ("1", "2", "+Inf")]
    sent = {"Content-Encoding": "snappy", "Content-Type": "application/x-protobuf", **headers}
    answer = program.http.post("/api/v1/push", content=remote_write.body(series), headers=sent)
    assert answer.status_code == 200, answer.text
    return now_ms


@dataclass(frozen=True, slots=True)
class Listener:
    """One listener of a program and what is described of it."""

    name: str
    program: Program
    url: str
    operations: list
    asks_who: bool
    wants_tenant: bool


class Run:
    """Counts and reports."""

    def __init__(self, report: Path) -> None:
        self._report = report.open("a", encoding="utf-8")
        self._chance = random.Random()
        self._seen: set[tuple[str, str]] = set()
        self.answers: Counter[str] = Counter()
        self.slowest: dict[str, float] = {}

    def write(self, **fields: object) -> None:
        self._report.write(json.dumps(fields) + "\n")
        self._report.flush()

    def one(self, listener: Listener, case: schemathesis.Case) -> None:
        """Send one request and judge its answer."""
        if listener.asks_who and (who := self._chance.choice(AUTHORIZATIONS)) is not None:
            case.headers["Authorization"] = who
        if listener.wants_tenant and self._chance.random() < 0.9:
            case.headers["X-Scope-OrgID"] = "anonymous"
        place, begun = f"{listener.name} {case.method} {case.path}", time.monotonic()
        try:
            response = case.call(base_url=listener.url, timeout=TIMEOUT_S)
        except requests.RequestException as error:
            self.answers[f"{listener.name} {type(error).__name__}"] += 1
            self._wrong(listener, place, case, type(error).__name__, str(error))
            return
        took = time.monotonic() - begun
        self.answers[f"{listener.name} {response.status_code}"] += 1
        self.slowest[place] = max(self.slowest.get(place, 0.0), round(took, 2))
        try:
            check(case, response)
        except FailureGroup as failures:
            for failure in failures.exceptions:
                self._wrong(listener, place, case, type(failure).__name__, f"{failure}\n{text_of(response)[:1000]}")
        except Failure as failure:
            self._wrong(listener, place, case, type(failure).__name__, f"{failure}\n{text_of(response)[:1000]}")

    def _wrong(self, listener: Listener, place: str, case: schemathesis.Case, kind: str, text: str) -> None:
        if (place, kind) not in self._seen:
            self._seen.add((place, kind))
            curl = case.as_curl_command()[:20_000]
            self.write(wrong=place, kind=kind, text=text[:3000], curl=curl, log=listener.program.log_tail(3000))

    def every_operation(self, listener: Listener, examples: int, until_s: float) -> None:
        """Make up requests to each operation of a listener."""
        for operation in listener.operations:
            for mode in schemathesis.GenerationMode:
                if time.monotonic() > until_s:
                    return
                with contextlib.suppress(Unsatisfiable):  # nothing about some operations can be wrong
                    self._made_up(listener, operation.as_strategy(generation_mode=mode), examples)()

    def _made_up(self, listener: Listener, cases: SearchStrategy, examples: int) -> Callable[[], None]:
        @seed(self._chance.getrandbits(64))
        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=cases)
        def send(case: schemathesis.Case) -> None:
            self.one(listener, case)

        return send


def operations_of(described: dict) -> list:
    """Return the operations of a document."""
    return [result.ok() for result in schemathesis.openapi.from_dict(described).get_all_operations()]


def start(stack: contextlib.ExitStack, folder: Path, report: Path, *, closed: bool) -> tuple[Program, list[Listener]]:
    """Start a program that asks who is there, or does not, until the stack unwinds; return it with its listeners."""
    internal, admin = pick_free_port(), pick_free_port()
    flags = [*FLAGS, f"-server.grpc-listen-port={internal}"]
    if closed:
        file = folder / "credentials.yaml"
        file.write_text(CREDENTIALS)
        flags += [f"-auth.credentials-file={file}", f"-server.admin-listen-port={admin}"]
        flags += ["-tenant-federation.enabled=true"]
    program = Program(folder / "program", *flags, multitenancy=closed)
    name = "closed" if closed else "open"
    program.log_path = Path(f"{report.resolve()}.{name}.log")
    program.log_path.unlink(missing_ok=True)
    stack.enter_context(program).start(timeout_s=600)
    push_samples(program, **({"Authorization": "Bearer token", "X-Scope-OrgID": "anonymous"} if closed else {}))
    everything, inside = operations_of(document()), operations_of(internal_document())
    found = [Listener(f"{name}, internal", program, f"http://127.0.0.1:{internal}", inside, False, True)]
    if closed:
        tenants = [one for one in everything if one.path.startswith(TENANT_PATHS)]
        others = [one for one in everything if one not in tenants]
        found.append(Listener("closed", program, program.url, tenants, True, True))
        found.append(Listener("closed, operators", program, f"http://127.0.0.1:{admin}", others, True, False))
    else:
        found.append(Listener("open", program, program.url, everything, False, False))
    return program, found


def judge_program(run: Run, program: Program, round_number: int, began_s: float) -> None:
    """Write how the program is, and the first traceback in its log, if there is one."""
    log = program.log_path.read_text(encoding="utf-8", errors="replace")
    at = log.find("Traceback")
    if at >= 0:
        run.write(traceback=log[max(0, at - 1500) : at + 4000], program=program.log_path.name)
    status = Path(f"/proc/{program.process.pid}/status").read_text(encoding="utf-8")
    resident = next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:"))
    ready = program.http.get("/ready").status_code
    at_s = round(time.monotonic() - began_s)
    run.write(at_s=at_s, round=round_number, program=program.log_path.name, ready=ready, rss_kib=int(resident))


def attack(run: Run, running: Iterable[tuple[Program, list[Listener]]], *, seconds: float, examples: int) -> None:
    """Go round until it is time."""
    began_s, number = time.monotonic(), 0
    while time.monotonic() < began_s + seconds:
        for program, listeners in running:
            for listener in listeners:
                run.every_operation(listener, examples, began_s + seconds)
            judge_program(run, program, number, began_s)
        run.write(
            answers=dict(sorted(run.answers.items())), slowest=sorted(run.slowest.items(), key=lambda x: -x[1])[:8]
        )
        number += 1


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--report", type=Path, required=True)
    parser.add_argument("--examples", type=int, default=20, help="of an operation, a round, valid and invalid each")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="described-") as folder, contextlib.ExitStack() as stack:
        running = []
        for closed in (False, True):
            inside = Path(folder) / ("closed" if closed else "open")
            inside.mkdir()
            running.append(start(stack, inside, asked.report, closed=closed))
        attack(Run(asked.report), running, seconds=asked.seconds, examples=asked.examples)


if __name__ == "__main__":
    main()
