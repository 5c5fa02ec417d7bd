"""Logs of one partition as lists of records, and owners that read them at any pace and crash at any point."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from mimir_ingest.bucket.discover import BlockCatalog
from mimir_ingest.bucket.store import Bucket
from mimir_ingest.ingester import snapshot
from mimir_ingest.ingester.partition import PartitionState
from mimir_ingest.ingester.recovery import ResumeFrom, plan_resume
from mimir_ingest.ingester.settings import PartitionSettings
from mimir_ingest.ingester.shipping import CutShipper
from mimir_ingest.log.contract import Record
from mimir_ingest.wire.record import (
    VERSION_COLUMNAR,
    VERSION_CONTROL,
    RecordSettings,
    encode_columnar,
    encode_flush,
    encode_settings,
)
from tests.support.batches import write_batch
from tests.support.histograms import Row

TOPIC = "topic-x"
SETTINGS = PartitionSettings(range_ms=60_000, grace_ms=30_000, cut_max_samples=400, idle_ms=200_000)
NO_LIMITS = RecordSettings(max_series=0, out_of_order_window_ms=0, creation_grace_ms=600_000)
START_MS = 1_700_000_040_000


def data_record(offset: int, tenant: str, rows, *, at_ms: int, settings: RecordSettings = NO_LIMITS) -> Record:
    """Return a columnar record of (labels, samples) rows."""
    value = encode_columnar(write_batch(rows), settings)
    return Record(3, offset, at_ms, tenant.encode(), value, VERSION_COLUMNAR)


def flush_record(offset: int, tenants: list[str] | None = None, *, at_ms: int) -> Record:
    """Return a control record that cuts everything."""
    return Record(3, offset, at_ms, b"", encode_flush(tenants), VERSION_CONTROL)


def settings_record(offset: int, values: dict[str, int], *, at_ms: int) -> Record:
    """Return a control record that changes settings."""
    return Record(3, offset, at_ms, b"", encode_settings(values), VERSION_CONTROL)


def random_histogram(rng: random.Random) -> Row:
    """Return a histogram: counters and gauges, layouts that change, markers, and now and then an impossible one."""
    if rng.random() < 0.1:
        return Row(0, 0, False, 0.0, 0.0, 0.0, 0x7FF0000000000002, (), ())
    custom = (0.5, 2.0) if rng.random() < 0.2 else ()
    positive = tuple((i, float(rng.randrange(5))) for i in range(3) if rng.random() < 0.7)
    count = sum(c for _, c in positive) + (1.0 if rng.random() < 0.05 else 0.0)
    schema = -53 if custom else rng.choice([1, 1, 1, 3])
    return Row(schema, rng.choice([0, 0, 0, 1, 2, 3]), rng.random() < 0.2, 0.0, 0.0, count, 7, (), positive, custom)


def random_log(seed: int, length: int = 150) -> tuple[list[Record], list]:
    """Return records over some minutes, with repeats, late and early samples, stale markers and flushes.

    The second list says the same in plain Python: (offset, stamp, tenant, rows, settings), rows None for a flush.
    """
    rng = random.Random(seed)
    stale = float(np.array([0x7FF0000000000002], np.uint64).view(np.float64)[0])
    records: list[Record] = []
    plain = []
    at = START_MS
    offset = 0
    while len(records) < length:
        at += rng.choice([0, 500, 1000, 4000, 4000, -700])
        if rng.random() < 0.01:
            at += 400_000
        if rng.random() < 0.04:
            tenants = rng.choice([None, None, ["a"], ["b", "c"]])
            records.append(flush_record(offset, tenants, at_ms=at))
            plain.append((offset, at, None, tenants, None))
        elif records and rng.random() < 0.1:
            again = rng.choice(plain[-8:])
            if again[2] is None:
                continue
            records.append(data_record(offset, again[2], again[3], at_ms=at, settings=again[4]))
            plain.append((offset, at, *again[2:]))
        else:
            tenant = rng.choice("aaabc")
            window = 100_000 if tenant == "b" else 0
            settings = RecordSettings(rng.choice([0, 0, 9]), window, 10_000, rng.choice([0, 0, 3]), (b"p",))
            rows = []
            for _ in range(rng.randrange(8)):
                labels = {"__name__": rng.choice("mnop"), "i": str(rng.randrange(6))}
                late = rng.choice([0, 0, 0, 0, 3000, -20_000, 40_000, 90_000])
                native, delta, started = rng.random() < 0.4, rng.random() < 0.2, rng.random() < 0.3
                samples = [
                    (
                        at - late + 100 * j + rng.randrange(3),
                        random_histogram(rng) if native else rng.choice([1.0, 2.5, stale, float("nan")]),
                        at - late - rng.choice([1, 100, 2000]) if started else 0,
                    )
                    for j in range(rng.randrange(4))
                ]
                rows.append((labels, samples, delta))
            records.append(data_record(offset, tenant, rows, at_ms=at, settings=settings))
            plain.append((offset, at, tenant, rows, settings))
        offset += 1 if rng.random() < 0.95 else 3
    return records, plain


@dataclass
class Owner:
    """One process that owns the partition; what it keeps in memory is lost with `crash`."""

    bucket: Bucket
    folder: Path
    seal_samples: int = 1 << 16
    settings: PartitionSettings = SETTINGS
    state: PartitionState | None = None
    uploaded: int = 0
    cuts: list[int] = field(default_factory=list)
    most_held: int = 0

    def shipper(self) -> CutShipper:
        return CutShipper(self.bucket, BlockCatalog(self.bucket), TOPIC, 3)

    def start(self, log_start: int, log_end: int) -> PartitionState:
        """Recover as the consumer does."""
        stored = snapshot.read_snapshot(self.folder, 3)
        offsets = self.shipper().cut_offsets()
        plan = plan_resume(
            topic_id=TOPIC,
            partition=3,
            log_start_offset=log_start,
            log_end_offset=log_end,
            checkpoint_cut_offset=offsets[-1] if offsets else None,
            snapshot=stored.facts if stored else None,
            snapshot_cut_known=not stored
            or not stored.facts.cuts
            or any(o >= stored.facts.cuts[-1].cut_offset for o in offsets),
        )
        assert plan.lost is None
        if plan.source is ResumeFrom.SNAPSHOT and stored:
            self.state = stored.restore(default_record_settings=lambda _: NO_LIMITS, seal_samples=self.seal_samples)
        elif plan.source is ResumeFrom.CHECKPOINT:
            newest = self.shipper().newest()
            assert newest is not None
            self.state = PartitionState.restore(
                *newest, default_record_settings=lambda _: NO_LIMITS, seal_samples=self.seal_samples
            )
        else:
            self.state = PartitionState(
                TOPIC,
                3,
                settings=self.settings,
                default_record_settings=lambda _: NO_LIMITS,
                start_offset=log_start,
                seal_samples=self.seal_samples,
            )
        return self.state

    def consume(self, records: Sequence[Record], *, until: int | None = None, batch: int = 1 << 30) -> None:
        """Apply the records not yet applied (below an offset), `batch` at a time, shipping every cut."""
        state = self.state or self.start(0, records[-1].offset + 1)
        rest = [r for r in records if r.offset >= state.next_offset and (until is None or r.offset < until)]
        while rest:
            now = rest[:batch]
            applied = state.apply(now)
            rest = rest[applied.consumed :]
            self.most_held = max(self.most_held, state.held_count)
            if applied.cut is not None:
                self.cuts.append(applied.cut.cut_offset)
                shipped = self.shipper().ship(applied.cut)
                self.uploaded += shipped.uploaded
                state.finish_cut(shipped.cuts, shipped.stays)
                state.release(shipped.cuts[-1].cut_offset)
            state.maintain()
        if not state.settled:
            raise AssertionError("a cut is left over")

    def snapshot(self) -> None:
        assert self.state is not None
        snapshot.write_snapshot(self.folder, snapshot.capture(self.state))

    def crash(self) -> None:
        self.state = None


def files_of(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder."""
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}
