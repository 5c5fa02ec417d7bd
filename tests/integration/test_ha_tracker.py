"""Two senders of the same series through two distributors: one is stored, the other one takes over, nothing twice."""

from __future__ import annotations

import threading
import time
import uuid

import httpx
import pytest

from tests.support.cluster import Cluster
from tests.support.observe import metric, wait_until
from tests.support.program import Program
from tests.support.remote_write import body

SERIES = 3
STEP_MS = 200
FLAGS = (
    "-distributor.ha-tracker.enable=true",
    "-distributor.ha-tracker.enable-for-all-users=true",
    "-distributor.ha-tracker.update-timeout=1s",
    "-distributor.ha-tracker.update-timeout-jitter-max=500ms",
    "-distributor.ha-tracker.failover-timeout=12s",
)


@pytest.fixture(params=["embedded", pytest.param("kafka", marks=pytest.mark.kafka)])
def cluster(request, tmp_path):
    flags = [f"-ingest-storage.embedded.path={tmp_path / 'log'}", "-ingest-storage.embedded.partitions=1"]
    if request.param == "kafka":
        broker = request.getfixturevalue("kafka_broker")
        flags = [
            "-ingest-storage.log=kafka",
            f"-ingest-storage.kafka.address={broker.address}",
            f"-ingest-storage.kafka.topic=ha-{uuid.uuid4().hex[:8]}",
            "-ingest-storage.kafka.auto-create-topic-default-partitions=1",
        ]
    with Cluster(tmp_path, *flags, "-ingester.partition-ring.ownership=leases", *FLAGS) as cluster:
        cluster.add("first", "all")
        cluster.add("second", "distributor")
        cluster.start(["first", "second"])
        yield cluster


def sample_of(replica: str, at_ms: int, value: float) -> bytes:
    """Return a request of a replica: a sample of each series."""
    names = {"__name__": "up", "cluster": "eu", "__replica__": replica}
    return body([({**names, "job": str(i)}, [(at_ms, value)]) for i in range(SERIES)])


class Replica(threading.Thread):
    """Sends on the same times as any other replica, through one distributor, until stopped.

    As Prometheus does: what was not answered, or with 5xx, is sent again, and what was answered with 2xx never is.
    """

    def __init__(self, program: Program, name: str, value: float) -> None:
        super().__init__(daemon=True)
        self._program, self._name, self._value = program, name, value
        self.answers: list[tuple[int, int]] = []
        """(time, status) of what was answered for good."""
        self._stopping = threading.Event()

    def run(self) -> None:
        before = 0
        while not self._stopping.is_set():
            at = time.time_ns() // 1_000_000 // STEP_MS * STEP_MS
            if at > before:
                before = at
                self.answers.append((at, self._send(sample_of(self._name, at, self._value))))
            time.sleep(0.01)

    def _send(self, payload: bytes) -> int:
        while True:
            try:
                status = self._program.push(payload, timeout_s=10).status_code
            except httpx.TransportError:
                status = 503
            if status < 500 or self._stopping.is_set():
                return status
            time.sleep(0.05)

    def times(self, status: int) -> list[int]:
        """Return the times answered so."""
        return [at for at, answer in list(self.answers) if answer == status]

    def stop(self) -> None:
        """End after the request under way."""
        self._stopping.set()
        self.join(120)
        assert not self.is_alive()
        assert {status for _, status in self.answers} <= {200, 202}


def elections(program: Program) -> list[tuple[str, str, str]]:
    answer = program.http.get("/distributor/ha_tracker", headers={"Accept": "application/json"})
    assert answer.status_code == 200
    return [(row["userID"], row["cluster"], row["replica"]) for row in answer.json()["elected"] or []]


def seen_for(program: Program, seconds: float) -> bool:
    """Return whether every elected replica may be silent for so long before another one is elected."""
    answer = program.http.get("/distributor/ha_tracker", headers={"Accept": "application/json"})
    return all(row["failoverDuration"] > seconds * 1e9 for row in answer.json()["elected"])


def test_replicas_take_over_from_each_other_and_what_was_taken_is_stored_once(cluster):
    first, second = cluster["first"], cluster["second"]
    r0, r1 = Replica(first, "r0", 0.0), Replica(second, "r1", 1.0)
    r0.start()
    wait_until(lambda: r0.times(200), "the first replica's election")
    r1.start()
    wait_until(lambda: len(r1.times(202)) > 2, "refusals of the other one")
    assert r1.times(200) == r0.times(202) == []
    r0.stop()

    # Its sender is dead: the other one follows, as both distributors see.
    wait_until(lambda: r1.times(200), "the fail-over")
    for program in (first, second):
        wait_until(lambda p=program: elections(p) == [("anonymous", "eu", "r1")], "both know")

    # A distributor that was killed knows the election when it is back, and nobody gets in its way meanwhile.
    second.kill()
    taken = len(r1.times(200))
    second.start()
    wait_until(lambda: len(r1.times(200)) > taken + 3, "pushes after the restart")
    # Until it has written down that it saw the elected one, the other distributor takes that one for silent.
    wait_until(lambda: seen_for(first, 9.0), "both know that the elected one is back")
    for program in (first, second):
        answer = program.push(sample_of("r0", r1.times(200)[-1], 0.0))
        assert (answer.status_code, answer.text) == (
            202,
            "replicas did not match, rejecting sample: replica=r0, elected=r1\n",
        )
        assert metric(program, "cortex_distributor_deduped_samples_total", {"cluster": "eu"}) == SERIES
    r1.stop()
    assert r1.times(202)[-1] < r1.times(200)[0], "once elected, nothing of it was refused"

    expected = [[at / 1000, "0"] for at in r0.times(200)] + [[at / 1000, "1"] for at in r1.times(200)]
    found = first.http.get(
        "/prometheus/api/v1/query",
        params={"query": "up[1h]", "time": time.time() + 1},
        headers={"X-Read-Consistency": "strong"},
    ).json()["data"]["result"]
    assert [sorted(row["metric"]) for row in found] == [["__name__", "cluster", "job"]] * SERIES
    for row in found:
        assert row["values"] == expected, "exactly what was answered 200"
