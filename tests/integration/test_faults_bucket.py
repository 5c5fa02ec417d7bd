"""Object storage over S3 that goes away and comes back, and a local disk that is lost, seen from a whole process."""

import shutil
import socket
import sqlite3
import time
from contextlib import contextmanager

import boto3
import httpx
import pytest
from moto.server import ThreadedMotoServer

from tests.support.observe import metric, now_ms, one, values, wait_until
from tests.support.peers import pick_free_port
from tests.support.program import Program
from tests.support.retrying_sender import SERIES, Sender, wait_stored

KEY_ID, SECRET, REGION = "test-id", "test-secret", "eu-west-1"
UPLOADS = "cortex_ingester_shipper_uploads_total"
FAILED_UPLOADS = "cortex_ingester_shipper_upload_failures_total"


class S3:
    """An S3 on one port that can be stopped and started; objects stay."""

    def __init__(self):
        self.port = pick_free_port()
        self._server = None
        self.client = boto3.client(
            "s3",
            endpoint_url=f"http://127.0.0.1:{self.port}",
            region_name=REGION,
            aws_access_key_id=KEY_ID,
            aws_secret_access_key=SECRET,
        )

    def start(self):
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=self.port)
        self._server.start()

    def stop(self):
        server, self._server = self._server, None
        if server is not None:
            server.stop()

    @contextmanager
    def frozen(self):
        """Connections are taken, nothing is answered."""
        self.stop()
        with socket.create_server(("127.0.0.1", self.port), backlog=100):
            yield
        self.start()

    @contextmanager
    def stopped(self):
        self.stop()
        try:
            yield
        finally:
            self.start()

    def create_bucket(self, name):
        self.client.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": REGION})

    def keys(self, bucket):
        return [o["Key"] for o in self.client.list_objects_v2(Bucket=bucket).get("Contents", ())]


@pytest.fixture
def s3():
    server = S3()
    server.start()
    yield server
    server.stop()


def s3_program(directory, s3, bucket, *flags):
    return Program(
        directory,
        "-distributor.ingestion-rate-limit=1e9",
        "-blocks-storage.backend=s3",
        f"-blocks-storage.s3.endpoint=127.0.0.1:{s3.port}",
        f"-blocks-storage.s3.region={REGION}",
        f"-blocks-storage.s3.bucket-name={bucket}",
        f"-blocks-storage.s3.access-key-id={KEY_ID}",
        f"-blocks-storage.s3.secret-access-key={SECRET}",
        "-blocks-storage.s3.insecure=true",
        *flags,
    )


def log_start(directory):
    with sqlite3.connect(f"file:{directory / 'data' / 'log' / 'log.sqlite'}?mode=ro", uri=True) as connection:
        return connection.execute("SELECT start_offset FROM partitions WHERE partition = 0").fetchone()[0]


def flush(program, *, wait):
    answer = program.http.post("/ingester/flush", params={"wait": "true"} if wait else {})
    assert answer.status_code == 204


def test_what_is_in_s3_is_answered_after_head_disk_and_log_are_gone(tmp_path, s3):
    s3.create_bucket("answers")
    with s3_program(tmp_path, s3, "answers") as program:
        program.start()
        sender = Sender(program, (int(time.time()) - 3000) * 1000)
        sender.start()
        wait_until(lambda: sender.rounds >= 20, "rounds")
        sender.finish()
        flush(program, wait=True)
        wait_until(lambda: log_start(tmp_path) >= sender.rounds, "a log that is trimmed")
        assert len([key for key in s3.keys("answers") if key.endswith("/meta.json")]) >= 1
        program.kill()
        shutil.rmtree(tmp_path / "data" / "tsdb", ignore_errors=True)
        program.start()
        assert metric(program, "cortex_ingester_held_samples") == 0
        wait_stored(program, sender)
        assert metric(program, UPLOADS) == 0
        at = sender.start_ms + (sender.rounds - 1) * 1000
        assert values(program, "count(counted_total)", at) == [float(SERIES)]
        assert program.stop() == 0


@pytest.mark.slow
def test_a_cut_waits_for_s3_and_nothing_is_lost_meanwhile(tmp_path, s3):
    s3.create_bucket("outage")
    with s3_program(tmp_path, s3, "outage", "-ingest-storage.retention-after-cut=0s") as program:
        program.start()
        sender = Sender(program, (int(time.time()) - 3000) * 1000)
        sender.start()
        wait_until(lambda: sender.rounds >= 10, "rounds")
        with s3.stopped():
            flush(program, wait=False)
            wait_until(lambda: metric(program, FAILED_UPLOADS) >= 2, "attempts to ship that fail")
            trimmed = log_start(tmp_path)
            assert trimmed == 0
            assert "a cut could not be shipped; it is tried again" in program.log_path.read_text()
            rounds = sender.rounds
            wait_until(lambda: sender.rounds >= rounds + 10, "pushes that are taken meanwhile")
            assert program.http.get("/ready").status_code == 200
            assert not sender.failed
            # A second cut point has to wait; what comes after it stays in the log.
            flush(program, wait=False)
            assert program.push(one("meanwhile", 1.0, now_ms())).status_code == 200
        wait_until(lambda: metric(program, UPLOADS) >= 1, "the blocks")
        sender.finish()
        flush(program, wait=True)
        wait_stored(program, sender)
        assert values(program, "count_over_time(meanwhile[1h])", now_ms()) == [1.0]
        wait_until(lambda: log_start(tmp_path) > 0, "a log that is trimmed")
        program.kill()
        shutil.rmtree(tmp_path / "data" / "tsdb", ignore_errors=True)
        program.start()
        wait_stored(program, sender)
        assert program.stop() == 0


def test_a_process_killed_while_its_cut_waits_for_s3_ships_it_after_the_restart(tmp_path, s3):
    s3.create_bucket("killed")
    with s3_program(tmp_path, s3, "killed") as program:
        program.start()
        at = now_ms()
        assert program.push(one("kept", 1.0, at)).status_code == 200
        with s3.stopped():
            flush(program, wait=False)
            wait_until(lambda: metric(program, FAILED_UPLOADS) >= 1, "an attempt to ship that fails")
            program.kill()
        program.start()
        wait_until(lambda: metric(program, UPLOADS) == 1, "the block")
        assert values(program, "kept", at) == [1.0]
        with s3.stopped():
            flush(program, wait=False)
            assert program.stop() == 0


def test_sigterm_does_not_wait_for_an_s3_that_does_not_answer(tmp_path, s3):
    s3.create_bucket("frozen")
    with s3_program(tmp_path, s3, "frozen") as program:
        program.start()
        at = now_ms()
        assert program.push(one("kept", 1.0, at)).status_code == 200
        with s3.frozen():
            flush(program, wait=False)
            wait_until(lambda: metric(program, "cortex_ingester_tsdb_compactions_triggered_total") == 1, "a cut")
            assert program.stop() == 0
        assert "msg=stopped" in program.log_path.read_text()
        program.start()
        wait_until(lambda: metric(program, UPLOADS) == 1, "the block")
        assert values(program, "kept", at) == [1.0]


def test_a_process_that_starts_without_s3_takes_pushes_says_what_it_waits_for_and_is_ready_once_s3_is_there(
    tmp_path, s3
):
    s3.create_bucket("late")
    with s3_program(tmp_path, s3, "late") as program:
        with s3.stopped():
            program.start(wait=False)
            at = now_ms()

            def refused():
                try:
                    return program.http.get("/ready")
                except httpx.TransportError:
                    return None

            def waits_for_s3():
                answer = refused()
                return answer is not None and "is catching up: recovering (" in answer.text

            wait_until(waits_for_s3, "a reason in /ready")
            assert refused().status_code == 503
            assert program.push(one("kept", 1.0, at)).status_code == 200
            answer = program.http.get("/prometheus/api/v1/query", params={"query": "kept", "time": at / 1000})
            assert answer.status_code == 500
            assert "partition 0" in answer.json()["error"]
        program.wait_ready()
        wait_until(lambda: values(program, "kept", at) == [1.0], "the sample")
        assert program.stop() == 0
