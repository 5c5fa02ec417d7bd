"""A week of data pushed at once: taken, cut by size, bounded in memory, complete, and stored once when sent again."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.observe import metric, wait_until
from tests.support.program import Program
from tests.support.remote_write import body

SERIES, MINUTE_MS = 500, 60_000
WEEK_MINUTES = 7 * 24 * 60
BODY_MINUTES = 30
CUT_MAX_SAMPLES = 1_000_000
"""A fifth of the week: five cuts by size."""


def week(start_ms):
    """Bodies of BODY_MINUTES each, old to new; in each, series in an order of its own."""
    draw = random.Random(6)
    bodies = []
    for first in range(0, WEEK_MINUTES, BODY_MINUTES):
        minutes = range(first, min(first + BODY_MINUTES, WEEK_MINUTES))
        order = list(range(SERIES))
        draw.shuffle(order)
        bodies.append(
            body(
                [
                    (
                        {"__name__": "backfilled", "instance": f"host-{i:03d}"},
                        [(start_ms + m * MINUTE_MS, float(m * SERIES + i)) for m in minutes],
                    )
                    for i in order
                ]
            )
        )
    return bodies


def resident_bytes(program):
    pages = int(Path(f"/proc/{program.process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def push_week(program, bodies, tenant):
    """Push all of it; return the most memory it took (bytes)."""
    most = 0
    for payload in bodies:
        answer = program.push(payload, tenant=tenant, timeout_s=60)
        assert answer.status_code == 200, answer.text
        most = max(most, resident_bytes(program))
    assert program.http.post("/ingester/flush", params={"wait": "true"}, timeout=240).status_code == 204
    return max(most, resident_bytes(program))


def block_metas(directory, tenant):
    return [json.loads(path.read_text()) for path in (directory / "data" / "blocks" / tenant).rglob("meta.json")]


def check_complete(program, tenant, start_ms):
    """Every sample of every series, no gap, none twice."""
    last_ms = start_ms + (WEEK_MINUTES - 1) * MINUTE_MS
    found = program.query(f"count_over_time(backfilled[{WEEK_MINUTES}m])", at_ms=last_ms, tenant=tenant)
    assert {r["metric"]["instance"]: float(r["value"][1]) for r in found} == {
        f"host-{i:03d}": float(WEEK_MINUTES) for i in range(SERIES)
    }
    for i in (0, 251, SERIES - 1):
        selector = f'backfilled{{instance="host-{i:03d}"}}[{WEEK_MINUTES}m]'
        (series,) = program.query(selector, at_ms=last_ms, tenant=tenant)
        assert [(round(t * 1000), float(v)) for t, v in series["values"]] == [
            (start_ms + m * MINUTE_MS, float(m * SERIES + i)) for m in range(WEEK_MINUTES)
        ]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_week_pushed_at_once_is_cut_and_shipped_in_bounded_memory_and_stored_once(tmp_path):
    start_ms = (int(time.time()) * 1000 // MINUTE_MS - WEEK_MINUTES - 5) * MINUTE_MS
    bodies = week(start_ms)
    flags = ["-distributor.ingestion-rate-limit=1e9", "-ingest-storage.snapshot-interval=0"]
    with Program(tmp_path, *flags, multitenancy=True) as program:
        program.start()
        log = f"-ingest-storage.embedded.path={tmp_path / 'data' / 'log'}"
        command = [str(Path(sys.executable).parent / "mimir-ingest"), "log", "set-partition-settings", log]
        command += ["--partition", "0", f"cut_max_samples={CUT_MAX_SAMPLES}"]
        subprocess.run(command, check=True, capture_output=True)
        at_start = resident_bytes(program)
        first = push_week(program, bodies, "first") - at_start
        assert program.log_path.read_text().count("cut is shipped") >= WEEK_MINUTES * SERIES // CUT_MAX_SAMPLES
        second = push_week(program, bodies, "second") - at_start
        # Another week of the same size needs next to nothing on top of the first.
        assert second < 1.5 * first, (first, second)
        for tenant in ("first", "second"):
            check_complete(program, tenant, start_ms)
        for tenant in ("first", "second"):
            metas = block_metas(tmp_path, tenant)
            assert sum(m["stats"]["numSamples"] for m in metas) == WEEK_MINUTES * SERIES
        assert metric(program, "cortex_discarded_samples_total") == 0
        # The sender did not hear of it and sends all of it again: its end is above the floor and known, the rest is too
        # old; nothing of it may be stored again.
        for payload in bodies:
            assert program.push(payload, tenant="second", timeout_s=60).status_code == 200
        assert program.http.post("/ingester/flush", params={"wait": "true"}, timeout=240).status_code == 204
        assert sum(m["stats"]["numSamples"] for m in block_metas(tmp_path, "second")) == WEEK_MINUTES * SERIES
        check_complete(program, "second", start_ms)
        assert program.stop() == 0
        program.start()
        check_complete(program, "first", start_ms)
        wait_until(lambda: metric(program, "cortex_ingester_held_samples") == 0, "an empty head")
