"""kill -9 at random moments under load: exactly the acknowledged samples, once each."""

import json
import random
import shutil
import threading
import time

import httpx
import pytest

from tests.support.program import Program
from tests.support.remote_write import body

SERIES = 200
STEP_MS = 1000


def labels(i):
    return {"__name__": "counted_total", "instance": f"host-{i:04d}", "job": "kill"}


class Sender(threading.Thread):
    """Pushes a round a request, again until it is acknowledged, as Prometheus does."""

    def __init__(self, program, start_ms):
        super().__init__(daemon=True)
        self.program, self.start_ms = program, start_ms
        self.rounds = 0
        self.stopping = threading.Event()
        self.refused = []

    def run(self):
        while not self.stopping.is_set():
            at = self.start_ms + self.rounds * STEP_MS
            payload = body([(labels(i), [(at, float(self.rounds * SERIES + i))]) for i in range(SERIES)])
            while True:
                try:
                    answer = self.program.push(payload, timeout_s=10)
                except httpx.TransportError:
                    time.sleep(0.02)
                    continue
                if answer.status_code == 200:
                    break
                if answer.status_code < 500:
                    self.refused.append(answer.text)
                    return
                time.sleep(0.02)
            self.rounds += 1


def stored(program, sender):
    """All raw samples by instance, from heads and blocks."""
    end = sender.start_ms + sender.rounds * STEP_MS
    result = program.query(f"counted_total[{sender.rounds + 10}s]", at_ms=end)
    return {r["metric"]["instance"]: [(round(t * 1000), float(v)) for t, v in r["values"]] for r in result}


def wait_stored(program, sender, timeout_s=60):
    expected = {
        labels(i)["instance"]: [(sender.start_ms + n * STEP_MS, float(n * SERIES + i)) for n in range(sender.rounds)]
        for i in range(SERIES)
    }
    deadline = time.monotonic() + timeout_s
    while True:
        got = stored(program, sender)
        if got == expected:
            return
        if time.monotonic() > deadline:
            counts = {len(v) for v in got.values()}
            raise AssertionError(f"{len(got)} series, sample counts {counts}, acknowledged rounds {sender.rounds}")
        time.sleep(0.2)


def scenario(tmp_path, flags, *, kills, lose_disk, seed):
    random.seed(seed)
    directory = tmp_path / "program"
    program = Program(directory, "-distributor.ingestion-rate-limit=1e9", *flags)
    start_ms = (int(time.time()) - 3000) * 1000
    sender = Sender(program, start_ms)
    with program:
        program.start()
        sender.start()
        for turn in range(kills):
            time.sleep(random.uniform(0.2, 1.5))
            if turn % 2:
                httpx.post(f"{program.url}/ingester/flush", timeout=30)
                time.sleep(random.uniform(0.0, 0.3))
            program.kill()
            if lose_disk:
                for name in lose_disk:
                    shutil.rmtree(directory / name, ignore_errors=True)
            program.start()
        time.sleep(0.5)
        sender.stopping.set()
        sender.join(30)
        assert not sender.refused
        assert sender.rounds > kills
        wait_stored(program, sender)
        # Again from what is shipped: every sample out of the head, then a clean restart.
        assert program.http.post("/ingester/flush", params={"wait": "true"}).status_code == 204
        wait_stored(program, sender)
        assert program.stop() == 0
        program.start()
        wait_stored(program, sender)
        assert sum(m["stats"]["numSamples"] for m in block_metas(directory)) >= sender.rounds * SERIES


def block_metas(directory):
    return [json.loads(p.read_text()) for p in (directory / "data" / "blocks").rglob("meta.json")]


def test_embedded_log_keeps_exactly_what_it_acknowledged(tmp_path):
    scenario(tmp_path, [], kills=6, lose_disk=None, seed=1)


def test_embedded_log_with_the_ingester_s_disk_lost_in_between(tmp_path):
    scenario(tmp_path, [], kills=4, lose_disk=["data/tsdb"], seed=2)


@pytest.mark.kafka
def test_kafka_keeps_exactly_what_it_acknowledged(tmp_path, kafka_broker):
    flags = [
        f"-ingest-storage.kafka.address={kafka_broker.address}",
        f"-ingest-storage.kafka.topic=kill-{tmp_path.name}",
    ]
    scenario(tmp_path, flags, kills=4, lose_disk=None, seed=3)


@pytest.mark.kafka
def test_kafka_with_the_local_directory_deleted_in_between(tmp_path, kafka_broker):
    flags = [
        f"-ingest-storage.kafka.address={kafka_broker.address}",
        f"-ingest-storage.kafka.topic=lost-{tmp_path.name}",
    ]
    scenario(tmp_path, flags, kills=3, lose_disk=["data/tsdb"], seed=4)
