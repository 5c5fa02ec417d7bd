"""Prometheus's own PromQL scripts, played against the engine, with delayed name removal on (as they assume) and off.

Every evaluation passes, or stands in `KNOWN_DIFFERENCES-promqltest.md` with its reason, or among those that expect
delayed name removal; one that stands there and passes fails the test, too.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.engine_target import EngineTarget
from tests.support.known_differences import read_known_differences
from tests.support.promqltest import SCRIPTS, parse_script, run_script

KNOWN = Path(__file__).parent / "KNOWN_DIFFERENCES-promqltest.md"
DELAYED = Path(__file__).parent / "DELAYED_NAME_REMOVAL.md"
NAMES = sorted(path.name for path in SCRIPTS.glob("*.test"))
MODES = {"delayed name removal on": True, "delayed name removal off": False}


def test_the_scripts_are_there() -> None:
    """All 21 scripts are vendored, so an empty folder cannot pass."""
    assert len(NAMES) == 21


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", NAMES)
def test_every_evaluation_is_as_prometheus_has_it_or_a_known_difference(name: str, mode: str) -> None:
    """The evaluations that differ are exactly the listed ones."""
    listed = set(read_known_differences(mode, KNOWN))
    if not MODES[mode]:
        listed |= set(read_known_differences(mode, DELAYED))
    known = {case for case in listed if case.startswith(f"{name}:")}
    commands = parse_script((SCRIPTS / name).read_text())
    outcomes = list(run_script(commands, EngineTarget(delayed_name_removal=MODES[mode])))
    assert outcomes, f"{name} evaluates nothing"
    problems = {f"{name}:{o.eval.line}": o.problem for o in outcomes if o.problem is not None}
    new = {case: problem for case, problem in problems.items() if case not in known}
    assert not new, "\n".join(f"{case}: {problem}" for case, problem in new.items())
    gone = known - problems.keys()
    assert not gone, f"listed as differences, but they pass: {sorted(gone)}"
