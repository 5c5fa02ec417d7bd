"""Pieces of a few series against their plain twin."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimir_ingest.kernels.small_reads import (
    CHUNK_BYTES,
    INSIDE,
    NO_ROOM,
    PIECES,
    SAMPLES,
    place_of,
    read_chunks,
    read_segments,
    read_staged,
)
from mimir_ingest.kernels.xor_chunk import explain_status
from mimir_ingest.tsdb.segment import build_segment
from tests.reference import small_reads as plain

VALUES = st.sampled_from([0.0, -1.5, float("inf"), 1e300])
TIMES = st.lists(st.integers(0, 60), min_size=1, max_size=12, unique=True).map(sorted)
REFS = st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True).map(sorted)
RANGE = st.tuples(st.integers(0, 60), st.integers(0, 61))


class Columns:
    """Room for pieces, and the tally of what is in it."""

    def __init__(self, pieces: int = 64, samples: int = 512) -> None:
        self.tally = np.zeros(4, np.int64)
        self.spans, self.positions = np.empty(3 * pieces, np.int64), np.empty(pieces, np.int64)
        self.offsets = np.zeros(pieces + 1, np.int64)
        self.times, self.values = np.empty(samples, np.int64), np.empty(samples)

    def read(self, refs, segment, start_ms, end_ms) -> int:
        """Add a segment's chunks."""
        columns = segment.refs, segment.min_ts, segment.max_ts, segment.ends, segment.data
        out = self.tally, self.spans, self.positions, self.offsets, self.times, self.values
        return read_chunks(np.array(refs, np.int32), *columns, start_ms, end_ms, *out)

    def read_all(self, refs, segments, start_ms, end_ms) -> int:
        """Add the chunks of segments, in one call."""
        places = np.concatenate([np.empty(0, np.int64), *(segment.place for segment in segments)])
        out = self.tally, self.spans, self.positions, self.offsets, self.times, self.values
        return read_segments(np.array(refs, np.int32), places, start_ms, end_ms, *out)

    def stage(self, refs, staged, start_ms, end_ms) -> int:
        """Add staged samples."""
        series, times, values = ([row[i] for row in staged] for i in range(3))
        columns = np.array(series, np.int32), np.array(times, np.int64), np.array(values, np.float64)
        out = self.tally, self.positions, self.offsets, self.times, self.values
        return read_staged(np.array(refs, np.int32), *columns, start_ms, end_ms, *out)

    @property
    def pieces(self) -> list[tuple[int, list[tuple[int, float]]]]:
        """(position, samples) of each."""
        found = []
        for piece in range(int(self.tally[PIECES])):
            at = slice(*self.offsets[piece : piece + 2])
            samples = list(zip(self.times[at].tolist(), self.values[at].tolist(), strict=True))
            found.append((int(self.positions[piece]), samples))
        return found


def segment_of(series: dict[int, list[tuple[int, float]]]):
    """Encode samples by series."""
    refs = np.array(sorted(series), np.int32)
    samples = [s for ref in refs.tolist() for s in series[ref]]
    offsets = np.cumsum([0, *(len(series[ref]) for ref in refs.tolist())])
    return build_segment(refs, offsets, np.array([t for t, _ in samples]), np.array([v for _, v in samples]))


SEGMENTS = st.lists(
    st.dictionaries(st.integers(0, 9), TIMES.flatmap(lambda ts: st.tuples(st.just(ts), VALUES)), min_size=1), max_size=3
)
STAGED = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 60), VALUES), max_size=20)


@settings(deadline=None, max_examples=200)
@given(SEGMENTS, STAGED, REFS, RANGE)
def test_pieces_are_the_chunks_that_overlap_and_then_the_staged_samples_inside(drawn, staged, refs, window):
    columns, wanted, inside, size_bytes, segments = Columns(), [], 0, 0, []
    for one in drawn:
        series = {ref: [(t, value + t) for t in times] for ref, (times, value) in one.items()}
        segment = segment_of(series)
        segments.append(segment)
        found = plain.chunks_of(refs, sorted(series.items()), *window)
        wanted += [(position, samples) for position, samples, _ in found]
        inside += sum(len(samples) for _, samples, whole in found if whole)
        for position, _, _ in found:
            at = segment.refs.tolist().index(refs[position])
            size_bytes += int(segment.ends[at] - segment.starts[at])
        assert columns.read(refs, segment, *window) == len(wanted)
    assert columns.tally[CHUNK_BYTES] == size_bytes
    at_once = Columns()
    assert at_once.read_all(refs, segments, *window) == len(wanted)
    assert (at_once.pieces, at_once.tally.tolist()) == (columns.pieces, columns.tally.tolist())
    late = plain.staged_of(refs, staged, *window)
    wanted += [(position, [sample]) for position, sample in late]
    assert columns.stage(refs, staged, *window) == len(wanted)
    assert columns.pieces == wanted
    assert columns.tally[[SAMPLES, INSIDE]].tolist() == [sum(len(s) for _, s in wanted), inside + len(late)]


def test_staged_samples_are_found_wherever_they_stand_among_many():
    rng = np.random.default_rng(5)
    staged = list(zip(rng.integers(0, 5000, 9000).tolist(), range(9000), rng.random(9000).tolist(), strict=True))
    refs = [3, 7, 4099, 4999]  # two of them differ in their highest bits only
    columns = Columns(samples=512)
    columns.stage(refs, staged, 100, 8000)
    assert columns.pieces == [(p, [sample]) for p, sample in plain.staged_of(refs, staged, 100, 8000)]


@pytest.mark.parametrize(("pieces", "samples"), [(1, 512), (64, 5)])
def test_what_does_not_fit_is_refused(pieces, samples):
    segment = segment_of({1: [(1, 1.0), (2, 2.0), (3, 3.0)], 4: [(1, 1.0), (2, 2.0), (3, 3.0)]})
    columns = Columns(pieces, samples)
    assert columns.read([1, 4], segment, 0, 9) == NO_ROOM
    assert Columns(pieces, samples).read_all([1], [segment] * 3, 0, 9) == NO_ROOM
    assert columns.read([1], segment, 0, 9) == 1
    assert columns.stage([1], [(1, 5, 1.0)] * 3, 0, 9) == NO_ROOM


def test_a_chunk_that_does_not_decode_is_told():
    segment = segment_of({1: [(1, 1.0), (2, 2.0), (3, 3.0)]})
    segment.data[1] = 200
    columns = Columns()
    status = columns.read([1], segment, 0, 9)
    assert status < 0
    assert status != NO_ROOM
    assert explain_status(status)[0] == 0
    sound = segment_of({1: [(1, 1.0)]})
    assert Columns().read_all([1], [sound, segment, sound], 0, 9) == status


def test_columns_of_other_types_or_with_gaps_have_no_place():
    segment = segment_of({1: [(1, 1.0)], 2: [(1, 1.0)]})
    columns = [segment.refs, segment.min_ts, segment.max_ts, segment.ends, segment.data]
    for i, column in enumerate(columns):
        for bad in (column.astype(np.float64), np.repeat(column, 2)[::2]):
            with pytest.raises(TypeError, match="contiguous"):
                place_of(*columns[:i], bad, *columns[i + 1 :])
