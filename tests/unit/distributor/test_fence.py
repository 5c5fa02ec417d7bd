"""A distributor whose ring is old does not acknowledge, and says so with a status that is retried."""

import pytest

from mimir_ingest.distributor.fence import may_acknowledge
from partitions.model import PartitionState
from partitions.ring import PartitionRing
from tests.support.memory_log import MemoryLog
from tests.support.push_target import PushTarget, named


@pytest.mark.parametrize(
    ("routed_s", "confirmed_s", "active", "allowed"),
    [
        (91.0, 91.0, {0, 1}, True),
        (90.0, 90.0, {0, 1}, False),
        (80.0, 99.0, {0, 1}, True),
        (80.0, 99.0, {0}, False),
        (80.0, 90.0, {0, 1}, False),
        (91.0, 99.0, {0}, True),
    ],
)
def test_what_was_routed_by_a_fresh_view_or_is_still_active_in_one_is_acknowledged(
    routed_s, confirmed_s, active, allowed
):
    """At 100 s, records in partitions 0 and 1."""
    assert allowed == may_acknowledge(
        [0, 1], routed_confirmed_s=routed_s, active=active, confirmed_s=confirmed_s, now_s=100.0
    )


class FencedTarget(PushTarget):
    """A push target whose ring and its confirmation the test sets."""

    def __init__(self, log):
        super().__init__(log=log)
        self.confirmed_s = self.seconds
        self.states = {0: PartitionState.ACTIVE}
        self.distributor._ring = lambda: PartitionRing.build(self.states)
        self.distributor._ring_confirmed_s = lambda: self.confirmed_s


class SlowLog(MemoryLog):
    """Takes what a test decides to append a record."""

    on_append = staticmethod(lambda: None)

    async def append(self, *args, **kwargs):
        self.on_append()
        return await super().append(*args, **kwargs)


async def test_nothing_is_written_while_the_ring_was_not_confirmed_for_ten_seconds():
    async with FencedTarget(MemoryLog()) as target:
        assert (await target.push(named(b"a"))).status_code == 200
        target.seconds += 9.9
        assert (await target.push(named(b"b"))).status_code == 200
        target.seconds += 0.1
        answer = await target.push(named(b"c"))
        assert answer.status_code == 500, answer.text
        assert "the ring of partitions was last confirmed 10 s ago" in answer.text
        assert answer.headers["retry-after"]
        assert [labels for _, labels, _ in target.stored()] == [[(b"__name__", b"a")], [(b"__name__", b"b")]]


async def test_an_append_that_outlives_the_view_it_was_routed_by_is_acknowledged_only_by_a_newer_one():
    log = SlowLog()
    async with FencedTarget(log) as target:

        def pass_time():
            target.seconds += 12

        log.on_append = pass_time
        assert (await target.push(named(b"nobody_confirmed"))).status_code == 500

        def confirm():
            target.seconds += 12
            target.confirmed_s = target.seconds

        target.confirmed_s = target.seconds
        log.on_append = confirm
        assert (await target.push(named(b"still_active"))).status_code == 200

        def remove():
            confirm()
            target.states = {0: PartitionState.INACTIVE}

        log.on_append = remove
        assert (await target.push(named(b"inactive_now"))).status_code == 500
        assert len(target.stored()) == 3
