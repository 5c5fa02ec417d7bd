"""Nobody's change is undone, nothing deleted comes back, and late readers see what running ones see."""

from hypothesis import HealthCheck, settings

from tests.support.ring_store_machine import RingStoreMachine

TestRingStore = RingStoreMachine.TestCase
TestRingStore.settings = settings(
    max_examples=100, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
