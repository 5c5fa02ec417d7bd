"""A partition as a state machine: records in, cut points out. No I/O, no clock, no task.

Everything that decides content is a function of the records and their offsets: record time (the running maximum of
the log's stamps), the next boundary, each tenant's head, the partition's settings. A record is applied wholly, together
with its offset, or not at all. Configuration enters at one place only, the settings of records that carry none
(Mimir's).

Cut points, in terms of `cut_offset`, the first offset that does not contribute:

    time      the record whose record time is at or past the boundary and the grace; cut before it, of what is older
              than the newest boundary so passed; the next record instead, where a cut ended just there
    flush     a control record; cut after it, of everything (of some tenants); nothing when no data came since a cut
    settings  a control record; cut after it, of everything, under the settings that end there
    size      the record with which `cut_max_samples` are held; cut after it, of everything
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from mimir_ingest.bucket.layout import CLUSTER_FOLDER
from mimir_ingest.errors import InvariantViolated, RecordCorrupt, RecordVersionUnsupported
from mimir_ingest.ingester.checkpoint import PartitionFacts
from mimir_ingest.ingester.cut import CutRequest, CutSummary, ReleasedCuts
from mimir_ingest.ingester.settings import PartitionSettings
from mimir_ingest.kernels.head import ACCEPTED, OUTCOME_COLUMNS, REJECTED
from mimir_ingest.log.contract import Record
from mimir_ingest.model.batch import SOURCE_OTLP, SOURCE_RULE, MetadataColumns, WriteBatch
from mimir_ingest.model.matchers import Matcher
from mimir_ingest.tsdb.head import Head
from mimir_ingest.tsdb.head_view import HeadView
from mimir_ingest.tsdb.segment import MAX_MS, MIN_MS, Segment
from mimir_ingest.tsdb.series_limits import SeriesLimits
from mimir_ingest.wire.record import VERSION_CONTROL, RecordSettings, decode, decode_control

_TENANT = re.compile(rb"[A-Za-z0-9!_.*'()\-]{1,150}")
"""A tenant id (spec: tenant ids); the record's key names folders of the bucket, so nothing else may pass."""

_RESERVED = (b".", b"..", CLUSTER_FOLDER.encode())

NO_RECORD = -1
"""Record time before the first record."""


def _tenant(key: bytes) -> str:
    if not _TENANT.fullmatch(key) or key in _RESERVED:
        raise RecordCorrupt(f"the record's key {key[:200]!r} is no tenant id")
    return key.decode()


@dataclass(frozen=True, slots=True)
class ReceivedExemplars:
    """A record's exemplars."""

    tenant: str
    batch: WriteBatch
    known: np.ndarray
    """bool[series]: the series exists."""
    window_ms: int
    """Out-of-order window."""


@dataclass(slots=True)
class Applied:
    """What a call of `apply` has done; for metrics and metadata, nothing in it decides content."""

    consumed: int = 0
    """Records that need not be given again."""
    cut: CutRequest | None = None
    """A cut point was reached: carry the cut out, then call `finish_cut`."""
    blocked: bool = False
    """A cut point was reached while a cut is in flight: no more records are applied until that one is finished."""
    outcomes: dict[str, np.ndarray] = field(default_factory=dict)
    """Tenant → samples by outcome (kernels/head.py)."""
    rule_samples: dict[str, int] = field(default_factory=dict)
    """Tenant → accepted samples that recording rules have sent."""
    rejected: list[tuple[str, WriteBatch, np.ndarray]] = field(default_factory=list)
    """(Tenant, record's batch, samples by outcome) of records of which samples were rejected."""
    metadata: list[tuple[str, MetadataColumns]] = field(default_factory=list)
    exemplars: list[ReceivedExemplars] = field(default_factory=list)
    corrupt: list[tuple[int, RecordCorrupt]] = field(default_factory=list)
    """Records passed over because they do not decode: (offset, why)."""
    missed: int = 0
    """Offsets that the log left out."""

    @property
    def accepted(self) -> int:
        """Samples accepted."""
        return sum(int(counts[ACCEPTED]) for counts in self.outcomes.values())


@dataclass(frozen=True, slots=True)
class _CutPoint:
    """A cut point that waits for the cut before it."""

    before_ms: int
    tenants: frozenset[str] | None
    """None: all."""
    settings: PartitionSettings
    cut_offset: int


class PartitionState:
    """One partition's heads and position. One writer (`apply`, `finish_cut`, `maintain`, `release`); any readers."""

    def __init__(
        self,
        topic_id: str,
        partition: int,
        *,
        settings: PartitionSettings,
        default_record_settings: Callable[[str], RecordSettings],
        start_offset: int = 0,
        seal_samples: int = 1 << 16,
    ) -> None:
        self.topic_id = topic_id
        self.partition = partition
        self.settings = settings
        self.next_offset = start_offset
        """First offset not applied."""
        self.record_time_ms = NO_RECORD
        self.boundary_ms = 0
        self.heads: dict[str, Head] = {}
        self.cuts: tuple[CutSummary, ...] = ()
        """Recent cuts whose checkpoint exists, oldest first."""
        self.released = ReleasedCuts(())
        """Those among them whose samples are no longer served from here."""
        self.in_flight: CutRequest | None = None
        self.maintenance_due = False
        """Whether `maintain` would do something."""
        self._default_record_settings = default_record_settings
        self._seal_samples = seal_samples
        self._applied_since_cut = False
        self._held_count = 0
        self._cut_point = -1
        self._next_cut: _CutPoint | None = None

    @classmethod
    def restore(
        cls,
        facts: PartitionFacts,
        heads: dict[str, Head],
        *,
        default_record_settings: Callable[[str], RecordSettings],
        applied_since_cut: bool = False,
        seal_samples: int = 1 << 16,
    ) -> PartitionState:
        """Continue from a checkpoint or snapshot."""
        state = cls(
            facts.topic_id,
            facts.partition,
            settings=facts.settings,
            default_record_settings=default_record_settings,
            start_offset=facts.next_offset,
            seal_samples=seal_samples,
        )
        state.record_time_ms, state.boundary_ms = facts.record_time_ms, facts.boundary_ms
        state.heads, state.cuts, state.released = heads, facts.cuts, ReleasedCuts(facts.cuts)
        state._applied_since_cut = applied_since_cut
        state._cut_point = facts.cuts[-1].cut_offset if facts.cuts else -1
        state._held_count = sum(head.held_count for head in heads.values())
        return state

    @property
    def facts(self) -> PartitionFacts:
        """The state besides the heads."""
        return PartitionFacts(
            self.topic_id,
            self.partition,
            self.next_offset,
            self.record_time_ms,
            self.boundary_ms,
            self.settings,
            self.cuts,
        )

    @property
    def applied_since_cut(self) -> bool:
        """Whether a record of data came after the last cut point."""
        return self._applied_since_cut

    @property
    def held_count(self) -> int:
        """Samples accepted and not cut."""
        return self._held_count

    @property
    def retained_count(self) -> int:
        """Samples that were shipped and are still served from here (with those that stayed beside them)."""
        return sum(s.sample_count for head in list(self.heads.values()) for r in head.retained for s in r.segments)

    @property
    def settled(self) -> bool:
        """Whether no cut is in flight or waiting, so that the state may be stored."""
        return self.in_flight is None and self._next_cut is None

    @property
    def pending_cut_offset(self) -> int | None:
        """Cut offset of a cut point that waits for the cut in flight."""
        return None if self._next_cut is None else self._next_cut.cut_offset

    @property
    def last_cut_offset(self) -> int | None:
        """Cut offset of the newest cut whose checkpoint exists."""
        return self.cuts[-1].cut_offset if self.cuts else None

    def apply(self, records: Sequence[Record]) -> Applied:
        """Apply records in offset order, up to the first cut point.

        Raises
        ------
        RecordVersionUnsupported
            The next record is of a version this program does not know; all before it are applied.
        """
        applied = Applied()
        if self._next_cut is not None:
            self._begin_cut(applied)
            return applied
        for record in records:
            if record.offset >= self.next_offset:
                try:
                    self._apply_record(record, applied)
                except RecordVersionUnsupported:
                    if applied.consumed:
                        return applied
                    raise
            if self._next_cut is not None:
                # A cut before the record leaves it unread; one after it has passed it.
                applied.consumed += record.offset < self.next_offset
                self._begin_cut(applied)
                return applied
            applied.consumed += 1
        return applied

    def _apply_record(self, record: Record, applied: Applied) -> None:
        applied.missed += record.offset - self.next_offset
        self.next_offset = record.offset
        if self._pass_boundary(record):
            self._next_cut = _CutPoint(self._last_boundary(), None, self.settings, record.offset)
            return
        try:
            if record.version == VERSION_CONTROL:
                self._apply_control(record)
            else:
                self._apply_samples(record, applied)
        except RecordCorrupt as error:
            applied.corrupt.append((record.offset, error))
        self.next_offset = record.offset + 1
        if self._next_cut is None and self._held_count >= self.settings.cut_max_samples:
            self._next_cut = _CutPoint(MAX_MS, None, self.settings, self.next_offset)

    def _pass_boundary(self, record: Record) -> bool:
        """Advance record time and boundary. Returns whether there is something to cut for it."""
        first = self.record_time_ms == NO_RECORD
        self.record_time_ms = max(self.record_time_ms, record.timestamp_ms)
        due = self._last_boundary()
        if first:
            self.boundary_ms = due + self.settings.range_ms
            return False
        if due < self.boundary_ms or record.offset == self._cut_point:
            return False
        self.boundary_ms = due + self.settings.range_ms
        return self._applied_since_cut or self._held_count > 0

    def _last_boundary(self) -> int:
        """Return the newest range's end (ms) that is due at the present record time."""
        range_ms = self.settings.range_ms
        return (self.record_time_ms - self.settings.grace_ms) // range_ms * range_ms

    def _apply_samples(self, record: Record, applied: Applied) -> None:
        tenant = _tenant(record.key)
        decoded = decode(record.version, record.value, check_hashes=False)
        settings = decoded.settings or self._default_record_settings(tenant)
        batch = decoded.batch
        if not batch.sample_count and not batch.histogram_count:
            batch.check_hashes()
            self._note_metadata(tenant, batch, applied)
            self._note_exemplars(tenant, batch, settings.out_of_order_window_ms, applied)
            return
        head = self.heads.get(tenant)
        if head is None:
            head = self.heads[tenant] = Head(tenant, seal_samples=self._seal_samples)
        head.activity.begin(self.record_time_ms, otlp=batch.source == SOURCE_OTLP)
        counts = head.append(
            batch,
            offset=record.offset,
            newest_ms=min(self.record_time_ms + settings.creation_grace_ms, MAX_MS - 1),
            range_ms=self.settings.range_ms,
            limits=SeriesLimits(settings.max_series, settings.max_series_per_metric, settings.unlimited_metrics),
            window_ms=settings.out_of_order_window_ms,
        )
        self.maintenance_due |= head.seal_due
        self._note_metadata(tenant, batch, applied)
        self._note_exemplars(tenant, batch, settings.out_of_order_window_ms, applied)
        self._applied_since_cut = True
        self._held_count += int(counts[ACCEPTED])
        known = applied.outcomes.setdefault(tenant, np.zeros(OUTCOME_COLUMNS, np.int64))
        known += counts
        if batch.source == SOURCE_RULE:
            applied.rule_samples[tenant] = applied.rule_samples.get(tenant, 0) + int(counts[ACCEPTED])
        if counts[REJECTED].any():
            applied.rejected.append((tenant, batch, counts))

    def _note_metadata(self, tenant: str, batch: WriteBatch, applied: Applied) -> None:
        """Hand on a record's metadata."""
        if len(batch.metadata):
            applied.metadata.append((tenant, batch.metadata))

    def _note_exemplars(self, tenant: str, batch: WriteBatch, window_ms: int, applied: Applied) -> None:
        """Hand on a record's exemplars, after its samples: which of its series exist is known now."""
        if batch.exemplar_count:
            known = np.full(batch.series_count, tenant in self.heads)
            if tenant in self.heads:
                known[self.heads[tenant].new_rows(batch)] = False
            applied.exemplars.append(ReceivedExemplars(tenant, batch, known, window_ms))

    def _apply_control(self, record: Record) -> None:
        control = decode_control(record.value)
        after = record.offset + 1
        if control.settings is not None:
            changed = self.settings.changed(control.settings)
            self._next_cut = _CutPoint(MAX_MS, None, self.settings, after)
            self.settings = changed
            self.boundary_ms = self._last_boundary() + changed.range_ms
        elif self._applied_since_cut or self._held_count:
            tenants = None if control.tenants is None else frozenset(control.tenants)
            self._next_cut = _CutPoint(MAX_MS, tenants, self.settings, after)

    def _begin_cut(self, applied: Applied) -> None:
        """Freeze every head at the cut point that waits, unless a cut is in flight."""
        point = self._next_cut
        if self.in_flight is not None or point is None:
            applied.blocked = True
            return
        self._forget_idle(self.record_time_ms - point.settings.idle_ms)
        heads = tuple(
            self.heads[tenant].freeze(
                point.before_ms if point.tenants is None or tenant in point.tenants else MIN_MS,
                point.settings.range_ms,
            )
            for tenant in sorted(self.heads)
            if not self.heads[tenant].blank
        )
        self._next_cut, self._applied_since_cut, self._cut_point = None, False, point.cut_offset
        self._held_count = sum(head.held_count for head in self.heads.values())
        applied.cut = self.in_flight = CutRequest(
            topic_id=self.topic_id,
            partition=self.partition,
            cut_offset=point.cut_offset,
            record_time_ms=self.record_time_ms,
            boundary_ms=self.boundary_ms,
            settings=point.settings,
            next_settings=self.settings,
            heads=heads,
            recent=self.cuts,
        )

    def _forget_idle(self, before_ms: int) -> None:
        """Forget tenants that hold nothing and whose newest sample is older; a blank head stays for its readers."""
        for tenant, head in list(self.heads.items()):
            if not head.held and not head.blank and head.max_ts < before_ms:
                blank = Head(tenant, seal_samples=self._seal_samples)
                blank.retained, head = head.retained, blank
                self.heads[tenant] = head
            if head.blank and not head.retained:
                del self.heads[tenant]

    def finish_cut(self, cuts: tuple[CutSummary, ...], stays: Sequence[Segment]) -> None:
        """Note that the cut in flight has its checkpoint.

        Parameters
        ----------
        cuts
            The cuts that the checkpoint lists.
        stays
            The samples that stayed, a segment a head of the request.
        """
        request, self.in_flight = self.in_flight, None
        if request is None or cuts[-1].cut_offset != request.cut_offset:
            raise InvariantViolated(f"partition {self.partition}: no cut in flight ends with {cuts[-1:]}")
        for head, stayed in zip(request.heads, stays, strict=True):
            self.heads[head.tenant].thaw(stayed, head.before_ms, request.cut_offset)
        self.cuts = cuts

    def maintain(self, *, force_seal: bool = False) -> None:
        """Seal and merge what is due. Content does not change."""
        self.maintenance_due = False
        for head in self.heads.values():
            head.seal(force=force_seal)
            while head.merge():
                pass

    def release(self, cut_offset: int) -> None:
        """Serve no longer what the cuts up to `cut_offset` have shipped."""
        # The list first: a reader takes samples, then the list, and must not miss both.
        self.released = ReleasedCuts([cut for cut in self.cuts if cut.cut_offset <= cut_offset])
        for head in list(self.heads.values()):
            head.release(cut_offset)

    def view(self, tenant: str, matchers: Sequence[Matcher]) -> HeadView:
        """Return a tenant's head as readers of these matchers need it. Any thread."""
        head = self.heads.get(tenant)
        return HeadView(()) if head is None else head.view(matchers)

    def view_now(self, tenant: str, matchers: Sequence[Matcher]) -> HeadView | None:
        """Return the same without waiting for a writer; None if there is one."""
        head = self.heads.get(tenant)
        return None if head is not None and head.lock.locked() else self.view(tenant, matchers)
