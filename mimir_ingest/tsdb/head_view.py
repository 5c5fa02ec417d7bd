"""A head as readers see it: captured under the head's lock, then read from any thread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mimir_ingest.model.labels import LabelFrame
from mimir_ingest.model.matchers import Matcher
from mimir_ingest.model.samples import SampleBudget, SeriesSamples
from mimir_ingest.tsdb.segment import Segment, Staged, read_series
from mimir_ingest.tsdb.series_table import TableView


@dataclass(frozen=True, slots=True)
class HeadView:
    """A head as it stood at one moment. Safe from any thread."""

    parts: tuple[tuple[TableView, tuple[Segment, ...], Staged, int], ...]
    """Oldest first: (table, segments, staged samples, time before which the part serves)."""

    def select(
        self, matchers: Sequence[Matcher], start_ms: int, end_ms: int, budget: SampleBudget | None = None
    ) -> list[SeriesSamples]:
        """Return the samples of matching series in `[start_ms, end_ms)`, in order of precedence; none empty.

        Raises QueryError if they are more than the budget has.
        """
        answers = []
        for table, segments, staged, before_ms in self.parts:
            end = min(end_ms, before_ms)
            touched = _overlapping(segments, start_ms, end)
            if not touched and not len(staged.refs) and not staged.histograms:
                continue
            refs = table.select(matchers)
            if not len(refs):
                continue
            found = read_series(touched, staged, refs, table.series_count, start_ms, end, budget=budget)
            filled = found.filled
            if len(filled):
                answers.append(found.with_hints().of(filled, table.frame(refs[filled])))
        return answers

    def label_frames(self, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> list[LabelFrame]:
        """Return the label sets of matching series with a sample in `[start_ms, end_ms)`, a frame a part."""
        frames = []
        for table, segments, staged, before_ms in self.parts:
            end = min(end_ms, before_ms)
            present = np.zeros(table.series_count, bool)
            for chunks in (*segments, *(s.histograms for s in segments if s.histograms is not None)):
                inside = (chunks.min_ts >= start_ms) & (chunks.max_ts < end)
                present[chunks.refs[inside]] = True
            for part in (staged, *staged.histograms):
                inside = (part.timestamps >= start_ms) & (part.timestamps < end)
                present[part.refs[inside]] = True
            refs = table.select(matchers)
            unsure = refs[~present[refs]]
            if len(unsure):
                touched = _overlapping(segments, start_ms, end)
                found = read_series(touched, Staged.empty(), unsure, table.series_count, start_ms, end)
                present[unsure[found.filled]] = True
            refs = refs[present[refs]]
            if len(refs):
                frames.append(table.frame(refs))
        return frames


def _overlapping(segments: Sequence[Segment], start_ms: int, end_ms: int) -> list[Segment]:
    return [s for s in segments if s.overlaps(start_ms, end_ms)]
