"""The checkpoint of a cut: all that decides a partition's further content, in bytes that the log alone decides.

Series stand in label order, samples as XOR chunks of 120, so that nothing of the head's own layout shows. Metric
metadata is left out, for it decides nothing. Layout: docs/format/checkpoint.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from mimir_ingest.ingester.cut import BlockRef, CutRequest, CutSummary
from mimir_ingest.ingester.settings import PartitionSettings
from mimir_ingest.kernels.head import NO_SAMPLE
from mimir_ingest.kernels.xor_chunk import decode_xor, encode_xor, explain_status, max_encoded_size
from mimir_ingest.model.histograms import HistogramSamples
from mimir_ingest.model.series_chunks import plan_chunks
from mimir_ingest.tsdb.columns_file import ColumnsFileCorrupt, decode_columns, decode_meta, encode_columns
from mimir_ingest.tsdb.delta_totals import TotalsOfSeries
from mimir_ingest.tsdb.frozen_head import FrozenHead, Held
from mimir_ingest.tsdb.head import Head
from mimir_ingest.tsdb.histogram_segment import SEGMENT_COLUMNS, HistogramSegment, read_histograms
from mimir_ingest.tsdb.histogram_segment import build_segment as build_histogram_segment
from mimir_ingest.tsdb.segment import MAX_MS, MIN_MS, Segment, Staged, build_segment, read_samples

KIND = "checkpoint"
VERSION, TOTALS_VERSION = 2, 3
"""Of checkpoints and snapshots: without and with totals of deltas, which an earlier program would lose."""
_CHUNK_SAMPLES = 120


@dataclass(frozen=True, slots=True)
class PartitionFacts:
    """A partition's state besides its heads; the part of a checkpoint or snapshot that is JSON."""

    topic_id: str
    partition: int
    next_offset: int
    """First offset not contained; a checkpoint's cut offset."""
    record_time_ms: int
    boundary_ms: int
    settings: PartitionSettings
    cuts: tuple[CutSummary, ...]
    """Recent cuts, oldest first; a checkpoint's own is the last."""

    def to_json(self) -> dict:
        """Return JSON values."""
        cuts = [
            {
                "cut_offset": cut.cut_offset,
                "record_time_ms": cut.record_time_ms,
                "blocks": [[b.tenant, b.ulid, b.min_time_ms, b.max_time_ms] for b in cut.blocks],
            }
            for cut in self.cuts
        ]
        return {**asdict(self), "settings": asdict(self.settings), "cuts": cuts}

    @classmethod
    def from_json(cls, meta: Mapping) -> PartitionFacts:
        """Read `to_json`."""
        cuts = tuple(
            CutSummary(c["cut_offset"], c["record_time_ms"], tuple(BlockRef(*b) for b in c["blocks"]))
            for c in meta["cuts"]
        )
        return cls(
            meta["topic_id"],
            meta["partition"],
            meta["next_offset"],
            meta["record_time_ms"],
            meta["boundary_ms"],
            PartitionSettings(**meta["settings"]),
            cuts,
        )


def tenant_facts(tenant: str, max_ts: int, window_ms: int, held: Mapping[int, Held]) -> dict:
    """Return a head's facts as JSON values."""
    return {
        "tenant": tenant,
        "max_ts": None if max_ts == NO_SAMPLE else max_ts,
        "window_ms": window_ms,
        "held": [[number, *held[number]] for number in sorted(held)],
    }


def restore_head(
    facts: Mapping, columns: Mapping[str, np.ndarray], prefix: str, segments: tuple[Segment, ...], seal_samples: int
) -> Head:
    """Build a head from its facts and the columns labels, label_offsets, hashes, last_ts, last_value, delta_…."""
    return Head.restore(
        facts["tenant"],
        tuple(columns[prefix + name] for name in ("labels", "label_offsets", "hashes")),
        columns[prefix + "last_ts"],
        columns[prefix + "last_value"],
        max_ts=NO_SAMPLE if facts["max_ts"] is None else facts["max_ts"],
        window_ms=facts["window_ms"],
        held={number: Held(samples, first) for number, samples, first in facts["held"]},
        segments=segments,
        totals=_restore_totals(columns, prefix),
        seal_samples=seal_samples,
    )


def encode_checkpoint(request: CutRequest, cuts: tuple[CutSummary, ...], stays: Sequence[Segment]) -> bytes:
    """Return a cut's checkpoint; `stays[i]` holds the samples that stayed of `request.heads[i]`."""
    facts = PartitionFacts(
        request.topic_id,
        request.partition,
        request.cut_offset,
        request.record_time_ms,
        request.boundary_ms,
        request.next_settings,
        cuts,
    )
    columns: dict[str, np.ndarray] = {}
    for i, (head, stayed) in enumerate(zip(request.heads, stays, strict=True)):
        for name, column in _head_columns(head, stayed).items():
            columns[f"{i}/{name}"] = column
    tenants = [tenant_facts(h.tenant, h.max_ts, h.window_ms, h.held) for h in request.heads]
    return encode_columns(KIND, version_of(columns), {**facts.to_json(), "tenants": tenants}, columns)


def _head_columns(head: FrozenHead, stayed: Segment) -> dict[str, np.ndarray]:
    order = head.table.frame(head.live).sort_order()
    refs = head.live[order]
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    labels, label_offsets, hashes = head.table.label_bytes(refs)
    offsets, ts, values = read_samples(
        [stayed], Staged.empty(), head.live, head.table.series_count, MIN_MS, MAX_MS, rank
    )
    histograms = {}
    if stayed.histograms is not None:
        kept = read_histograms([stayed.histograms], (), head.live, MIN_MS, MAX_MS, rank)
        if kept is not None:
            filled = np.flatnonzero(np.diff(kept.offsets))
            histograms = histogram_columns(build_histogram_segment(filled.astype(np.int32), kept.take(filled)), "")
    _, starts = plan_chunks(offsets, _CHUNK_SAMPLES)
    ends = np.empty(len(starts) - 1, np.int64)
    out = np.empty(max_encoded_size(np.diff(starts)), np.uint8)
    size = encode_xor(ts, values, starts, out, ends)
    return {
        "labels": labels,
        "label_offsets": label_offsets,
        "hashes": hashes,
        "last_ts": head.last_ts[order],
        "last_value": head.last_value[order],
        "sample_offsets": offsets,
        "chunk_ends": ends,
        "chunks": out[:size],
        **histograms,
        **totals_columns(head.totals.placed(rank), ""),
    }


def version_of(columns: Mapping[str, np.ndarray]) -> int:
    """Return the version of a checkpoint or snapshot with these sections."""
    return TOTALS_VERSION if any("/delta_" in name for name in columns) else VERSION


def totals_columns(totals: TotalsOfSeries, prefix: str) -> dict[str, np.ndarray]:
    """Return what deltas come to as sections of a columns file; none without any."""
    columns = {f"{prefix}delta_totals": totals.floats} if len(totals.floats) else {}
    if len(totals.places):
        one_each = np.arange(len(totals.places) + 1)
        samples = HistogramSamples(one_each, np.zeros(len(totals.places), np.int64), totals.histograms)
        segment = build_histogram_segment(totals.places.astype(np.int32), samples)
        columns |= histogram_columns(segment, f"{prefix}delta_")
    return columns


def _restore_totals(columns: Mapping[str, np.ndarray], prefix: str) -> TotalsOfSeries:
    """Read `totals_columns`."""
    floats = columns.get(f"{prefix}delta_totals", np.empty(0, np.float64))
    segment = restore_histograms(columns, f"{prefix}delta_")
    if segment is None:
        return TotalsOfSeries(floats)
    found = read_histograms([segment], (), segment.refs, MIN_MS, MAX_MS)
    if found is None:
        raise ColumnsFileCorrupt(f"sections {prefix}delta_histogram_… hold no totals")
    return TotalsOfSeries(floats, segment.refs.astype(np.int64), found.values.stored())


def histogram_columns(segment: HistogramSegment, prefix: str) -> dict[str, np.ndarray]:
    """Return a segment's histograms as sections of a columns file."""
    return {f"{prefix}histogram_{name}": getattr(segment, name) for name in SEGMENT_COLUMNS}


def restore_histograms(columns: Mapping[str, np.ndarray], prefix: str) -> HistogramSegment | None:
    """Read `histogram_columns`; None where there are none."""
    if f"{prefix}histogram_refs" not in columns:
        return None
    return HistogramSegment(*(columns[f"{prefix}histogram_{name}"] for name in SEGMENT_COLUMNS))


def decode_facts(data: bytes) -> PartitionFacts:
    """Return a checkpoint's facts alone. Raises ColumnsFileCorrupt."""
    return PartitionFacts.from_json(decode_columns(data, kind=KIND, versions=(VERSION, TOTALS_VERSION)).meta)


def decode_front(front: bytes) -> PartitionFacts:
    """Return a checkpoint's facts from its first bytes (`columns_file.header_size`). Raises ColumnsFileCorrupt."""
    return PartitionFacts.from_json(decode_meta(front, kind=KIND, versions=(VERSION, TOTALS_VERSION)))


def decode_held(data: bytes) -> int:
    """Return how many samples a checkpoint holds: accepted before its cut, in no block. Raises ColumnsFileCorrupt."""
    tenants = decode_columns(data, kind=KIND, versions=(VERSION, TOTALS_VERSION)).meta["tenants"]
    return sum(samples for facts in tenants for _, samples, _ in facts["held"])


def decode_checkpoint(data: bytes, *, seal_samples: int = 1 << 16) -> tuple[PartitionFacts, dict[str, Head]]:
    """Return the state that a checkpoint holds: facts, and a head a tenant. Raises ColumnsFileCorrupt."""
    file = decode_columns(data, kind=KIND, versions=(VERSION, TOTALS_VERSION))
    heads: dict[str, Head] = {}
    for i, facts in enumerate(file.meta["tenants"]):
        prefix = f"{i}/"
        segment = _stayed_segment(file.columns, prefix)
        segments = (segment,) if segment.sample_count else ()
        heads[facts["tenant"]] = restore_head(facts, file.columns, prefix, segments, seal_samples)
    return PartitionFacts.from_json(file.meta), heads


def _stayed_segment(columns: Mapping[str, np.ndarray], prefix: str) -> Segment:
    offsets = columns[prefix + "sample_offsets"]
    _, starts = plan_chunks(offsets, _CHUNK_SAMPLES)
    ends = columns[prefix + "chunk_ends"]
    begins = np.concatenate([np.zeros(1, np.int64), ends[:-1]]) if len(ends) else ends
    ts, values = np.empty(int(offsets[-1]), np.int64), np.empty(int(offsets[-1]), np.float64)
    status = decode_xor(columns[prefix + "chunks"], begins, ends, starts, ts, values)
    if status < 0:
        raise ColumnsFileCorrupt(f"section {prefix}chunks: chunk {explain_status(status)}")
    filled = np.flatnonzero(np.diff(offsets))
    floats = build_segment(filled.astype(np.int32), np.append(offsets[filled], offsets[-1]), ts, values, level=1)
    return floats.with_histograms(restore_histograms(columns, prefix))
