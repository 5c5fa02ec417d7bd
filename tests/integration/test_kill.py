"""kill -9 at random moments under load: exactly the acknowledged samples, once each."""

import json
import random
import shutil
import time

import pytest

from tests.support.observe import wait_until
from tests.support.program import Program
from tests.support.retrying_sender import SERIES, Sender, wait_stored


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
            wait_until(lambda before=sender.rounds: sender.rounds > before, "an acknowledged round")
            time.sleep(random.uniform(0.0, 1.3))
            if turn % 2:
                program.http.post("/ingester/flush")
                time.sleep(random.uniform(0.0, 0.3))
            program.kill()
            if lose_disk:
                for name in lose_disk:
                    shutil.rmtree(directory / name, ignore_errors=True)
            program.start()
        sender.finish()
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
