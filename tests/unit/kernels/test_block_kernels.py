"""Index and chunk frame kernels: equal to the byte-at-a-time twin, and safe on bytes that are anything."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimir_ingest.errors import BlockCorrupt, InvariantViolated
from mimir_ingest.kernels import chunk_frames, index_entries, index_scan
from mimir_ingest.model.labels import LabelFrame
from mimir_ingest.tsdb.index_reader import IndexReader
from mimir_ingest.tsdb.index_writer import ChunkColumns, write_index
from tests.reference import block_index as reference

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=4)
LONG = st.builds(lambda text, times: text * times, TEXT, st.sampled_from([1, 1, 1, 200]))
LABELS = st.dictionaries(st.sampled_from(["__name__", "a", "b", "ü", "zz"]), LONG, max_size=4)
GAP = st.one_of(st.integers(0, 200), st.integers(0, 2**40))


@st.composite
def series_lists(draw: st.DrawFn) -> list[tuple[dict[str, str], list[tuple[int, int, int]]]]:
    """Distinct label sets, each with chunks in order of time."""
    sets = draw(st.lists(LABELS, min_size=1, max_size=12, unique_by=lambda s: tuple(sorted(s.items()))))
    result = []
    for labels in sets:
        chunks, at = [], draw(st.integers(-(2**50), 2**50))
        for _ in range(draw(st.integers(0, 9))):
            low = at + draw(GAP)
            at = low + draw(GAP)
            chunks.append((low, at, draw(st.integers(8, 2**40))))
        result.append((labels, chunks))
    return result


def _columns(chunk_lists: list[list[tuple[int, int, int]]]) -> ChunkColumns:
    flat = [chunk for chunks in chunk_lists for chunk in chunks]
    offsets = np.concatenate([[0], np.cumsum([len(c) for c in chunk_lists])]).astype(np.int64)
    return ChunkColumns(offsets, np.array(flat, np.int64).reshape(-1, 3).T.copy())


def _sorted(series: list[tuple[dict[str, str], list]]) -> list[tuple[list[tuple[bytes, bytes]], list]]:
    return sorted((sorted((n.encode(), v.encode()) for n, v in labels.items()), chunks) for labels, chunks in series)


@given(series_lists())
def test_the_index_equals_the_twin_and_reads_back(series: list) -> None:
    frame = LabelFrame.from_dicts([labels for labels, _ in series])
    order = frame.sort_order()
    file = write_index(frame.take(order), _columns([series[i][1] for i in order]))
    expected = _sorted(series)
    assert file == reference.write_index(expected)

    reader = IndexReader(file)
    entries = reader.series(reader.all_postings())
    twin = reference.read_index(file)
    assert entries.refs.tolist() == list(twin.series)
    assert [sorted((n.encode(), v.encode()) for n, v in d.items()) for d in entries.labels.to_dicts()] == [
        labels for labels, _ in twin.series.values()
    ]
    bounds = entries.chunk_offsets.tolist()
    assert [[tuple(chunk) for chunk in entries.chunks[:, a:b].T.tolist()] for a, b in pairwise(bounds)] == [
        chunks for _, chunks in twin.series.values()
    ]
    for name in reader.label_names():
        offsets, refs = reader.read_each(reader.lists_of_name(name))
        for i, value in enumerate(reader.label_values(name)):
            assert refs[offsets[i] : offsets[i + 1]].tolist() == twin.postings[name.encode(), value.encode()]


def test_series_out_of_label_order_and_repeated_ones_are_refused() -> None:
    columns = _columns([[], []])
    for sets in (
        [{"a": "2"}, {"a": "1"}],
        [{"a": "1"}, {"a": "1"}],
        [{"a": "1", "b": "1"}, {"a": "1"}],
        [{"b": "1"}, {"a": "1", "b": "1"}],
    ):
        with pytest.raises(InvariantViolated, match="label set 1 of 2"):
            write_index(LabelFrame.from_dicts(sets), columns)


def _small_index() -> bytes:
    sets = [{"a": f"{i}", "b": "x" * (i % 3)} for i in range(5)]
    return write_index(LabelFrame.from_dicts(sets), _columns([[(1, 2, 8), (3, 4, 100)]] * 5))


def _read_all(file: bytes) -> None:
    reader = IndexReader(file)
    reader.series(reader.all_postings())
    for name in reader.label_names():
        reader.read_lists(reader.lists_of_name(name))


def test_an_index_cut_at_every_length_is_corrupt() -> None:
    file = _small_index()
    _read_all(file)
    for size in range(len(file)):
        with pytest.raises(BlockCorrupt):
            _read_all(file[:size])


def test_every_flipped_bit_of_an_index_is_noticed_or_in_padding() -> None:
    file = _small_index()
    twin = reference.read_index(file)
    unnoticed = []
    for bit in range(8 * len(file)):
        changed = bytearray(file)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            _read_all(bytes(changed))
        except BlockCorrupt:
            continue
        unnoticed.append(bit // 8)
    padding = set(range(len(file)))
    cursor = reference.Cursor(file, 5)
    cursor.section()
    padding -= set(range(cursor.at))
    for ref in twin.series:
        cursor = reference.Cursor(file, 16 * ref)
        cursor.take(cursor.uvarint() + 4)
        padding -= set(range(16 * ref, cursor.at))
    postings_at = int.from_bytes(file[-20:-12], "big")
    padding -= set(range(postings_at + -postings_at % 4, len(file)))
    assert padding
    assert set(unnoticed) == padding


@given(st.binary(max_size=80), st.lists(st.integers(0, 8), max_size=4))
def test_scans_of_arbitrary_bytes_end_in_a_status(body: bytes, refs: list[int]) -> None:
    data = np.frombuffer(body, np.uint8)
    end = len(data)
    counts = np.empty(len(refs), np.int64)
    lists = np.array(refs, np.int64)
    assert index_scan.measure_series(data, lists, end, counts, counts.copy()) <= len(refs)
    total = index_scan.count_postings(data, lists, end, counts)
    if total >= 0:
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        index_scan.read_postings(data, lists, offsets, np.empty(total, np.int64))
    for count in (1, 3):
        columns = np.empty(count, np.int64)
        assert index_scan.scan_symbols(data, 0, end, columns, columns.copy()) <= end
        assert index_scan.scan_postings_offsets(data, 0, end, np.empty((6, count), np.int64)) <= end


@given(st.lists(st.tuples(st.binary(max_size=300), st.integers(0, 255)), max_size=5))
def test_frames_equal_the_twin_and_are_found_again(pairs: list[tuple[bytes, int]]) -> None:
    chunks, encodings = [c for c, _ in pairs], np.array([e for _, e in pairs], np.uint8)
    data = np.frombuffer(b"".join(chunks), np.uint8)
    ends = np.cumsum([len(c) for c in chunks]).astype(np.int64)
    out = np.empty(len(data) + chunk_frames.FRAME_OVERHEAD * len(chunks), np.uint8)
    starts = np.empty(len(chunks), np.int64)
    size = chunk_frames.write_frames(data, ends, encodings, out, starts)
    file = out[:size].tobytes()
    assert file == b"".join(reference.frame(encoding, c) for c, encoding in pairs)
    found = [np.empty(len(chunks), np.int64) for _ in range(3)]
    assert chunk_frames.scan_frames(out[:size], starts, np.full(len(chunks), size), *found) == 0
    for i, chunk in enumerate(chunks):
        assert file[found[0][i] : found[1][i]] == chunk
        assert found[2][i] == encodings[i]
        assert reference.read_frame(file, int(starts[i]))[:2] == (encodings[i], chunk)


def test_a_frame_that_is_cut_off_says_how_much_is_missing_and_a_changed_one_is_refused() -> None:
    file = reference.frame(1, b"x" * 200)
    one = np.zeros(1, np.int64)
    for size in range(len(file)):
        found = [np.empty(1, np.int64) for _ in range(3)]
        assert chunk_frames.scan_frames(np.frombuffer(file, np.uint8), one, np.array([size]), *found) == 1
        assert found[2][0] == -1
        if size >= 2:
            assert found[1][0] - found[0][0] == 200
    changed = bytearray(file)
    changed[50] ^= 4
    status = chunk_frames.scan_frames(np.frombuffer(changed, np.uint8), one, np.array([len(file)]), *found)
    assert status == -chunk_frames.BAD_CHECKSUM
    too_long = np.frombuffer(b"\xff" * 30, np.uint8)
    assert chunk_frames.scan_frames(too_long, one, np.array([30]), *found) == -chunk_frames.BAD_LENGTH


def test_postings_are_counted_by_label() -> None:
    codes = np.array([[0, 1, -1, 1]], np.int32)
    counts = np.zeros(3, np.int64)
    assert index_entries.count_postings(codes, np.array([1, 2]), np.array([0]), counts) == 3
    assert counts.tolist() == [0, 1, 2]
