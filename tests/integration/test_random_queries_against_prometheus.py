"""Random queries from a grammar, over every kind of series, answered by the engine and by a real Prometheus alike."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import histogram_corpus, query_corpus
from tests.support.query_judge import Judge, Span, judge_of
from tests.support.random_queries import Grammar

pytestmark = pytest.mark.peer

QUERIES = 600
START_MS = query_corpus.START_MS
END_MS = START_MS + 3_600_000
INSTANTS = tuple(START_MS + ms for ms in (10_000, 700_123, 1_530_000, 2_400_500, 3_700_000, 4_300_000))
RANGES = (
    Span(START_MS + 300_000, START_MS + 2_400_500, 60_000),
    Span(START_MS - 60_000, END_MS + 400_000, 217_000),
    Span(START_MS + 900_000, START_MS + 960_000, 5_000),
    Span(START_MS + 600_000, START_MS + 600_000, 15_000),
    Span(START_MS + 1_000_000, START_MS + 2_000_000, 400_000),
)


def make_series() -> list[histogram_corpus.Series]:
    """Return floats and histograms of every kind, and a name and a label that are no legacy names."""
    rng = random.Random(5)
    rooms = [
        (
            {"__name__": "heat.µ", "room.no": room, "job": job},
            [(START_MS + k * 15_000, rng.random() * 10) for k in range(query_corpus.SAMPLES)],
        )
        for room, job in (("é", "api"), ("b", "db"), ("é", "web"))
    ]
    histograms = [s for s in histogram_corpus.make_series() if s[0]["__name__"] != "target_info"]
    return [*query_corpus.make_series(), *query_corpus.make_odd_series(), *histograms, *rooms]


@pytest.fixture(scope="module", params=["names dropped at once", "names dropped at the end"])
def judge(
    request: pytest.FixtureRequest, prometheus_bin: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Judge]:
    """A Prometheus and our engine over the same samples."""
    delayed = request.param == "names dropped at the end"
    folder = tmp_path_factory.mktemp("prometheus")
    with judge_of(prometheus_bin, folder, make_series(), delayed_name_removal=delayed) as judge:
        yield judge


def ask(seed: int, count: int) -> Iterator[tuple[str, Span]]:
    """Yield random queries, half of them for an instant."""
    rng = random.Random(seed)
    grammar = Grammar(rng)
    for _ in range(count):
        instant = rng.random() < 0.5
        yield grammar.query(instant=instant), Span.at(rng.choice(INSTANTS)) if instant else rng.choice(RANGES)


def test_random_queries_are_answered_like_prometheus(judge: Judge) -> None:
    """Values, labels, order, warnings, infos, errors, counts of samples by step, and the most held at a time."""
    problems = judge.problems(ask(20261123, QUERIES))
    assert not problems, f"{len(problems)} differences\n" + "\n".join(problems)


PEAKS = """
requests_total; limit; latency; 1; 1 + 1; time(); vector(1); vector(time()); hour(); hour(limit); abs(limit); -limit
limit + 1; 1 + limit; limit > 1; limit > bool 1; limit + limit; limit and limit; limit or limit; limit unless limit
rate(requests_total[5m]) + rate(requests_total[5m]); sum(limit) + sum(limit); sum(limit) + limit; abs(abs(limit))
sum(requests_total); sum by (job) (requests_total); topk(2, requests_total); count_values("v", limit)
quantile(0.5, limit); limitk(2, requests_total); sum(rate(requests_total[5m])); abs(sum(requests_total))
clamp(limit, 1, 2); round(limit); scalar(limit); absent(limit); absent(nope); timestamp(limit); timestamp(abs(limit))
label_replace(limit, "a", "$1", "job", "(.*)"); label_join(limit, "a", ",", "job"); sort(limit)
limit @ 1700001500; abs(limit @ 1700001500); sum(limit @ 1700001500)
max_over_time(limit[5m:1m]); max_over_time(sum(limit)[5m:1m]); absent_over_time(limit[5m]); limit offset 1m
sum(latency); avg by (job) (latency); count(latency); max(odd); -latency
rate(latency[5m]); count_over_time(latency[5m]); sum_over_time(latency[2m]); last_over_time(latency[2m])
sum(rate(latency[2m])); histogram_count(latency); histogram_quantile(0.9, latency)
limit smoothed; requests_total smoothed; max(limit smoothed); histogram_quantile(0.9, requests_total)
sort(latency_bucket smoothed); limit smoothed + limit; max_over_time(limit smoothed[5m:1m]); queue smoothed
absent_over_time(temperature[5m]) + 1; quantile_over_time(0.5, temperature[5m]) + limit; rate(temperature[5m] smoothed)
info(requests_total); abs(info(limit)); info(target_info); info(limit, {version=~"v.+"}); changes(mixture[2m])
"""
"""Queries with every way in which samples come to be held and are let go of."""


def test_as_many_samples_are_held_at_a_time_as_by_prometheus(judge: Judge) -> None:
    spans = (Span.at(INSTANTS[1]), RANGES[1], Span(START_MS + 900_000, START_MS + 960_000, 30_000))
    asked = [(expr.strip(), span) for expr in PEAKS.replace("\n", ";").split(";") if expr.strip() for span in spans]
    problems = judge.problems(asked)
    assert not problems, "\n".join(problems)
