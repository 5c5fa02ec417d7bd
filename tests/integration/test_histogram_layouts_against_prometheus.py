"""Native histograms whose buckets come and go, some empty: a head reads them as a real Prometheus does.

With the same empty buckets, that is: they decide what a histogram weighs in the statistics of queries, what infinity
and NaN make of it, and what quantiles take its zero bucket for.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import histogram_corpus as corpus
from tests.support.prometheus import EVERY_PROMQL_OPTION, run_prometheus
from tests.support.query_judge import HEADERS, Judge, Span
from tests.support.series_notation import GAUGE, HistogramValue
from tests.support.store_target import StoreTarget

pytestmark = pytest.mark.peer

START_MS = 1_700_000_000_000
SAMPLES, STEP_MS = 360, 30_000
END_MS = START_MS + SAMPLES * STEP_MS
BOUNDS = (0.5, 1.0, 2.5, 7.0, 10.0)


def _value(schema: int, positive: dict, negative: dict, zero: float, total: float, **more) -> HistogramValue:
    count = sum(positive.values()) + sum(negative.values()) + zero
    return HistogramValue(
        schema=schema, positive=positive, negative=negative, zero_count=zero, count=count, sum=total, **more
    )


def _growing(rng: random.Random, schema: int, unit: float) -> Iterator[HistogramValue]:
    """Counters: buckets appear, often empty, and empty ones go again; now and then all starts anew."""
    positive: dict[int, float] = {}
    negative: dict[int, float] = {}
    zero = total = 0.0
    while True:
        if rng.random() < 0.005:
            positive, negative, zero, total = {}, {}, 0.0, 0.0
        for _ in range(rng.randint(0, 4)):
            bucket = int(rng.gauss(3, 4))
            positive[bucket] = positive.get(bucket, 0.0) + rng.randint(0, 5) * unit
        if rng.random() < 0.3:
            bucket = rng.randint(-3, 6)
            negative[bucket] = negative.get(bucket, 0.0) + rng.randint(0, 2)
        zero += rng.randint(0, 1)
        total += rng.uniform(-1, 5)
        sent = {b: c for b, c in positive.items() if c or rng.random() < 0.8}
        yield _value(schema, sent, dict(negative), zero, total, zero_threshold=0.001)


def _levels(rng: random.Random) -> Iterator[HistogramValue]:
    """Gauges: each has buckets of its own."""
    while True:
        positive = {b: float(rng.choice((0, 0, 1, 5))) for b in rng.sample(range(-5, 8), rng.randint(1, 5))}
        negative = dict.fromkeys(rng.sample(range(4), rng.randint(0, 2)), 1.5)
        yield _value(1, positive, negative, float(rng.randint(0, 2)), rng.uniform(-5, 20), hint=GAUGE)


def _sizes(rng: random.Random) -> Iterator[HistogramValue]:
    """Counters with custom buckets, of which the filled ones are sent."""
    counts, total = [0.0] * (len(BOUNDS) + 1), 0.0
    while True:
        counts = [count + rng.choice((0, 0, 0, 1)) for count in counts]
        total += rng.uniform(0, 3)
        yield _value(-53, {i: c for i, c in enumerate(counts) if c}, {}, 0.0, total, custom_values=BOUNDS)


def _changing(values: Iterator[HistogramValue]) -> Iterator[HistogramValue | float]:
    """Histograms and numbers in turns, several times in one request."""
    for k, value in enumerate(values):
        yield value if k // 11 % 2 else value.count


def make_series() -> list[corpus.Series]:
    """Return two hours and more of each kind."""
    rng = random.Random(20261124)
    series: list[corpus.Series] = []
    for i in range(4):
        labels = {"instance": f"host{i}:80", "job": ("api", "db")[i % 2]}
        made = {
            "grow": _growing(rng, (0, 2, 3, -1)[i], 1.0 if i % 3 else 0.25),
            "level": _levels(rng),
            "sizes": _sizes(rng),
            "mixed": _changing(_growing(rng, 1, 1.0)),
            "weight": iter(lambda i=i: (2.0, -0.5, math.inf, math.nan)[i], None),
        }
        for name, values in made.items():
            times = [START_MS + k * STEP_MS + rng.randrange(-80, 80) for k in range(SAMPLES)]
            series.append(({"__name__": name, **labels}, list(zip(times, values, strict=False))))
    return series


EXPRESSIONS = (
    *("{0}", "{0} offset 1h", "sum by (job) ({0})", "avg({0})", "rate({0}[5m])", "increase({0}[7m])", "delta({0}[5m])"),
    *("irate({0}[3m])", "last_over_time({0}[3m])", "changes({0}[9m])", "resets({0}[20m])", "rate({0}[5m] smoothed)"),
    *("increase({0}[5m] anchored)", "{0} smoothed", "rate({0}[10m:1m])", "count_values('v', {0})", "topk(2, {0})"),
    *("histogram_quantile(0.9, {0})", "histogram_quantile(0.1, rate({0}[5m]))", "histogram_fraction(-1, 2, {0})"),
    *("histogram_count({0})", "histogram_stddev({0})", "{0} * +Inf", "{0} * NaN", "{0} / 0", "{0} * 0", "-{0}"),
    *("{0} - {0} offset 3m", "{0} == {0}", "{0} != {0} offset 1m", "{0} </ 2", "{0} * on(instance) weight"),
    *("{0} + on(instance) grow", "label_replace({0}, 'x', 'y', 'job', '.*')", "{0} or weight"),
)
SPANS = (
    Span.at(START_MS + 1_000_123),
    Span.at(END_MS - 50_000),
    Span(START_MS + 600_000, END_MS - 600_000, 457_000),
    Span(START_MS + 7_000_000, START_MS + 8_000_000, 60_000),
)


@pytest.fixture(scope="module")
def judge(prometheus_bin: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Judge]:
    """A Prometheus and a head that were sent the same requests; the head has segments, and staged samples."""
    flags = (
        "--storage.tsdb.retention.time=100y",
        "--web.enable-remote-write-receiver",
        f"--enable-feature={EVERY_PROMQL_OPTION}",
    )
    series, target = make_series(), StoreTarget(delayed_name_removal=False, seal_samples=700)
    with run_prometheus(prometheus_bin, tmp_path_factory.mktemp("prometheus"), *flags) as client:
        for first in range(0, SAMPLES, 45):
            body = corpus.body([(labels, samples[first : first + 45]) for labels, samples in series])
            answer = client.post("/api/v1/write", content=body, headers=HEADERS)
            assert answer.status_code // 100 == 2, answer.text
            target.push(body)
        yield Judge(client, target)


@pytest.mark.parametrize("name", ["grow", "level", "sizes", "mixed"])
def test_a_head_reads_histograms_with_the_empty_buckets_of_a_prometheus(judge: Judge, name: str) -> None:
    """Values, annotations, and all counts of samples: in all, read, at most held, and by step."""
    assert len(judge.engine.head.segments) > 2
    asked = [(expr.format(name), SPANS[(i + k) % 4]) for i, expr in enumerate(EXPRESSIONS) for k in (0, 2)]
    problems = judge.problems(asked)
    assert not problems, f"{len(problems)} differences\n" + "\n".join(problems)
