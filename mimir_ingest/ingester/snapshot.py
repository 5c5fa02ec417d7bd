"""A partition's state on local disk, so that a restart need not read the log from the last checkpoint on.

A snapshot is as the heads lie in memory; it is replaced atomically (temporary file, fsync, rename, fsync of the folder)
and trusted only if the checkpoint of its last cut exists. Losing it costs time, nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mimir_ingest.ingester.checkpoint import (
    TOTALS_VERSION,
    VERSION,
    PartitionFacts,
    histogram_columns,
    restore_head,
    restore_histograms,
    tenant_facts,
    totals_columns,
    version_of,
)
from mimir_ingest.ingester.partition import PartitionState
from mimir_ingest.tsdb.columns_file import ColumnsFileCorrupt, decode_columns, encode_parts
from mimir_ingest.tsdb.head import Head
from mimir_ingest.tsdb.segment import Segment
from mimir_ingest.wire.record import RecordSettings

KIND = "snapshot"

_COLUMNS = ("refs", "ends", "min_ts", "max_ts", "data")


@dataclass(frozen=True, slots=True)
class CapturedState:
    """What a snapshot will hold; columns are not written to any more."""

    meta: dict
    columns: dict[str, np.ndarray]


def snapshot_path(folder: Path, partition: int) -> Path:
    """Return a partition's snapshot file."""
    return folder / f"partition-{partition}.snapshot"


def capture(state: PartitionState) -> CapturedState:
    """Take a settled state; called by the state's writer."""
    columns: dict[str, np.ndarray] = {}
    tenants = []
    for i, head in enumerate(state.heads.values()):
        head.seal(force=True)
        table = head.table.view()
        last_ts, last_value = head.series_state()
        count = table.series_count
        columns[f"{i}/label_offsets"] = table.series_starts[: count + 1]
        columns[f"{i}/labels"] = table.series_text[: int(table.series_starts[count])]
        columns[f"{i}/hashes"] = table.series_hashes[:count]
        columns[f"{i}/last_ts"], columns[f"{i}/last_value"] = last_ts, last_value
        columns.update(totals_columns(head.delta_totals(), f"{i}/"))
        for j, segment in enumerate(head.segments):
            for name in _COLUMNS:
                columns[f"{i}/{j}/{name}"] = getattr(segment, name)
            if segment.histograms is not None:
                columns.update(histogram_columns(segment.histograms, f"{i}/{j}/"))
        tenants.append(
            {
                **tenant_facts(head.tenant, head.max_ts, head.window_ms, head.held),
                "segments": [[s.sample_count, s.level] for s in head.segments],
            }
        )
    meta = {**state.facts.to_json(), "tenants": tenants, "applied_since_cut": state.applied_since_cut}
    return CapturedState(meta, columns)


def write_snapshot(folder: Path, captured: CapturedState) -> int:
    """Replace the partition's snapshot; returns its size (bytes). Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    path = snapshot_path(folder, captured.meta["partition"])
    temporary = path.with_suffix(".tmp")
    size = 0
    with temporary.open("wb") as file:
        for part in encode_parts(KIND, version_of(captured.columns), captured.meta, captured.columns):
            size += file.write(part)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return size


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot as read; heads are built only if it is chosen."""

    facts: PartitionFacts
    _meta: dict
    _columns: dict[str, np.ndarray]

    def restore(
        self, *, default_record_settings: Callable[[str], RecordSettings], seal_samples: int = 1 << 16
    ) -> PartitionState:
        """Return the state that was captured."""
        heads: dict[str, Head] = {}
        for i, facts in enumerate(self._meta["tenants"]):
            segments = tuple(
                Segment(
                    *(self._columns[f"{i}/{j}/{name}"] for name in _COLUMNS),
                    samples,
                    level,
                    restore_histograms(self._columns, f"{i}/{j}/"),
                )
                for j, (samples, level) in enumerate(facts["segments"])
            )
            heads[facts["tenant"]] = restore_head(facts, self._columns, f"{i}/", segments, seal_samples)
        return PartitionState.restore(
            self.facts,
            heads,
            default_record_settings=default_record_settings,
            applied_since_cut=self._meta["applied_since_cut"],
            seal_samples=seal_samples,
        )


def read_snapshot(folder: Path, partition: int) -> Snapshot | None:
    """Return the partition's snapshot, None without one. Raises ColumnsFileCorrupt."""
    try:
        data = snapshot_path(folder, partition).read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ColumnsFileCorrupt(f"snapshot of partition {partition} cannot be read: {error}") from error
    file = decode_columns(data, kind=KIND, versions=(VERSION, TOTALS_VERSION))
    return Snapshot(PartitionFacts.from_json(file.meta), file.meta, dict(file.columns))
