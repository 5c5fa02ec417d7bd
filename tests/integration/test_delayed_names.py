"""Evaluations of Prometheus's scripts that expect delayed name removal: without it Prometheus answers as we do."""

from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path

import pytest

from tests.conformance.test_promqltest import DELAYED
from tests.support.known_differences import read_known_differences
from tests.support.promqltest import SCRIPTS, Clear, Load, parse_script
from tests.support.query_judge import Span, judge_of
from tests.support.series_notation import HistogramValue

pytestmark = pytest.mark.peer

CASES = read_known_differences("delayed name removal off", DELAYED)


def _stages(name: str) -> list[tuple[list, list[tuple[str, Span]]]]:
    """Return what a script's listed evaluations are asked over: (series, queries) for each state of its data."""
    series: dict[tuple, dict[int, object]] = defaultdict(dict)
    stages: list[tuple[list, list[tuple[str, Span]]]] = []
    fresh = True
    for command in parse_script((SCRIPTS / name).read_text()):
        if isinstance(command, Clear):
            series, fresh = defaultdict(dict), True
        elif isinstance(command, Load):
            for labels, samples in command.series:
                series[tuple(sorted(labels.items()))].update({s.at_ms: s.value for s in samples})
            fresh = True
        elif f"{name}:{command.line}" in CASES:
            if fresh:
                held = [
                    (dict(labels), [(at, _storable(value)) for at, value in sorted(samples.items())])
                    for labels, samples in series.items()
                ]
                stages.append((held, []))
                fresh = False
            stages[-1][1].append((command.expr, Span(command.start_ms, command.end_ms_incl, command.step_ms)))
    return stages


def _storable(value: object) -> object:
    """Return a sample that a receiver takes: scripts have histograms whose buckets do not add up to their count."""
    if not isinstance(value, HistogramValue) or math.isnan(value.sum):
        return value
    total = sum(value.positive.values()) + sum(value.negative.values()) + value.zero_count
    return HistogramValue(**{**vars(value), "count": total})


@pytest.mark.parametrize("name", sorted({case.split(":")[0] for case in CASES}))
def test_without_delayed_name_removal_prometheus_answers_as_the_engine(
    name: str, prometheus_bin: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    problems = []
    for series, asked in _stages(name):
        with judge_of(prometheus_bin, tmp_path_factory.mktemp("prometheus"), series, batch=len(series)) as judge:
            problems += judge.problems(asked)
    assert not problems, "\n".join(problems)
