"""The embedded log and the local disk under whole processes: two owners, kill -9 in every write, a full disk."""

import json
import random
import shutil
import sqlite3
import subprocess
import threading
import time
from contextlib import contextmanager

import httpx
import pytest

from tests.support.observe import metric, now_ms, one, push_until_taken, values, wait_until
from tests.support.peers import require
from tests.support.program import Program
from tests.support.remote_write import body
from tests.support.retrying_sender import SERIES, Sender, wait_stored

RECORDS_APPLIED = "cortex_ingest_storage_reader_requests_total"
RATE = "-distributor.ingestion-rate-limit=1e9"


def block_metas(folder):
    return [json.loads(path.read_text()) for path in folder.rglob("meta.json")]


def test_memory_bucket_with_four_partitions_keeps_tenants_apart(tmp_path):
    at = now_ms()
    flags = ["-blocks-storage.backend=memory", "-ingest-storage.embedded.partitions=4", RATE]
    with Program(tmp_path, *flags, multitenancy=True) as program:
        program.start()
        assert program.push(one("nobody", 1.0, at)).status_code == 401
        for tenant, factor in (("one", 1.0), ("two", 10.0)):
            series = [
                ({"__name__": f"of_{tenant}", "shared": "same", "n": str(i)}, [(at - 1000, 0.0), (at, factor * i)])
                for i in range(200)
            ]
            metadata = [(1, f"of_{tenant}", f"help of {tenant}", "")]
            assert program.push(body(series, metadata), tenant=tenant).status_code == 200
        for _ in range(2):
            for tenant, other, factor in (("one", "two", 1.0), ("two", "one", 10.0)):
                total = factor * sum(range(200))
                wait_until(
                    lambda tenant=tenant, total=total: (
                        values(program, 'sum({shared="same"})', at, tenant=tenant) == [total]
                    ),
                    f"the samples of {tenant} alone",
                )
                assert values(program, f"of_{other}", at, tenant=tenant) == []
                header = {"X-Scope-OrgID": tenant}
                names = program.http.get("/prometheus/api/v1/label/__name__/values", headers=header).json()["data"]
                assert names == [f"of_{tenant}"]
                found = program.http.get("/prometheus/api/v1/metadata", headers=header).json()["data"]
                assert {name: items[0]["help"] for name, items in found.items()} == {
                    f"of_{tenant}": f"help of {tenant}"
                }
                series = program.http.get(
                    "/prometheus/api/v1/series", params={"match[]": '{shared="same"}'}, headers=header
                ).json()["data"]
                assert len(series) == 200
            ranges = log_ranges(tmp_path / "data" / "log")
            assert len(ranges) == 4
            assert all(end > 0 for _, end in ranges)
            # Once more with everything in the bucket.
            assert program.http.post("/ingester/flush", params={"wait": "true"}).status_code == 204
        assert values(program, "count(of_one)", at, tenant="three") == []
        assert program.stop() == 0


def log_ranges(folder):
    """(start_offset, next_offset) of each partition."""
    with sqlite3.connect(f"file:{folder / 'log.sqlite'}?mode=ro", uri=True) as connection:
        return connection.execute("SELECT start_offset, next_offset FROM partitions ORDER BY partition").fetchall()


def test_two_processes_on_one_log_and_bucket_answer_alike_and_ship_once(tmp_path):
    shared = [
        f"-ingest-storage.embedded.path={tmp_path / 'log'}",
        f"-blocks-storage.filesystem.dir={tmp_path / 'blocks'}",
        RATE,
    ]
    zone = "-ingester.ring.instance-availability-zone"
    with (
        Program(tmp_path / "a", *shared, f"{zone}=zone-a") as a,
        Program(tmp_path / "b", *shared, f"{zone}=zone-b") as b,
    ):
        a.start()
        b.start()
        start_ms = (int(time.time()) - 3000) * 1000
        sender = Sender(a, start_ms)
        sender.start()
        pushed = 0
        for turn in range(3):
            rounds = sender.rounds
            for _ in range(20):
                assert b.push(one("by_b", float(pushed), start_ms + pushed * 1000)).status_code == 200
                pushed += 1
            wait_until(lambda rounds=rounds: sender.rounds >= rounds + 10, "rounds of the sender")
            flushing = a if turn % 2 else b
            assert flushing.http.post("/ingester/flush", params={"wait": "true"}).status_code == 204
        a.kill()
        sender.program = b
        rounds = sender.rounds
        wait_until(lambda: sender.rounds >= rounds + 10, "rounds that the other process takes")
        sender.finish()
        wait_stored(b, sender)
        a.start()
        assert b.http.post("/ingester/flush", params={"wait": "true"}).status_code == 204
        for program in (a, b):
            wait_stored(program, sender)
            at = start_ms + pushed * 1000
            assert values(program, "count_over_time(by_b[1h])", at) == [float(pushed)]
        wait_until(lambda: metric(a, "cortex_ingester_held_samples") == 0, "the cut in the other process too")
        metas = block_metas(tmp_path / "blocks")
        assert sum(m["stats"]["numSamples"] for m in metas) == sender.rounds * SERIES + pushed
        assert len({m["ulid"] for m in metas}) == len(metas)
        assert [a.stop(), b.stop()] == [0, 0]
        # Each resumes from its own snapshot, or the other's checkpoint.
        b.start()
        wait_stored(b, sender)


@contextmanager
def flushing(program, period_s):
    """Ask for cuts all the time."""
    stopping = threading.Event()

    def run():
        with httpx.Client(base_url=program.url, timeout=60) as client:
            while not stopping.wait(period_s):
                try:
                    client.post("/ingester/flush")
                except httpx.TransportError:
                    continue

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join(60)


@pytest.mark.slow
def test_kill_in_the_middle_of_snapshots_and_cuts_always_comes_back_exact(tmp_path):
    random.seed(9)
    with Program(tmp_path, RATE, "-ingest-storage.snapshot-interval=20ms") as program:
        program.start()
        sender = Sender(program, (int(time.time()) - 3000) * 1000)
        sender.start()
        with flushing(program, 0.5):
            for _ in range(10):
                rounds = sender.rounds
                wait_until(lambda rounds=rounds: sender.rounds > rounds + 2, "rounds of the sender")
                time.sleep(random.uniform(0.0, 0.2))
                program.kill()
                program.start()
            wait_until(lambda: metric(program, "cortex_ingester_snapshots_total") > 0, "a snapshot")
        sender.finish()
        wait_stored(program, sender)
        assert program.http.post("/ingester/flush", params={"wait": "true"}).status_code == 204
        wait_stored(program, sender)
        printed = program.log_path.read_text()
        assert printed.count("partition resumes") >= 11
        assert "source=snapshot" in printed
        assert "state is discarded" not in printed
        assert (
            sum(m["stats"]["numSamples"] for m in block_metas(tmp_path / "data" / "blocks")) == sender.rounds * SERIES
        )


def test_a_snapshot_saves_reading_the_log_again(tmp_path):
    at, records = now_ms(), 300
    with Program(tmp_path, RATE, "-ingest-storage.snapshot-interval=100ms") as program:
        program.start()
        for i in range(records):
            assert program.push(one("counted", float(i), at - (records - i) * 1000)).status_code == 200
        wait_until(lambda: metric(program, RECORDS_APPLIED) == records, "all records")
        wait_until(lambda: (tmp_path / "data" / "tsdb" / "partition-0.snapshot").exists(), "a snapshot")
        written = metric(program, "cortex_ingester_snapshots_total")
        assert program.push(one("last", 1.0, at)).status_code == 200
        wait_until(lambda: metric(program, "cortex_ingester_snapshots_total") > written, "a snapshot of everything")
        program.kill()
        program.start()
        assert values(program, "count_over_time(counted[1h])", at) == [float(records)]
        assert metric(program, RECORDS_APPLIED) <= 1
        program.kill()
        shutil.rmtree(tmp_path / "data" / "tsdb")
        program.start()
        assert values(program, "count_over_time(counted[1h])", at) == [float(records)]
        assert metric(program, RECORDS_APPLIED) == records + 1


def test_a_damaged_snapshot_is_passed_over(tmp_path):
    at = now_ms()
    with Program(tmp_path, RATE) as program:
        program.start()
        assert program.push(one("kept", 1.0, at)).status_code == 200
        assert program.stop() == 0
        path = tmp_path / "data" / "tsdb" / "partition-0.snapshot"
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 0xFF
        path.write_bytes(data)
        program.start()
        assert values(program, "kept", at) == [1.0]
        assert "snapshot is discarded" in program.log_path.read_text()


@contextmanager
def small_disk(folder, megabytes):
    """A file system of that size."""
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        require(f"a small file system cannot be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def noise(number, at_ms):
    """About 400 kB that do not compress: 200 series of their own."""
    draw = random.Random(number)
    return body(
        [
            ({"__name__": "noise", "push": str(number), "n": str(i), "text": draw.randbytes(1000).hex()}, [(at_ms, i)])
            for i in range(200)
        ]
    )


def whole(numbers):
    """What `pushes_found` gives for pushes that are there completely."""
    return {(str(number), 200.0) for number in numbers}


def pushes_found(program, at_ms):
    """(number of a push, series found of it)."""
    return {(r["metric"]["push"], float(r["value"][1])) for r in program.query("count by (push) (noise)", at_ms=at_ms)}


def test_a_full_disk_fails_pushes_with_advice_and_they_work_again_once_there_is_space(tmp_path):
    at, acknowledged = now_ms(), []
    with (
        small_disk(tmp_path / "disk", 64),
        Program(tmp_path / "program", RATE, f"-ingest-storage.embedded.path={tmp_path / 'disk' / 'log'}") as program,
    ):
        filler = tmp_path / "disk" / "filler"
        filler.write_bytes(bytes(40 << 20))
        program.start()
        refused = None
        for number in range(200):
            answer = program.push(noise(number, at))
            if answer.status_code != 200:
                refused = answer
                break
            acknowledged.append(number)
        assert acknowledged
        assert refused is not None
        assert refused.status_code == 500
        assert refused.text.startswith("send data to partitions: failed pushing to partition 0: ")
        assert "the disk is full: free some space" in refused.text
        # What was acknowledged is served meanwhile, and the process stays ready for the answers it can give.
        wait_until(lambda: pushes_found(program, at) >= whole(acknowledged), "what was acknowledged")
        assert program.push(noise(1000, at)).status_code == 500
        assert program.http.get("/ready").status_code == 200
        filler.unlink()
        for number in range(2000, 2004):
            push_until_taken(program, noise(number, at))
            acknowledged.append(number)
        assert "the embedded log can be written again" in program.log_path.read_text()
        for _ in range(2):
            wait_until(lambda: pushes_found(program, at) >= whole(acknowledged), "everything that was acknowledged")
            program.kill()
            program.start()
        assert program.http.post("/ingester/flush", params={"wait": "true"}).status_code == 204
        assert values(program, "count(count by (push) (noise))", at)[0] >= len(acknowledged)
        assert program.stop() == 0
