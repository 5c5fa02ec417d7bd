"""A head as readers see it: captured under the head's lock, then read from any thread."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mimir_ingest.model.frozen import frozen
from mimir_ingest.model.labels import LabelFrame
from mimir_ingest.model.matchers import Matcher
from mimir_ingest.model.samples import SampleBudget, SeriesSamples
from mimir_ingest.model.spans import Check
from mimir_ingest.tsdb.newest import holds_histograms, read_newest
from mimir_ingest.tsdb.segment import Segment, Staged, read_series
from mimir_ingest.tsdb.series_table import TableView
from mimir_ingest.tsdb.small_reads import FEW_SERIES
from mimir_ingest.tsdb.whole_ranges import as_read

_FEW_STAGED = 1_000_000
"""why: every read passes over all staged samples, 0.1 to 1 ns each."""


@frozen
class HeadView:
    """A head as it stood at one moment. Safe from any thread."""

    parts: tuple[tuple[TableView, tuple[Segment, ...], Staged, int], ...]
    """Oldest first: (table, segments, staged samples, time before which the part serves)."""

    def find_few(self, most: int) -> list[np.ndarray] | None:
        """Return the matching series of each part, if at most `most` and quick to find and to read, else None."""
        found: list[np.ndarray] = []
        for table, _, staged, _ in self.parts:
            if len(staged.refs) > _FEW_STAGED or staged.histograms:
                return None
            refs = table.find_few(most)
            if refs is None:
                return None
            found.append(refs)
        return found

    def select(
        self,
        matchers: Sequence[Matcher],
        start_ms: int,
        end_ms: int,
        budget: SampleBudget | None = None,
        *,
        found: Sequence[np.ndarray] | None = None,
        newest_only: bool = False,
    ) -> list[SeriesSamples]:
        """Return the samples of matching series in `[start_ms, end_ms)`, in order of precedence; none empty.

        `found` is what `find_few` said of these matchers. `newest_only`: of each series only the newest sample is
        wanted, and others may be left out. Raises QueryError if they are more than the budget has.
        """
        answers = []
        for i, (table, segments, staged, before_ms) in enumerate(self.parts):
            end = min(end_ms, before_ms)
            touched = _overlapping(segments, start_ms, end)
            if not touched and not len(staged.refs) and not staged.histograms:
                continue
            refs = table.select(matchers, None if budget is None else budget.check) if found is None else found[i]
            if not len(refs):
                continue
            source, times = (touched, staged, refs, table.series_count), (start_ms, end)
            if newest_only and len(refs) > FEW_SERIES and not holds_histograms(*source):
                read = read_newest(*source, *times, budget)
            else:
                read = read_series(*source, *times, budget=budget)
                read = as_read(read, segments, staged, refs, table.series_count, *times, before_ms)
            filled = read.filled
            if len(filled) == len(refs):
                answers.append(read.whole(table.frame_of(refs, filled)))
            elif len(filled):
                answers.append(read.of(filled, table.frame_of(refs, filled)))
        return answers

    def label_frames(
        self, matchers: Sequence[Matcher], start_ms: int, end_ms: int, check: Check | None = None
    ) -> list[LabelFrame]:
        """Return the label sets of matching series with a sample in `[start_ms, end_ms)`, a frame a part.

        `check` is called between parts of the work.
        """
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
            refs = table.select(matchers, check)
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
    return [s for s in segments if s.span[0] < end_ms and s.span[1] >= start_ms]
