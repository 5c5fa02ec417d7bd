"""The runner of Prometheus's scripts reads the whole language, and tells right answers from wrong ones."""

import math

import pytest

from mimir_ingest.errors import QueryError
from tests.support.promqltest import SCRIPTS, Answer, Clear, Eval, Load, ScriptError, parse_script, run_script
from tests.support.series_notation import (
    STALE_NAN,
    HistogramValue,
    NotationError,
    almost_equal,
    is_stale,
    parse_series,
    parse_start_offsets,
)


def test_all_scripts_are_read():
    commands = [command for path in SCRIPTS.glob("*.test") for command in parse_script(path.read_text())]
    assert len(list(SCRIPTS.glob("*.test"))) == 21
    assert sum(isinstance(command, Eval) for command in commands) == 2214
    assert sum(isinstance(command, Load) for command in commands) == 310
    assert sum(isinstance(command, Clear) for command in commands) == 231


@pytest.mark.parametrize(
    ("line", "labels", "values"),
    [
        ("a 1 2.5 -3", {"__name__": "a"}, [1, 2.5, -3]),
        ('{"x.y", b="c"} _ 1 _x2 2', {"__name__": "x.y", "b": "c"}, [None, 1, None, None, 2]),
        ("a{} 1+2x3 10-5x1 7x2", {"__name__": "a"}, [1, 3, 5, 7, 10, 5, 7, 7, 7]),
        ('{b="}\\""} Inf -inf', {"b": '}"'}, [math.inf, -math.inf]),
        ("a -1e-3x1", {"__name__": "a"}, [-0.001, -0.001]),
        ('{b=""}', {}, []),
    ],
)
def test_series_lines(line, labels, values):
    assert parse_series(line) == (labels, values)


def test_staleness_markers_and_nan_are_two_things():
    _, (stale, nan) = parse_series("a stale NaN")
    assert is_stale(stale)
    assert not is_stale(nan)
    assert almost_equal(stale, STALE_NAN)
    assert almost_equal(nan, math.nan)
    assert not almost_equal(stale, nan)


@pytest.mark.parametrize("line", ["", "a b", "a 1+2", "a {{sum:1 x:2}}", "a {{sum}}", "1 2"])
def test_lines_that_are_no_series_are_refused(line):
    with pytest.raises(ValueError):
        parse_series(line)


def test_histograms_and_their_arithmetic():
    _, values = parse_series("h {{schema:1 count:3 sum:5 z_bucket:1 z_bucket_w:0.1 buckets:[1 0 1] offset:-1}}x1 {{}}")
    assert values[0] == values[1]
    assert values[0] == HistogramValue(
        schema=1, count=3, sum=5, zero_count=1, zero_threshold=0.1, positive={-1: 1, 0: 0, 1: 1}
    )
    assert values[2] == HistogramValue()
    _, (first, second) = parse_series(
        "h {{schema:-1 count:1 sum:4 buckets:[1] offset:1}}+{{schema:0 count:4 buckets:[2 2] offset:1}}x1"
    )
    assert first.positive == {1: 1}
    assert second.positive == {1: 5}
    assert second.count == 5
    with pytest.raises(NotationError):
        parse_series("h {{schema:1}}+{{schema:0}}x1")


def test_histograms_match_without_empty_buckets_and_with_the_hint_only_if_stated():
    _, (plain, hinted) = parse_series(
        "h {{count:1 buckets:[0 1 0]}} {{count:1 buckets:[1] offset:1 counter_reset_hint:gauge}}"
    )
    assert plain.matches(hinted)
    assert not hinted.matches(plain)


def test_start_offsets():
    assert parse_start_offsets("_ -30s-1mx2 _x2 5ms") == [None, -30_000, -90_000, -150_000, None, None, 5]


class Storage:
    """A target that knows one query: `last` gives each series' latest sample at or before the time."""

    def __init__(self, *, wrong=None, warnings=()):
        self.series, self.wrong, self.warnings = {}, wrong, list(warnings)

    def clear(self):
        self.series = {}

    def append(self, labels, samples):
        self.series.setdefault(tuple(sorted(labels.items())), []).extend(samples)

    def _at(self, at_ms):
        found = {}
        for key, samples in sorted(self.series.items()):
            old = [sample.value for sample in samples if sample.at_ms <= max(at_ms, 0)]
            if old:
                found[key] = old[-1] if self.wrong is None else self.wrong
        return found

    def instant(self, expr, at_ms):
        if expr.startswith("bad"):
            raise QueryError("no such thing")
        if expr.startswith('"'):
            return Answer(string=expr.strip('"'))
        return Answer(vector=[(dict(k), v) for k, v in self._at(0).items()], warnings=self.warnings)

    def range(self, expr, start_ms, end_ms_incl, step_ms):
        times = range(start_ms, end_ms_incl + 1, step_ms)
        return Answer(
            matrix=[(dict(key), [(t, self._at(0)[key]) for t in times]) for key in self._at(0)], warnings=self.warnings
        )


SCRIPT = """
# a comment
load 1m
  last{a="1"} 5 6
  last{a="2"} 7

eval instant at 1m last
  last{a="2"} 7
  last{a="1"} 5

eval range from 0 to 2m step 1m last
  last{a="1"} 5 5 5
  last{a="2"} 7x2

eval instant at 0 bad
  expect fail msg: no such thing

eval_fail instant at 0 bad
  expected_fail_regexp no such .*

eval instant at 0 "text"
  expect string "text"

clear
eval instant at 0 last
"""


def problems(script, target):
    return [outcome.problem for outcome in run_script(parse_script(script), target)]


def test_right_answers_pass():
    assert problems(SCRIPT, Storage()) == [None] * 6


def test_wrong_values_are_told():
    found = problems(SCRIPT, Storage(wrong=6.9))
    assert [problem is None for problem in found] == [False, False, True, True, True, True]
    assert "expected 5.0, got 6.9" in found[0]


@pytest.mark.parametrize(
    ("expectation", "text"),
    [
        ("  last 5", "unexpected series"),
        ('  last{a="1"} 5\n  last{a="2"} 7\n  last{a="3"} 7', "not found"),
        ('  expect ordered\n  last{a="2"} 7\n  last{a="1"} 5', "at place 0"),
        ('  expect fail\n  last{a="1"} 5\n  last{a="2"} 7', "should have failed"),
        ('  expect warn\n  last{a="1"} 5\n  last{a="2"} 7', "expected a warn annotation"),
        ("  5", "expected scalar"),
    ],
)
def test_other_expectations_are_told(expectation, text):
    script = f'load 1m\n  last{{a="1"}} 5\n  last{{a="2"}} 7\n\neval instant at 1m last\n{expectation}\n'
    (problem,) = problems(script, Storage())
    assert text in problem


@pytest.mark.parametrize(
    ("lines", "passes"),
    [
        ("", True),
        ("  expect no_warn", False),
        ("  expect warn", True),
        ("  expect warn msg: one", False),
        ("  expect warn msg: one\n  expect warn regex: ^tw", True),
        ("  expect warn msg: other", False),
        ("  expect no_info", True),
        ("  expect info", False),
    ],
)
def test_annotations_are_compared_both_ways(lines, passes):
    script = f"load 1m\n  last 5\n\neval instant at 1m last\n{lines}\n  last 5\n".replace("\n\n  last", "\n  last")
    (problem,) = problems(script, Storage(warnings=["one", "two"]))
    assert (problem is None) == passes


@pytest.mark.parametrize(
    "script", ["evaluate x", "load x\n a 1", "eval instant at 1m x\n  expect nothing", "load 1m\n  a b"]
)
def test_scripts_that_cannot_be_read_are_refused(script):
    with pytest.raises(ScriptError, match="line 1"):
        parse_script(script)


def test_classic_histograms_are_also_loaded_as_native_ones():
    (load,) = parse_script('load_with_nhcb 1m\n  h_bucket{le="1"} 2\n  h_bucket{le="+Inf"} 5\n  h_sum 7\n  h_count 5\n')
    (native,) = [samples for labels, samples in load.series if labels == {"__name__": "h"}]
    assert native[0].value == HistogramValue(schema=-53, count=5, sum=7, positive={0: 2, 1: 3}, custom_values=(1.0,))
