"""Native histograms in the query engine and in a real Prometheus: equal answers, annotations, errors and counts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import histogram_corpus as corpus
from tests.support.query_judge import Judge, Span, judge_of

pytestmark = pytest.mark.peer

_END_MS = corpus.START_MS + corpus.SAMPLES * corpus.INTERVAL_MS
INSTANTS = (corpus.START_MS + 700_123, corpus.START_MS + 1_530_000, _END_MS + 100_000)
RANGES = {
    "minutes": Span(corpus.START_MS + 300_000, corpus.START_MS + 2_900_500, 60_000),
    "wide": Span(corpus.START_MS - 60_000, _END_MS + 400_000, 457_000),
}


@pytest.fixture(scope="module", params=["names dropped at once", "names dropped at the end"])
def judge(
    request: pytest.FixtureRequest, prometheus_bin: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Judge]:
    """A Prometheus and our engine over the same samples."""
    delayed = request.param == "names dropped at the end"
    folder = tmp_path_factory.mktemp("prometheus")
    with judge_of(prometheus_bin, folder, corpus.make_series(), delayed_name_removal=delayed) as judge:
        yield judge


def _expressions(judge: Judge) -> list[str]:
    """Return all expressions; where names are dropped at the end, every third."""
    return corpus.make_expressions()[:: 3 if judge.engine.delayed_name_removal else 1]


def test_instant_queries_of_histograms_are_answered_like_prometheus(judge: Judge) -> None:
    """Histograms as JSON with all buckets, numbers, order, annotations, errors and sample counts."""
    asked = [(e, Span.at(t)) for e in (*_expressions(judge), *corpus.INSTANT_ONLY) for t in INSTANTS]
    problems = judge.problems(asked)
    assert not problems, f"{len(problems)} differences\n" + "\n".join(problems)


@pytest.mark.parametrize("span", RANGES)
def test_range_queries_of_histograms_are_answered_like_prometheus(judge: Judge, span: str) -> None:
    """The same over ranges, dense, and sparse and reaching past the samples on both sides."""
    problems = judge.problems((expr, RANGES[span]) for expr in _expressions(judge))
    assert not problems, f"{len(problems)} differences\n" + "\n".join(problems)
