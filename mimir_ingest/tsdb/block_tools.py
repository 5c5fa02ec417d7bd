"""Look into a block: what `mimir-ingest block inspect`, `verify` and `dump` print."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mimir_ingest.model.histograms import Histograms, HistogramSamples
from mimir_ingest.model.labels import go_quote
from mimir_ingest.model.matchers import Matcher
from mimir_ingest.model.numbers import format_general
from mimir_ingest.tsdb.block_meta import PartitionRange
from mimir_ingest.tsdb.block_reader import BlockReader

_TOP = 20


@dataclass(frozen=True, slots=True)
class BlockSummary:
    """What a block is about. `*_counts` are (what, how many), the most first."""

    ulid: str
    min_time_ms: int
    max_time_ms: int
    """Time after the last sample."""
    series_count: int
    sample_count: int
    chunk_count: int
    level: int
    sources: tuple[str, ...]
    partition_range: PartitionRange | None
    label_pair_count: int
    """Distinct (name, value) pairs."""
    postings_entry_count: int
    """Labels of all series together."""
    label_name_counts: list[tuple[str, int]]
    """Label names by distinct values."""
    metric_counts: list[tuple[str, int]]
    """Metric names by series."""
    index_bytes: int


def inspect(reader: BlockReader) -> BlockSummary:
    """Summarize a block from `meta.json` and its index. Raises `BlockCorrupt`."""
    index, meta = reader.index, reader.meta
    values = {name: len(index.label_values(name)) for name in index.label_names()}
    entries = 0
    metrics: list[tuple[str, int]] = []
    for name in values:
        offsets, refs = index.read_each(index.lists_of_name(name))
        entries += len(refs)
        if name == "__name__":
            metrics = list(zip(index.label_values(name), np.diff(offsets).tolist(), strict=True))
    return BlockSummary(
        ulid=meta.ulid,
        min_time_ms=meta.min_time_ms,
        max_time_ms=meta.max_time_ms,
        series_count=meta.series_count,
        sample_count=meta.sample_count,
        chunk_count=meta.chunk_count,
        level=meta.level,
        sources=meta.sources,
        partition_range=meta.partition_range,
        label_pair_count=sum(values.values()),
        postings_entry_count=entries,
        label_name_counts=_top(list(values.items())),
        metric_counts=_top(metrics),
        index_bytes=index.file_bytes,
    )


def _top(counts: list[tuple[str, int]]) -> list[tuple[str, int]]:
    return sorted(counts, key=lambda item: (-item[1], item[0]))[:_TOP]


def verify(reader: BlockReader) -> list[str]:
    """Read all of a block and test it; return what is wrong, one line each."""
    return reader.verify()


HistogramTexts = Callable[[Histograms, np.ndarray], list[str]]
"""From native histograms and rows of them (int64[k]) to their texts."""


def dump(
    reader: BlockReader,
    matchers: Sequence[Matcher] = (),
    start_ms: int = -(1 << 63),
    end_ms_incl: int = (1 << 63) - 1,
    *,
    histogram_texts: HistogramTexts,
) -> Iterator[str]:
    """Give the samples of a block as `promtool tsdb dump` prints them: `{labels} value timestamp`.

    Series come in label order, a few thousand at a time. Raises `BlockCorrupt`, `QueryError`.
    """
    samples = reader.select(matchers, start_ms, end_ms_incl)
    histograms = samples.histograms or HistogramSamples.empty(samples.series_count)
    for first in range(0, samples.series_count, 1000):
        last = min(first + 1000, samples.series_count)
        labels = samples.labels.take(np.arange(first, last)).to_dicts()
        rows = np.arange(histograms.offsets[first], histograms.offsets[last])
        texts = histogram_texts(histograms.values, rows) if len(rows) else []
        for series, pairs in zip(range(first, last), labels, strict=True):
            text = "{" + ", ".join(f"{name}={go_quote(value)}" for name, value in pairs.items()) + "}"
            own = slice(int(samples.offsets[series]), int(samples.offsets[series + 1]))
            points = [
                (time, format_general(value))
                for time, value in zip(samples.timestamps[own].tolist(), samples.values[own].tolist(), strict=True)
            ]
            own = slice(int(histograms.offsets[series]), int(histograms.offsets[series + 1]))
            points += (
                zip(histograms.timestamps[own].tolist(), texts[own.start - rows[0] :], strict=False) if texts else []
            )
            for time, value in sorted(points, key=lambda point: point[0]):
                yield f"{text} {value} {time}"
