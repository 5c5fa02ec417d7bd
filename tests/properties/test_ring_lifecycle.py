"""Ingesters that step while the store is unsteady, clocks are off and people meddle end up where they should."""

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import rule

from partitions import edits
from partitions.codec import encode
from partitions.kv.contract import RingRecord
from partitions.lifecycle import LifecycleKnobs, leave, partition_of, step
from partitions.merge import stamp
from partitions.model import PartitionDesc, PartitionState
from tests.support.ring_store_machine import INSTANCES, RingStoreMachine

PENDING, ACTIVE, INACTIVE = PartitionState.PENDING, PartitionState.ACTIVE, PartitionState.INACTIVE


class RingLifecycleMachine(RingStoreMachine):
    """Two ingesters of partition 0 in two zones and one of partition 1."""

    def write(self, process, wanted, *, late):
        desc = process.replica.desc
        version = process.clock.next(self.now_ms + process.skew_ms, desc.newest)
        stamped = [stamp(desc.entries.get(entry.key), entry, version) for entry in wanted]
        records = tuple(RingRecord(e.key, process.name, encode(e)) for e in stamped if e is not None)
        if late:
            self.under_way += [records] if records else []
        else:
            self.store(records)

    @rule(name=st.sampled_from(INSTANCES), marker=st.booleans(), late=st.booleans())
    def an_ingester_steps(self, name, marker, late):
        process, own = self.processes[name], [partition_of(name)]
        if not process.started or not late:
            self.read(process)
        desc, now_ms = process.replica.desc, self.now_ms + process.skew_ms
        wanted = step(desc, name, own, LifecycleKnobs(create_partition=not marker), now_ms)
        for entry in wanted:
            if isinstance(entry, PartitionDesc):
                self.check_change(desc.partitions.get(entry.id), entry, own, marker)
        self.write(process, wanted, late=late)

    def check_change(self, old, new, own, marker):
        if old is None:
            assert new.state is PENDING
            assert new.id in own
            assert not marker
            return
        assert not old.locked
        assert new.locked is old.locked
        assert (old.state, new.state, new.id in own) in {
            (PENDING, ACTIVE, True),
            (INACTIVE, PartitionState.DELETED, False),
        }

    @rule(name=st.sampled_from(INSTANCES), late=st.booleans())
    def an_ingester_leaves(self, name, late):
        process = self.processes[name]
        self.read(process)
        self.write(process, leave(process.replica.desc, name, self.now_ms + process.skew_ms), late=late)

    def teardown(self):
        super().teardown()
        if not self.processes:
            return
        first = self.processes[INSTANCES[0]]
        self.read(first)
        for number in first.replica.desc.partitions:
            self.write(first, edits.lock(first.replica.desc, number, False, self.now_ms), late=False)
            self.read(first)
        for _ in range(3):
            for name in INSTANCES:
                self.an_ingester_steps(name, marker=False, late=False)
            self.a_day_and_a_half_goes_by(arrives=False)
        self.read(first)
        desc = first.replica.desc
        assert desc.partitions.keys() == {0, 1}
        assert all(partition.state in (ACTIVE, INACTIVE) for partition in desc.partitions.values())
        assert [owner.instance for owner in desc.owners_of(0)] == list(INSTANCES[:2])
        assert [owner.instance for owner in desc.owners_of(1)] == [INSTANCES[2]]
        for name in INSTANCES:
            now_ms = self.now_ms + self.processes[name].skew_ms
            assert step(desc, name, [partition_of(name)], LifecycleKnobs(), now_ms) == []


TestRingLifecycle = RingLifecycleMachine.TestCase
TestRingLifecycle.settings = settings(
    max_examples=60, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
