"""States of a process's parts, and what readiness says about them."""

import pytest

from mimir_ingest.config.durations import Duration
from mimir_ingest.errors import InvariantViolated
from mimir_ingest.obs.services import ALLOWED_TRANSITIONS, ReadySince, ServiceRegistry, ServiceState, readiness

NEW, STARTING, RUNNING = ServiceState.NEW, ServiceState.STARTING, ServiceState.RUNNING
STOPPING, TERMINATED, FAILED = ServiceState.STOPPING, ServiceState.TERMINATED, ServiceState.FAILED


def registry(**states):
    made = ServiceRegistry()
    paths = {NEW: [NEW], STARTING: [STARTING], RUNNING: [STARTING, RUNNING], FAILED: [STARTING, FAILED]}
    for name, state in states.items():
        for step in paths[state]:
            made.set_state(name, step)
    return made


@pytest.mark.parametrize("before", list(ServiceState))
@pytest.mark.parametrize("after", list(ServiceState))
def test_only_the_transitions_of_the_table_are_possible(before, after):
    made = ServiceRegistry()
    routes = {STARTING: [STARTING], RUNNING: [STARTING, RUNNING], STOPPING: [STARTING, STOPPING], NEW: [NEW],
              TERMINATED: [TERMINATED], FAILED: [STARTING, FAILED]}  # fmt: skip
    for state in routes[before]:
        made.set_state("a", state)
    if after is before or after in ALLOWED_TRANSITIONS[before]:
        made.set_state("a", after)
        assert made.states() == {"a": after}
    else:
        with pytest.raises(InvariantViolated, match=f"from {before} to {after}"):
            made.set_state("a", after)


def test_a_change_is_told_once():
    seen = []
    made = ServiceRegistry(lambda name, state: seen.append((name, state)))
    for state in (STARTING, STARTING, RUNNING):
        made.set_state("a", state)
    assert seen == [("a", STARTING), ("a", RUNNING)]


def test_readiness_answers_in_mimirs_order_and_words():
    assert readiness(registry(b=STARTING, a=RUNNING, c=FAILED), lambda: "x") == (
        "Some services are not Running:\nb: Starting\nc: Failed"
    )
    assert readiness(registry(a=RUNNING), lambda: "waiting for 15s after being ready") == (
        "Ingester not ready: waiting for 15s after being ready"
    )
    assert readiness(registry(a=RUNNING), lambda: None) is None
    assert readiness(registry(a=RUNNING), None) is None
    stopping = registry(a=STARTING)
    stopping.stopping = True
    assert readiness(stopping, None) == "Application is stopping"


def test_a_part_that_is_waited_for_says_why_behind_its_state():
    services = registry(log=STARTING, bucket=STARTING)
    services.explain("log", lambda: "Kafka does not answer")
    services.explain("bucket", lambda: None)
    assert readiness(services, None) == (
        "Some services are not Running:\nbucket: Starting\nlog: Starting (Kafka does not answer)"
    )


def test_an_ingester_becomes_ready_once_its_checks_have_passed_for_a_while():
    reason, now_s = [None], [100.0]
    since = ReadySince(lambda: reason[0], min_ready=Duration(15_000_000_000), now_s=lambda: now_s[0])
    waiting = "waiting for 15s after being ready"
    assert since() == waiting
    now_s[0] += 14
    assert since() == waiting
    reason[0] = "partition 0 is catching up"
    assert since() == "partition 0 is catching up"
    reason[0] = None
    now_s[0] += 1
    assert since() == waiting  # a failing check starts the wait again
    now_s[0] += 15
    assert since() is None
    reason[0] = "partition 0 is stopped"
    assert since() == "partition 0 is stopped"
    reason[0] = None
    assert since() is None  # the wait is over for good
    assert ReadySince(lambda: None, min_ready=Duration(0))() is None
