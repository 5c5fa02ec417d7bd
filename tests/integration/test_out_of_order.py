"""A real Prometheus gets the same pushes, and tells how far behind its newest sample those out of order were."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest
from prometheus_client import generate_latest

from mimir_ingest.kernels.head import BEHIND_BUCKETS, BEHIND_MS
from mimir_ingest.obs.metrics import new_registry
from mimir_ingest.obs.tsdb_metrics import OutOfOrderDeltas
from mimir_ingest.tsdb.head import Head
from mimir_ingest.tsdb.series_limits import SeriesLimits
from tests.support import remote_write
from tests.support.batches import write_batch
from tests.support.prometheus import run_prometheus

pytestmark = pytest.mark.peer

NOW_MS = 1_790_000_000_000
HOUR_MS = 3_600_000
RANGE_MS = 2 * HOUR_MS
HEADERS = {"Content-Type": "application/x-protobuf", "Content-Encoding": "snappy"}
LATE_MS = [0, 1, 15_000, 599_999, 600_000, 600_001, 1_800_000, 2 * HOUR_MS, 5 * HOUR_MS, 13 * HOUR_MS]


def pushes(seed: int) -> list[tuple[dict[str, str], list[tuple[int, float]]]]:
    """Return the one series of each push: in time and late, of series old and new.

    why one: Prometheus takes nothing of a push after what it refuses.
    """
    rng, made = random.Random(seed), [({"__name__": "up"}, [(NOW_MS, 1.0)])]
    for step in range(200):
        at = NOW_MS + step * 5_000 - rng.choice(LATE_MS)
        made.append(({"__name__": "up", "pod": str(rng.randrange(8))}, [(at, float(step))]))
    return made


def behind(text: str, name: str) -> dict[float | str, int]:
    """Return the buckets, count and sum (ms) of a histogram."""
    found = re.findall(rf'^{name}_(?:bucket{{le="([^"]+)"}}|(sum|count)) (\S+)$', text, re.MULTILINE)
    return {
        float(le) if le else kind: round(float(value) * (1000 if kind == "sum" else 1)) for le, kind, value in found
    }


@pytest.mark.parametrize("window_ms", [0, HOUR_MS])
def test_samples_out_of_order_are_as_far_behind_as_prometheus_says(prometheus_bin: Path, tmp_path: Path, window_ms):
    registry = new_registry()
    deltas, head = OutOfOrderDeltas(registry), Head("t")
    config = f"storage: {{tsdb: {{out_of_order_time_window: {window_ms}ms}}}}\n" if window_ms else "{}\n"
    flags = ("--web.enable-remote-write-receiver", "--storage.tsdb.retention.time=100y")
    with run_prometheus(prometheus_bin, tmp_path, *flags, config=config) as judge:
        for offset, row in enumerate(pushes(7)):
            answer = judge.post("/api/v1/write", content=remote_write.body([row]), headers=HEADERS)
            assert answer.status_code in (204, 400), answer.text
            counts = head.append(
                write_batch([row]),
                offset=offset,
                newest_ms=NOW_MS + RANGE_MS,
                range_ms=RANGE_MS,
                limits=SeriesLimits(),
                window_ms=window_ms,
            )
            deltas.add(counts[BEHIND_BUCKETS:], int(counts[BEHIND_MS]))
        theirs = behind(judge.get("/metrics").text, "prometheus_tsdb_sample_ooo_delta")
    ours = behind(generate_latest(registry).decode(), "cortex_ingester_tsdb_sample_out_of_order_delta_seconds")
    assert ours == theirs
    assert len(ours) == 10
    assert ours["count"] > 40
