"""Replay against what real processes have shipped: the same bytes, on Kafka and on the embedded log."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.structs import TopicPartition

from tests.support.observe import now_ms
from tests.support.partition_log import files_of
from tests.support.program import Program
from tests.support.remote_write import body

SERIES = 50


class Run:
    """A process that has shipped some cuts and was killed, and the replay command over the same log and bucket."""

    def __init__(self, directory: Path, *flags: str) -> None:
        self.directory = directory
        self.flags = [*flags, "-ingest-storage.kafka.consumer-group=replay-test"]
        self.program = Program(directory, *self.flags)
        self.blocks_folder = directory / "data" / "blocks"

    def fill(self, cuts: int) -> None:
        """Push, flush, as often as asked; a kill -9 in between; some samples stay uncut."""
        start_ms = now_ms() - 600_000
        with self.program:
            self.program.start()
            for cut in range(cuts + 1):
                for second in range(3):
                    at = start_ms + (3 * cut + second) * 1000
                    rows = [
                        ({"__name__": "m", "i": str(i), "job": "replay"}, [(at, i + second / 4)]) for i in range(SERIES)
                    ]
                    assert self.program.push(body(rows)).status_code == 200
                if cut == 1:
                    self.program.kill()
                    self.program.start()
                if cut < cuts:
                    assert self.program.http.post("/ingester/flush", params={"wait": "true"}).status_code == 204
            self.program.kill()

    def replay(self, partition: int, *options: str) -> tuple[int, dict]:
        command = [Path(sys.executable).parent / "mimir-ingest", "replay", f"--partition={partition}", "--json"]
        done = subprocess.run(
            [*command, *options, *self.flags], cwd=self.directory, capture_output=True, text=True, check=False
        )
        assert done.stdout, done.stderr
        return done.returncode, json.loads(done.stdout)

    def blocks(self) -> list[Path]:
        return sorted(meta.parent for meta in self.blocks_folder.glob("[!_]*/*/meta.json"))


def verdicts(report: dict) -> dict[str, str]:
    return {block["ulid"]: block["verdict"] for block in report["blocks"]}


def check_that_blocks_are_compared_and_restored(run: Run, partition: int) -> None:
    """Equal; then one removed and one damaged; then restored."""
    files = files_of(run.blocks_folder)
    blocks = [
        path
        for path in run.blocks()
        if json.loads((path / "meta.json").read_text())["mimir_ingest"]["partition"] == partition
    ]
    same = {path.name: "same" for path in blocks}
    code, report = run.replay(partition)
    assert (code, verdicts(report)) == (0, same)
    assert report["not_cut_samples"] > 0

    removed, damaged = blocks[0], blocks[-1]
    shutil.rmtree(removed)
    chunks = damaged / "chunks" / "000001"
    content = bytearray(chunks.read_bytes())
    content[-1] ^= 0xFF
    chunks.write_bytes(content)
    code, report = run.replay(partition)
    assert (code, verdicts(report)) == (3, same | {removed.name: "missing", damaged.name: "differs"})
    code, report = run.replay(partition, "--ship")
    assert (code, verdicts(report)) == (3, same | {removed.name: "shipped", damaged.name: "differs"})
    (problem,) = next(block["problems"] for block in report["blocks"] if block["verdict"] == "differs")
    assert problem == f"chunks/000001 differs from byte {len(content) - 1} on"

    shutil.rmtree(damaged)  # which is for people to decide
    code, report = run.replay(partition, "--ship")
    assert (code, verdicts(report)) == (0, same | {damaged.name: "shipped"})
    assert files_of(run.blocks_folder) == files


@pytest.mark.kafka
async def test_replay_of_a_kafka_partition_gives_the_blocks_that_were_shipped(tmp_path, kafka_broker):
    topic = f"replay-{tmp_path.name}"
    run = Run(
        tmp_path / "program",
        f"-ingest-storage.kafka.address={kafka_broker.address}",
        f"-ingest-storage.kafka.topic={topic}",
        "-ingest-storage.kafka.auto-create-topic-default-partitions=2",
    )
    run.fill(cuts=4)
    check_that_blocks_are_compared_and_restored(run, 1)

    # Retention: the log follows only the later checkpoints now.
    checkpoints = sorted(int(path.stem) for path in run.blocks_folder.glob("__mimir_cluster/*/*/1/*.checkpoint"))
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka_broker.address)
    await admin.start()
    try:
        await admin.delete_records({TopicPartition(topic, 1): RecordsToDelete(before_offset=checkpoints[1])})
    finally:
        await admin.close()
    code, report = run.replay(1, "--from=0")
    assert code == 4
    assert report["plan"]["unreachable"] == [0, checkpoints[1]]
    assert report["cut_offsets"] == checkpoints[2:]
    assert set(verdicts(report).values()) == {"same"}
    code, report = run.replay(1, f"--from=@{time.time() - 3600:.3f}")
    assert (code, report["plan"]["from_offset"]) == (0, checkpoints[1])


def test_replay_of_an_embedded_partition_gives_the_blocks_that_were_shipped(tmp_path):
    run = Run(tmp_path / "program", "-ingest-storage.embedded.partitions=2", "-ingest-storage.embedded.trim-delay=24h")
    run.fill(cuts=3)
    check_that_blocks_are_compared_and_restored(run, 0)
