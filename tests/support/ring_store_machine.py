"""Processes with skewed clocks on a ring store that loses, repeats, reorders and compacts, as a state machine.

The store promises what partitions/kv/contract.py says and breaks every other way; processes read late, write from stale
views, restart without memory, and null what is old. What must hold is compared with the join of everything ever stored.
"""

from dataclasses import dataclass, field, replace

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from partitions import edits
from partitions.clock import HybridClock
from partitions.codec import decode, encode
from partitions.errors import PartitionError
from partitions.kv.contract import RingRecord
from partitions.merge import join, shows, stamp
from partitions.model import ElectionDesc, Entry, InstanceDesc, InstanceState, PartitionState
from partitions.replica import Replica
from partitions.upkeep import SETTLED_MS, plan_upkeep

HOUR_MS = 3_600_000
HEARTBEAT_TIMEOUT_MS = 60_000
NULL_KEPT_MS = 24 * HOUR_MS
"""How long a store keeps a null at least."""
FORGOTTEN_MS = 12 * HOUR_MS
"""A reader that has not read for longer starts anew."""
START_MS = 1_000 * HOUR_MS
EDITS = (
    *("create", "change", "lock", "change and lock", "remove", "own", "disown", "heartbeat", "forget"),
    *("elect", "give up"),
)
INSTANCES = ("ingester-zone-a-0", "ingester-zone-b-0", "ingester-zone-a-1")


@dataclass
class Process:
    """One incarnation of a process: what it read, its clock, and how far the clock is off."""

    name: str
    skew_ms: int
    clock: HybridClock
    replica: Replica = field(default_factory=Replica)
    position: int = 0
    read_at_ms: int = 0
    started: bool = False
    """Has read the store to its end since it began at its start; nobody writes before that."""


class RingStoreMachine(RuleBasedStateMachine):
    """Three processes, a store, and the truth to compare with."""

    def __init__(self):
        super().__init__()
        self.now_ms = START_MS
        self.log: list[RingRecord | None] = []
        self.stored_ms: list[int] = []
        self.under_way: list[tuple[RingRecord, ...]] = []
        self.compactable = 0
        """Superseded records before this are old enough to be forgotten."""
        self.processes: dict[str, Process] = {}
        self.truth: dict[str, Entry] = {}
        """Join of every value ever stored."""

    @initialize(skews=st.lists(st.integers(-6 * HOUR_MS, 6 * HOUR_MS), min_size=3, max_size=3))
    def start_processes(self, skews):
        for name, skew_ms in zip(INSTANCES, skews, strict=True):
            self.processes[name] = Process(name, skew_ms, HybridClock(name))
        for kind in ("create", "change", "own", "heartbeat"):
            self.a_change_is_made_and_read_back(INSTANCES[0], (kind, PartitionState.ACTIVE))

    # --- what the store does

    def store(self, records):
        for record in records:
            self.log.append(record)
            self.stored_ms.append(self.now_ms)
            if record.value is not None:
                value = decode(record.key, record.value)
                known = self.truth.get(record.key)
                self.truth[record.key] = value if known is None else join(known, value)

    def read(self, process, limit=None):
        if self.now_ms - process.read_at_ms > FORGOTTEN_MS:
            process.replica, process.position, process.started = Replica(), 0, False
        end = len(self.log) if limit is None else min(len(self.log), process.position + limit)
        before = process.replica.desc.entries
        assert process.replica.apply([r for r in self.log[process.position : end] if r is not None]) == []
        process.position, process.read_at_ms = end, self.now_ms
        process.started |= end == len(self.log)
        for key, entry in process.replica.desc.entries.items():
            if key in before:
                assert join(before[key], entry) == entry, "what was read was undone"

    @rule(at=st.integers(0, 3), arrives=st.sampled_from(["once", "and comes again later", "never"]))
    def what_happens_to_a_late_append(self, at, arrives):
        if at < len(self.under_way):
            records = self.under_way[at] if arrives == "and comes again later" else self.under_way.pop(at)
            self.store(() if arrives == "never" else records)

    @rule()
    def the_store_is_compacted(self):
        newest = {(r.key, r.writer): at for at, r in enumerate(self.log) if r is not None}
        for at, record in enumerate(self.log):
            if record is None:
                continue
            superseded = newest[record.key, record.writer] != at and at < self.compactable
            old_null = record.value is None and self.now_ms - self.stored_ms[at] >= NULL_KEPT_MS
            if superseded or old_null:
                self.log[at] = None

    # --- what processes do

    @rule(name=st.sampled_from(INSTANCES), limit=st.integers(1, 4))
    def a_process_reads_a_little(self, name, limit):
        self.read(self.processes[name], limit)

    @rule(name=st.sampled_from(INSTANCES), skew_ms=st.integers(-6 * HOUR_MS, 6 * HOUR_MS))
    def a_process_restarts_with_another_clock(self, name, skew_ms):
        self.processes[name] = Process(name, skew_ms, HybridClock(name))

    def wanted(self, process, kind, state):
        desc, now_ms = process.replica.desc, self.now_ms + process.skew_ms
        match kind:
            case "create":
                return edits.create_partition(desc, 0, now_ms)
            case "change":
                return edits.change_state(desc, 0, state, now_ms)
            case "lock":
                return edits.lock(desc, 0, state is PartitionState.ACTIVE, now_ms)
            case "change and lock":
                return edits.change_state_and_lock(desc, 0, state, now_ms)
            case "remove":
                return edits.remove_partition(desc, 0, now_ms)
            case "own":
                return edits.add_owner(desc, INSTANCES[0], 0, now_ms)
            case "disown":
                return edits.remove_owner(desc, INSTANCES[0], 0, now_ms)
            case "heartbeat":
                instance = InstanceDesc("ingester", process.name, InstanceState.ACTIVE)
                return edits.heartbeat(desc, instance, now_ms)
            case "forget":
                return edits.forget_instance(desc, "ingester", INSTANCES[1], now_ms)
            case "elect":
                return [ElectionDesc("tenant", "cluster", process.name, now_ms, now_ms, 1)]
            case "give up":
                return [replace(e, deleted_ms=1) for c in desc.elections.values() for e in c.values()]

    edit = st.tuples(
        st.sampled_from(EDITS),
        st.sampled_from([PartitionState.ACTIVE, PartitionState.INACTIVE]),
    )

    def stamped(self, process, edit):
        try:
            wanted = self.wanted(process, *edit)
        except PartitionError:
            return [], None
        desc = process.replica.desc
        version = process.clock.next(self.now_ms + process.skew_ms, desc.newest)
        entries = [stamp(desc.entries.get(entry.key), entry, version) for entry in wanted]
        return [entry for entry in entries if entry is not None], version

    @rule(name=st.sampled_from(INSTANCES), edit=edit)
    def a_change_is_made_and_read_back(self, name, edit):
        process = self.processes[name]
        self.read(process)
        entries, version = self.stamped(process, edit)
        self.store([RingRecord(entry.key, name, encode(entry)) for entry in entries])
        self.read(process)
        for entry in entries:  # nobody came in between
            assert shows(process.replica.desc.entries.get(entry.key), entry, version)

    @rule(name=st.sampled_from(INSTANCES), edit=edit)
    def a_change_is_appended_from_a_view_that_may_be_stale(self, name, edit):
        process = self.processes[name]
        if not process.started or self.now_ms - process.read_at_ms > FORGOTTEN_MS:
            self.read(process)
        entries, _ = self.stamped(process, edit)
        if entries:
            self.under_way.append(tuple(RingRecord(entry.key, name, encode(entry)) for entry in entries))

    @rule(name=st.sampled_from(INSTANCES))
    def a_process_does_its_upkeep(self, name):
        process = self.processes[name]
        self.read(process)
        self.store(plan_upkeep(process.replica, name, self.now_ms + process.skew_ms, HEARTBEAT_TIMEOUT_MS))

    @rule(ms=st.sampled_from([0, 1, 1_000, 30_000]))
    def time_goes_on(self, ms):
        self.now_ms += ms

    @rule()
    def an_hour_goes_by(self):
        self.minutes_go_by()
        self.now_ms += HOUR_MS

    @rule(arrives=st.booleans())
    def a_day_and_a_half_goes_by(self, arrives):
        for records in self.under_way if arrives else ():
            self.store(records)
        self.under_way.clear()
        self.minutes_go_by()
        self.now_ms += SETTLED_MS + 12 * HOUR_MS + 1

    def minutes_go_by(self):
        """Long enough for some running process to see what is lacking, and for the store to forget old records."""
        for process in self.processes.values():
            if process.started or not any(p.started for p in self.processes.values()):
                self.read(process)
                if process.replica.lacking():
                    self.a_process_does_its_upkeep(process.name)
        self.compactable = len(self.log)

    # --- what holds

    @invariant()
    def who_has_read_everything_sees_every_change_and_no_ghost(self):
        for process in self.processes.values():
            if process.started and process.position == len(self.log):
                desc = process.replica.desc
                for key, entry in self.truth.items():
                    known = desc.entries.get(key)
                    assert known == entry or (known is None and entry.deleted), key

    def teardown(self):
        if not self.processes:
            return
        for records in self.under_way:
            self.store(records)
        self.under_way.clear()
        self._everyone_reads_and_repairs()
        self._late_reader_agrees()
        for _ in range(4):
            self.a_day_and_a_half_goes_by(arrives=False)
            self._everyone_reads_and_repairs()
        self._late_reader_agrees()
        late = Replica()
        late.apply([r for r in self.log if r is not None])
        assert {key: len(slots) for key, slots in late.slots.items()} == {
            key: 1 for key, entry in self.truth.items() if not entry.deleted
        }, "losing records and tombstones are nulled in the end"

    def _everyone_reads_and_repairs(self):
        for _ in range(2):
            for process in self.processes.values():
                self.a_process_does_its_upkeep(process.name)
        for process in self.processes.values():
            self.read(process)
            assert not process.replica.lacking()
        self.who_has_read_everything_sees_every_change_and_no_ghost()

    def _late_reader_agrees(self):
        self.minutes_go_by()
        self.the_store_is_compacted()
        late = Replica()
        late.apply([r for r in self.log if r is not None])
        for process in self.processes.values():
            assert process.replica.desc == late.desc
