"""The query engine and a real Prometheus over the same samples: equal answers, warnings, errors and sample counts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import query_corpus as corpus
from tests.support.query_judge import Judge, Span, judge_of

pytestmark = pytest.mark.peer

_END_MS = corpus.START_MS + corpus.SAMPLES * corpus.INTERVAL_MS
INSTANTS = (corpus.START_MS + 700_123, corpus.START_MS + 1_530_000, _END_MS + 100_000, _END_MS + 700_000)
RANGES = {
    "minutes": Span(corpus.START_MS + 300_000, corpus.START_MS + 2_400_500, 60_000),
    "wide": Span(corpus.START_MS - 60_000, _END_MS + 400_000, 217_000),
    "dense": Span(corpus.START_MS + 900_000, corpus.START_MS + 960_000, 5_000),
}


@pytest.fixture(scope="module")
def judge(prometheus_bin: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Judge]:
    """A Prometheus and our engine, with Prometheus's defaults."""
    series = [*corpus.make_series(), *corpus.make_ties()]
    with judge_of(prometheus_bin, tmp_path_factory.mktemp("prometheus"), series, batch=500) as judge:
        yield judge


def test_instant_queries_are_answered_like_prometheus(judge: Judge) -> None:
    """Values bit for bit (up to the mathematics library), order of sorts and rankings, warnings, errors, counts."""
    asked = [(e, Span.at(t)) for e in (*corpus.make_expressions(), *corpus.INSTANT_ONLY) for t in INSTANTS]
    problems = judge.problems(asked)
    assert not problems, f"{len(problems)} differences\n" + "\n".join(problems)


def test_equal_values_stand_in_the_order_in_which_go_sorts_them(judge: Judge) -> None:
    """More than 12 of them, in every pattern for which Go's sort has a way of its own."""
    problems = judge.problems((expr, Span.at(corpus.START_MS)) for expr in corpus.make_tied_expressions())
    assert not problems, f"{len(problems)} differences\n" + "\n".join(problems)


@pytest.mark.parametrize("span", RANGES)
def test_range_queries_are_answered_like_prometheus(judge: Judge, span: str) -> None:
    """The same over ranges: dense, sparse, and reaching past the samples on both sides."""
    problems = judge.problems((expr, RANGES[span]) for expr in corpus.make_expressions())
    assert not problems, f"{len(problems)} differences\n" + "\n".join(problems)
