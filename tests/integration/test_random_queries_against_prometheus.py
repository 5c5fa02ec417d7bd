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
    return [*query_corpus.make_series(), *histograms, *rooms]


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
    """Values, labels, order, warnings, infos, errors and counts of samples by step."""
    problems = judge.problems(ask(20261123, QUERIES))
    assert not problems, f"{len(problems)} differences\n" + "\n".join(problems)
