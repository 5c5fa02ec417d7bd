"""Blocks for tests: series from plain Python values, and the files of a block on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mimir_ingest.model.labels import LabelFrame
from mimir_ingest.model.samples import SeriesSamples
from mimir_ingest.tsdb.block_writer import BuiltBlock, build_block
from tests.support.histograms import Row, as_rows, filled

Series = tuple[Mapping[str, str], Sequence[tuple[int, float]]]


def make_samples(series: Sequence[Series]) -> SeriesSamples:
    """Return series in label order."""
    frame = LabelFrame.from_dicts([labels for labels, _ in series])
    order = frame.sort_order()
    chosen = [series[i][1] for i in order]
    offsets = np.concatenate([[0], np.cumsum([len(samples) for samples in chosen])]).astype(np.int64)
    flat = [sample for samples in chosen for sample in samples]
    return SeriesSamples(
        frame.take(order),
        offsets,
        np.array([t for t, _ in flat], np.int64),
        np.array([v for _, v in flat], np.float64),
    )


def to_python(samples: SeriesSamples) -> list[tuple[dict[str, str], list[tuple[int, int]]]]:
    """Return (labels, [(timestamp, value bits)]) of each series."""
    bits = samples.values.view(np.uint64).tolist()
    times = samples.timestamps.tolist()
    bounds = samples.offsets.tolist()
    return [
        (labels, list(zip(times[a:b], bits[a:b], strict=True)))
        for labels, a, b in zip(samples.labels.to_dicts(), bounds, bounds[1:], strict=False)
    ]


def both_kinds(samples: SeriesSamples) -> list[tuple[dict[str, str], dict[int, int | Row]]]:
    """Return (labels, {timestamp: value bits, or the native histogram}) of each series.

    Histograms are without hints and empty buckets.
    """
    series = [(labels, dict(points)) for labels, points in to_python(samples)]
    if samples.histograms is not None:
        rows = [filled(row)._replace(reset_hint=0) for row in as_rows(samples.histograms.values)]
        times, bounds = samples.histograms.timestamps.tolist(), samples.histograms.offsets.tolist()
        for (_, points), a, b in zip(series, bounds, bounds[1:], strict=False):
            assert times[a:b] == sorted(set(times[a:b]))
            assert not points.keys() & set(times[a:b])
            points.update(zip(times[a:b], rows[a:b], strict=True))
    return series


def build(samples: SeriesSamples, *, tenant: str = "team-a", cut_offset: int = 42, **options: int) -> BuiltBlock:
    """Build a block of partition 3."""
    return build_block(
        samples, tenant=tenant, partition=3, topic_id="topic-x", start_offset=7, cut_offset=cut_offset, **options
    )


def write_files(folder: Path, built: BuiltBlock) -> Path:
    """Write a block's files below `folder`; return its own folder."""
    for path, data in built.files.items():
        file = folder / built.ulid / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    return folder / built.ulid


def read_files(folder: Path) -> dict[str, bytes]:
    """Return the files of a block's folder by relative path."""
    return {str(f.relative_to(folder)): f.read_bytes() for f in sorted(folder.rglob("*")) if f.is_file()}


def sample_series(count: int = 40, length: int = 300) -> list[Series]:
    """Series with shared, rare and absent labels, and values that are hard to keep."""
    special = [float("nan"), float("inf"), -0.0, 1e-300, 12345678.25]
    result = []
    for i in range(count):
        labels = {"__name__": f"metric_{i % 4}", "job": f"job-{i % 3}", "instance": f"host-{i:03d}"}
        if i % 5 == 0:
            labels["zone"] = "ü" if i % 2 else "eu"
        if i % 7 == 0:
            del labels["job"]
        start = 1_700_000_000_000 + 17 * i
        step = 15_000 if i % 2 else 60_000
        values = [special[(i + j) % 5] if j % 29 == 0 else float(j * i % 97) for j in range(length - i % 3)]
        result.append((labels, [(start + j * step + (j % 11 == 0), v) for j, v in enumerate(values)]))
    return result
