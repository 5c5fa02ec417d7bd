"""Deltas of bad senders add up to what Prometheus makes of them (`otlp-deltatocumulative`), over cuts and restarts.

It stores no samples at starts; those of ours repeat the total so far, or are zero where counting began. Empty buckets
of totals are not compared.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from mimir_ingest.ingester.cut import stays
from mimir_ingest.tsdb.head import Head
from mimir_ingest.tsdb.series_limits import SeriesLimits
from mimir_ingest.wire import otlp
from mimir_ingest.wire.otlp_labels import OtlpSettings
from tests.support.blocks import both_kinds
from tests.support.head_restart import restarted
from tests.support.histograms import Row, from_bits
from tests.support.otlp_corpus import DELTA, NOW_MS, histogram, point, request, total
from tests.support.prometheus import run_prometheus
from tests.support.stored_samples import stored_samples

pytestmark = pytest.mark.peer

SERIES, STEPS, RANGE_MS, STEP_MS = 25, 24, 900_000, 10_000
CUT_MS = NOW_MS - NOW_MS % RANGE_MS
BEGAN_MS = CUT_MS - 90_000
CONFIG = """
otlp: {translation_strategy: UnderscoreEscapingWithoutSuffixes}
storage: {tsdb: {out_of_order_time_window: 30d}}
"""


def intervals(chance: random.Random) -> list[tuple[int, int]]:
    """Return (start, end) of a series' deltas in the order of arrival: late, repeated, overlapping, with gaps."""
    made: list[tuple[int, int]] = []
    end = BEGAN_MS
    while len(made) < STEPS:
        start = end
        match chance.randrange(12):
            case 0 if made:  # once more
                made.append(made[-1])
                continue
            case 1 if made:  # one that is long over
                made.append(chance.choice(made))
                continue
            case 2:  # a gap, as of a sender that was started again
                start += chance.choice((1, STEP_MS, 7 * STEP_MS))
            case 3 if made:  # an overlap, as of a second sender of the same series
                start = max(BEGAN_MS, start - chance.choice((1, STEP_MS // 2, 3 * STEP_MS)))
        end = max(start, end) + chance.choice((1, STEP_MS, STEP_MS, STEP_MS + 1))
        made.append((start, end))
    for _ in range(3):  # two that overtake each other
        at = chance.randrange(1, STEPS - 1)
        made[at], made[at + 1] = made[at + 1], made[at]
    return made


def bodies(seed: int) -> list[bytes]:
    """Return requests; number k has the k-th delta of every series."""
    chance = random.Random(seed)
    of_series = [intervals(chance) for _ in range(SERIES)]
    started = [chance.random() < 0.9 for _ in range(SERIES)]
    coarse = [chance.randint(0, 4) for _ in range(SERIES)]
    made = []
    for k in range(STEPS):
        sums, levels, classic, exponential = [], [], [], []
        for i in range(SERIES):
            start_ms, end_ms = of_series[i][k]
            # Prometheus refuses a start before that of the first delta.
            start_ns = max(start_ms, of_series[i][0][0]) * 1_000_000 if started[i] else 0
            same = {"at_ms": end_ms, "startTimeUnixNano": start_ns}
            counts = [chance.randrange(5) for _ in range(3)]
            spread = [chance.randrange(1, 4)] + [chance.randrange(3) for _ in range(chance.randrange(70))] + [1]
            sums.append(point({"i": i}, asInt=chance.randrange(100), **same))
            levels.append(point({"i": i}, asDouble=chance.randrange(-8, 8) / 4, **same))
            classic.append(
                point(
                    {"i": i}, count=sum(counts), sum=sum(counts) / 2, bucketCounts=counts, explicitBounds=[1, 2], **same
                )
            )
            exponential.append(
                point(
                    {"i": i},
                    scale=coarse[i] + chance.choice((0, 0, 0, 1)),
                    zeroCount=1,
                    count=1 + sum(spread),
                    sum=0.5,
                    positive={"offset": chance.randrange(-40, 40), "bucketCounts": spread},
                    **same,
                )
            )
        made.append(
            request(
                total("c", *sums, temporality=DELTA),
                total("u", *levels, temporality=DELTA, monotonic=False),
                histogram("h", *classic, temporality=DELTA),
                histogram("e", *exponential, kind="exponentialHistogram", temporality=DELTA),
            ).SerializeToString()
        )
    return made


def of_head(head: Head, found: dict) -> dict:
    """Add what a head holds to (labels → ms → value); return it."""
    for answer in head.view([]).select([], 0, 1 << 60):
        for labels, points in both_kinds(answer):
            series = found.setdefault(frozenset(labels.items()), {})
            series |= {ms: one if isinstance(one, Row) else from_bits(one) for ms, one in points.items()}
    return found


def added_up(requests: list[bytes], seed: int) -> dict:
    """Return what a head makes of the requests, while it is cut and started again."""
    chance, head, found = random.Random(seed), Head("t"), {}
    limits = SeriesLimits()
    cut = False
    for offset, body in enumerate(requests):
        batch = otlp.decode(body, OtlpSettings(accumulate_deltas=True), json=False).batch
        head.append(
            batch, offset=offset, newest_ms=1 << 60, range_ms=RANGE_MS, limits=limits, window_ms=30 * 86_400_000
        )
        if chance.random() < 0.2:
            head = restarted(head)
        if not cut and head.max_ts >= CUT_MS:
            cut = True
            of_head(head, found)
            frozen = head.freeze(CUT_MS, RANGE_MS)
            head.thaw(stays(frozen), CUT_MS, offset)
            head.release(offset)
    assert cut
    return of_head(head, found)


def filled(value: object) -> object:
    """Return a histogram without its empty buckets; other values as they are."""
    if not isinstance(value, Row):
        return value
    sides = {side: tuple(one for one in getattr(value, side) if one[1]) for side in ("negative", "positive")}
    return value._replace(**sides)


def of_prometheus(binary: Path, folder: Path, requests: list[bytes]) -> dict:
    flags = ("--web.enable-otlp-receiver", "--enable-feature=otlp-deltatocumulative")
    found: dict = {}
    with run_prometheus(binary, folder, *flags, "--storage.tsdb.retention.time=100y", config=CONFIG) as client:
        for body in requests:
            headers = {"Content-Type": "application/x-protobuf"}
            assert client.post("/api/v1/otlp/v1/metrics", content=body, headers=headers).status_code == 200
        for labels, ms, value in stored_samples(client):
            found.setdefault(labels, {})[ms] = from_bits(value) if isinstance(value, int) else filled(value)
    return found


def test_totals_are_those_of_prometheus_at_the_end_of_every_interval(prometheus_bin: Path, tmp_path: Path) -> None:
    requests = bodies(seed=1)
    ours, theirs = added_up(requests, seed=2), of_prometheus(prometheus_bin, tmp_path, requests)
    assert set(ours) == set(theirs)
    at_starts = 0
    for labels, wanted in theirs.items():
        found = dict(ours[labels])
        before = None
        for ms in sorted(found):
            value = found[ms]
            if isinstance(value, Row):
                value = filled(value._replace(reset_hint=0))
            if ms in wanted:
                assert value == wanted[ms], (labels, ms)
            else:
                at_starts += 1
                count = value.count if isinstance(value, Row) else value
                assert count == (0 if before is None else getattr(before, "count", before)), (labels, ms)
            before = value
        assert set(wanted) <= set(found), labels
    assert at_starts > SERIES
