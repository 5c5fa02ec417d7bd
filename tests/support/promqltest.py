"""Prometheus's PromQL test scripts: reading them, and running them against an engine.

A script is a list of commands (`Clear`, `Load`, `Eval`). `run_script` plays them against a `Target`, the adapter of an
engine with its storage, and gives one `Outcome` an `Eval`. An instant evaluation is also made with `@ <t>` appended to
its selectors at other times, and as the middle of a range query, as Prometheus's own runner does
(`promql/promqltest/test.go`, 3.14). Language: `tests/conformance/promqltest/PROVENANCE.md`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from mimir_ingest.errors import QueryError
from mimir_ingest.promql.literals import parse_duration, unquote
from tests.support.at_modifier_cases import at_modifier_cases
from tests.support.classic_to_native import convert_classic
from tests.support.series_notation import (
    HistogramValue,
    LiteralError,
    SeriesValue,
    almost_equal,
    parse_series,
    parse_signed_number,
    parse_start_offsets,
)

SCRIPTS = Path(__file__).parents[1] / "conformance" / "promqltest"

Labels = dict[str, str]
Point = tuple[int, float | HistogramValue]


@dataclass(frozen=True)
class Answer:
    """What an engine answered: exactly one of the four values, and the annotations as the API renders them."""

    vector: list[tuple[Labels, float | HistogramValue]] | None = None
    matrix: list[tuple[Labels, list[Point]]] | None = None
    scalar: float | None = None
    string: str | None = None
    warnings: list[str] = field(default_factory=list)
    infos: list[str] = field(default_factory=list)


class Target(Protocol):
    """An engine and its storage. Queries raise `QueryError`."""

    def clear(self) -> None:
        """Forget all samples."""

    def append(self, labels: Labels, samples: list[Sample]) -> None:
        """Store samples of one series; later calls may bring the same series again."""

    def instant(self, expr: str, at_ms: int) -> Answer:
        """Evaluate at one time."""

    def range(self, expr: str, start_ms: int, end_ms_incl: int, step_ms: int) -> Answer:
        """Evaluate at every step; the answer is a matrix."""


@dataclass(frozen=True)
class Sample:
    """One sample to store."""

    at_ms: int
    value: float | HistogramValue
    start_ms: int | None = None
    """Start timestamp, where the script gives one."""


@dataclass(frozen=True)
class Clear:
    """Empty the storage."""

    line: int


@dataclass(frozen=True)
class Load:
    """Store series."""

    line: int
    series: tuple[tuple[Labels, tuple[Sample, ...]], ...]


@dataclass(frozen=True)
class Expectation:
    """One `expect` line, or its older spelling."""

    kind: str
    """`ordered`, `fail`, `warn`, `no_warn`, `info` or `no_info`."""
    message: str | None = None
    pattern: str | None = None
    only_presence: bool = False
    """Whether other annotations of the kind are fine (`eval_warn`, `eval_info`)."""

    def matches(self, text: str) -> bool:
        """Whether a text is the expected one."""
        if self.message is not None:
            return self.message == text
        return self.pattern is None or re.search(self.pattern, text) is not None


@dataclass(frozen=True)
class Eval:
    """Evaluate and compare."""

    line: int
    expr: str
    start_ms: int
    end_ms_incl: int
    step_ms: int
    """0: an instant evaluation."""
    expectations: tuple[Expectation, ...] = ()
    series: tuple[tuple[Labels, tuple[SeriesValue, ...]], ...] = ()
    scalar: float | None = None
    string: str | None = None
    range_vector: tuple[int, int] | None = None
    """(start, step) of the timestamps of a range-vector result."""

    def expects(self, kind: str) -> list[Expectation]:
        """Return the expectations of a kind."""
        return [expectation for expectation in self.expectations if expectation.kind == kind]


@dataclass(frozen=True)
class Outcome:
    """What came of one evaluation."""

    eval: Eval
    problem: str | None
    """None: as expected."""


class ScriptError(ValueError):
    """A script that cannot be read."""


_LOAD = re.compile(r"load(?:_(with_nhcb))?\s+(.+?)")
_INSTANT = re.compile(r"eval(?:_(fail|warn|ordered|info))?\s+instant\s+(?:at\s+(.+?))?\s+(.+)")
_RANGE = re.compile(r"eval(?:_(fail|warn|info))?\s+range\s+from\s+(.+)\s+to\s+(.+)\s+step\s+(.+?)\s+(.+)")
_EXPECT = re.compile(r"expect\s+(ordered|fail|warn|no_warn|info|no_info)(?:\s+(regex|msg):(.+))?")
_EXPECT_RANGE = re.compile(r"expect range vector\s+from\s+(.+)\s+to\s+(.+)\s+step\s+(.+)")
_START_LINE = re.compile(r"(\S+)@st\s+(.+)")


def _ms(text: str) -> int:
    return parse_duration(text) // 1_000_000


def parse_script(text: str) -> list[Clear | Load | Eval]:
    """Read a script. `ScriptError` with the line if it cannot be read."""
    lines = [line.strip() for line in text.split("\n")]
    lines = ["" if line.startswith("#") else line for line in lines]
    commands: list[Clear | Load | Eval] = []
    at = 0
    while at < len(lines):
        head = lines[at]
        end = at + 1
        if not head:
            at = end
            continue
        while end < len(lines) and lines[end]:
            end += 1
        try:
            if head.split()[0].lower() == "clear":
                commands.append(Clear(at + 1))
                end = at + 1
            elif head.startswith("load"):
                commands.append(_parse_load(at + 1, head, lines[at + 1 : end]))
            else:
                commands.append(_parse_eval(at + 1, head, lines[at + 1 : end]))
        except ValueError as error:
            raise ScriptError(f"line {at + 1}: {error}") from error
        at = end
    return commands


def _parse_load(line: int, head: str, body: list[str]) -> Load:
    match = _LOAD.fullmatch(head)
    if match is None:
        raise ScriptError(f"no load command: {head!r}")
    step_ms = _ms(match[2])
    starts: list[int | None] = []
    loaded: dict[tuple[tuple[str, str], ...], tuple[Sample, ...]] = {}
    for text in body:
        start_line = _START_LINE.fullmatch(text)
        if start_line:
            starts = parse_start_offsets(start_line[2])
            continue
        labels, values = parse_series(text)
        if starts and len(starts) != len(values):
            raise ScriptError(f"{len(starts)} start offsets for {len(values)} values: {text!r}")
        offsets = starts or [None] * len(values)
        starts = []
        # A series that is given twice counts as given last, as in Prometheus.
        loaded[tuple(sorted(labels.items()))] = tuple(
            Sample(i * step_ms, value, None if offset is None else i * step_ms + offset)
            for i, (value, offset) in enumerate(zip(values, offsets, strict=True))
            if value is not None
        )
    series = [(dict(key), samples) for key, samples in loaded.items()]
    if match[1]:
        plain = [(labels, [(s.at_ms, s.value) for s in samples]) for labels, samples in series]
        for labels, points in convert_classic(plain):
            series.append((labels, tuple(Sample(at, value) for at, value in points if value is not None)))
    return Load(line, tuple(series))


def _parse_eval(line: int, head: str, body: list[str]) -> Eval:
    instant, over_range = _INSTANT.fullmatch(head), _RANGE.fullmatch(head)
    if instant:
        modifier, expr = instant[1], instant[3]
        start_ms = end_ms = _ms(instant[2] or "")
        step_ms = 0
    elif over_range:
        modifier, expr = over_range[1], over_range[5]
        start_ms, end_ms, step_ms = (_ms(text) for text in over_range.groups()[1:4])
    else:
        raise ScriptError(f"no command: {head!r}")
    expectations = [Expectation(modifier, only_presence=modifier in ("warn", "info"))] if modifier else []
    series: list[tuple[Labels, tuple[SeriesValue, ...]]] = []
    scalar = string = range_vector = None
    for text in body:
        if text.startswith(("expected_fail_message", "expected_fail_regexp")):
            key, _, rest = text.partition(" ")
            is_message = key == "expected_fail_message"
            expectations[0] = Expectation("fail", *((rest.strip(), None) if is_message else (None, rest.strip())))
        elif text.startswith("expect range vector"):
            match = _EXPECT_RANGE.fullmatch(text)
            if match is None:
                raise ScriptError(f"no range vector definition: {text!r}")
            range_vector = (_ms(match[1]), _ms(match[3]))
        elif text.startswith("expect string "):
            string = unquote(text.removeprefix("expect string "))
        elif text.split(" ")[0] == "expect":
            expectations.append(_parse_expect(text))
        else:
            try:
                scalar = parse_signed_number(text)
            except LiteralError:
                labels, values = parse_series(text)
                series.append((labels, tuple(values)))
    return Eval(line, expr, start_ms, end_ms, step_ms, tuple(expectations), tuple(series), scalar, string, range_vector)


def _parse_expect(text: str) -> Expectation:
    match = _EXPECT.fullmatch(text)
    if match is None:
        raise ScriptError(f"no expectation: {text!r}")
    kind, how, what = match.groups()
    if how == "msg":
        return Expectation(kind, message=what.strip())
    return Expectation(kind, pattern=what.strip() if how else None)


def run_script(commands: list[Clear | Load | Eval], target: Target) -> Iterator[Outcome]:
    """Play a script from an empty storage; yield the outcome of every evaluation."""
    target.clear()
    for command in commands:
        match command:
            case Clear():
                target.clear()
            case Load():
                for labels, samples in command.series:
                    target.append(labels, list(samples))
            case Eval():
                try:
                    run_eval(command, target)
                except Mismatch as mismatch:
                    yield Outcome(command, str(mismatch))
                except Exception as error:  # an engine that crashes has failed this case, not the whole script
                    yield Outcome(command, f"{type(error).__name__}: {error}")
                else:
                    yield Outcome(command, None)


class Mismatch(AssertionError):
    """An answer that is not the expected one."""


def run_eval(command: Eval, target: Target) -> None:
    """Evaluate one command in all the ways it implies. `Mismatch` at the first answer that is not as expected."""
    if command.step_ms:
        answer = _ask(command, command.expr, target, command.start_ms, command.end_ms_incl, command.step_ms)
        if answer is not None:
            _compare(command, answer)
        return
    for expr, at_ms in [(command.expr, command.start_ms), *at_modifier_cases(command.expr, command.start_ms)]:
        answer = _ask(command, expr, target, at_ms)
        if answer is None:
            continue
        _compare(command, answer)
        if command.range_vector or command.string is not None or _CONTEXT_FUNCTION.search(expr):
            continue
        in_range = target.range(expr, at_ms - 60_000, at_ms + 60_000, 60_000)
        if not command.expects("ordered"):
            _compare(command, _middle(in_range, at_ms, scalar=answer.scalar is not None))


_CONTEXT_FUNCTION = re.compile(r"(start|end|range|step)\(\)")


def _ask(
    command: Eval, expr: str, target: Target, start_ms: int, end_ms_incl: int = 0, step_ms: int = 0
) -> Answer | None:
    """Return the answer, or None if the evaluation failed as it should."""
    failures = command.expects("fail")
    try:
        if step_ms:
            answer = target.range(expr, start_ms, end_ms_incl, step_ms)
        else:
            answer = target.instant(expr, start_ms)
    except QueryError as error:
        if not failures:
            raise Mismatch(f"{expr!r} at {start_ms} failed: {error.message}") from error
        if not failures[0].matches(error.message):
            raise Mismatch(f"{expr!r} at {start_ms} failed otherwise than expected: {error.message}") from error
        return None
    if failures:
        raise Mismatch(f"{expr!r} at {start_ms} should have failed")
    _check_annotations(command, "warn", answer.warnings)
    _check_annotations(command, "info", answer.infos)
    return answer


def _check_annotations(command: Eval, kind: str, texts: list[str]) -> None:
    expected = command.expects(kind)
    if expected and not texts:
        raise Mismatch(f"expected a {kind} annotation, got none")
    if command.expects(f"no_{kind}") and texts:
        raise Mismatch(f"unexpected {kind} annotations {texts}")
    for expectation in expected:
        if not any(map(expectation.matches, texts)):
            raise Mismatch(f"no {kind} annotation like {expectation}; got {texts}")
    for text in texts:
        if expected and not any(expectation.matches(text) for expectation in expected):
            raise Mismatch(f"unexpected {kind} annotation {text!r}")


def _middle(answer: Answer, at_ms: int, *, scalar: bool) -> Answer:
    """Return a range answer's values at one time, as an instant answer."""
    assert answer.matrix is not None
    _check_sorted(answer.matrix)
    vector = [(labels, value) for labels, points in answer.matrix for t, value in points if t == at_ms]
    if not scalar:
        return Answer(vector=vector)
    if len(vector) != 1 or isinstance(vector[0][1], HistogramValue):
        raise Mismatch(f"range query of a scalar gave {vector}")
    return Answer(scalar=vector[0][1])


def _check_sorted(matrix: list[tuple[Labels, list[Point]]]) -> None:
    keys = [[(k.encode(), v.encode()) for k, v in sorted(labels.items())] for labels, _ in matrix]
    if keys != sorted(keys):
        raise Mismatch("series of a matrix are not in label order")


def _key(labels: Labels) -> frozenset[tuple[str, str]]:
    return frozenset(labels.items())


def _compare(command: Eval, answer: Answer) -> None:
    if answer.string is not None:
        if answer.string != (command.string or ""):
            raise Mismatch(f"expected string {command.string!r}, got {answer.string!r}")
    elif answer.scalar is not None:
        if command.scalar is None or not almost_equal(command.scalar, answer.scalar):
            raise Mismatch(f"expected scalar {command.scalar}, got {answer.scalar}")
    elif command.scalar is not None:
        raise Mismatch(f"expected scalar {command.scalar}, got {answer}")
    elif answer.vector is not None:
        _compare_vector(command, answer.vector)
    else:
        assert answer.matrix is not None
        _compare_matrix(command, answer.matrix)


def _compare_vector(command: Eval, vector: list[tuple[Labels, float | HistogramValue]]) -> None:
    expected = {_key(labels): (place, values[0]) for place, (labels, values) in enumerate(command.series)}
    seen = set()
    for place, (labels, value) in enumerate(vector):
        key = _key(labels)
        if key not in expected:
            raise Mismatch(f"unexpected series {labels} with {value}")
        if key in seen:
            raise Mismatch(f"series {labels} twice")
        seen.add(key)
        wanted_place, wanted = expected[key]
        if command.expects("ordered") and place != wanted_place:
            raise Mismatch(f"series {labels} at place {place}, expected at {wanted_place}")
        if not _same(wanted, value):
            raise Mismatch(f"{labels}: expected {wanted}, got {value}")
    for labels, values in command.series:
        if _key(labels) not in seen:
            raise Mismatch(f"expected series {labels} with {values} not found")


def _same(wanted: SeriesValue, value: float | HistogramValue) -> bool:
    if isinstance(wanted, HistogramValue) or isinstance(value, HistogramValue):
        return isinstance(wanted, HistogramValue) and isinstance(value, HistogramValue) and wanted.matches(value)
    return wanted is not None and almost_equal(wanted, value)


def _compare_matrix(command: Eval, matrix: list[tuple[Labels, list[Point]]]) -> None:
    if command.expects("ordered"):
        raise Mismatch("expected an ordered result, got a matrix")
    _check_sorted(matrix)
    start_ms, step_ms = command.range_vector or (command.start_ms, command.step_ms)
    expected = {
        _key(labels): [(start_ms + i * step_ms, value) for i, value in enumerate(values) if value is not None]
        for labels, values in command.series
    }
    seen = set()
    for labels, points in matrix:
        key = _key(labels)
        if key not in expected:
            raise Mismatch(f"unexpected series {labels} with {points}")
        seen.add(key)
        wanted = expected[key]
        if [at for at, _ in wanted] != [at for at, _ in points] or not all(
            _same(value, got) for (_, value), (_, got) in zip(wanted, points, strict=True)
        ):
            raise Mismatch(f"{labels}: expected {wanted}, got {points}")
    for labels, _ in command.series:
        if _key(labels) not in seen:
            raise Mismatch(f"expected series {labels} not found")
