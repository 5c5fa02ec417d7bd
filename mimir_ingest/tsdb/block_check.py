"""Test a whole block against its own checksums, its parts against each other, and all against `meta.json`.

What is settled here: every series is found under exactly its labels, in label order; every chunk decodes to ascending
times that its index entry names; counts and times are those of `meta.json`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mimir_ingest.errors import BlockCorrupt
from mimir_ingest.kernels import chunk_frames
from mimir_ingest.tsdb.block_meta import META_FILE
from mimir_ingest.tsdb.chunk_files import segment_path
from mimir_ingest.tsdb.index_reader import SeriesEntries

if TYPE_CHECKING:
    from mimir_ingest.tsdb.block_reader import BlockReader


def find_problems(reader: BlockReader) -> list[str]:
    """Return one line for each thing that is wrong; a part that cannot be read hides what follows from it."""
    try:
        entries = reader.index.series(reader.index.all_postings())
        problems = [*_check_series(entries), *_check_postings(reader, entries)]
    except BlockCorrupt as error:
        return [error.message]
    try:
        problems += _check_chunks(reader, entries)
    except BlockCorrupt as error:
        problems.append(error.message)
    return problems


def _check_series(entries: SeriesEntries) -> list[str]:
    labels = entries.labels
    order = labels.sort_order()
    problems = []
    if not np.array_equal(order, np.arange(len(labels))):
        at = int(np.argmax(order != np.arange(len(labels))))
        problems.append(f"index: series at byte {16 * int(entries.refs[at])} is not in label order")
    if len(labels.group_ids()[1]) != len(labels):
        problems.append("index: a label set occurs twice")
    return problems


def _check_postings(reader: BlockReader, entries: SeriesEntries) -> list[str]:
    """Compare the postings lists with the series that have each label."""
    index, labels = reader.index, entries.labels
    problems = []
    if index.label_names() != list(labels.names):
        problems.append(f"index: postings are for the names {index.label_names()}, series have {list(labels.names)}")
    for name in sorted({*index.label_names()} & {*labels.names}):
        lists, listed = index.lists_of_name(name), index.label_values(name)
        column = labels.column(name)
        assert column is not None
        codes, values = column
        row_of = {value: row for row, value in enumerate(listed)}
        rows = np.array([row_of.get(value, -1) for value in values] + [-2], np.int64)[codes]
        if np.any(rows == -1):
            value = values[int(codes[np.argmax(rows == -1)])]
            problems.append(f"index: no postings list for {name}={value!r}")
            continue
        present = np.flatnonzero(rows >= 0)
        present = present[np.argsort(rows[present], kind="stable")]
        offsets, refs = index.read_each(lists)
        expected = np.searchsorted(rows[present], np.arange(len(lists) + 1))
        if np.array_equal(expected, offsets) and np.array_equal(entries.refs[present], refs):
            continue
        for row in range(len(lists)):
            own = entries.refs[present[expected[row] : expected[row + 1]]]
            if not np.array_equal(own, refs[offsets[row] : offsets[row + 1]]):
                problems.append(
                    f"index: postings list at byte {lists[row]} for {name}={listed[row]!r} "
                    "differs from the series with that label"
                )
                break
    return problems


def _check_chunks(reader: BlockReader, entries: SeriesEntries) -> list[str]:
    data = reader.read_all_chunks(entries)
    floats = data.encodings == chunk_frames.ENCODING_XOR
    histograms = np.isin(data.encodings, chunk_frames.HISTOGRAM_ENCODINGS)
    problems = []
    for encoding in np.unique(data.encodings[~(floats | histograms)]).tolist():
        count = int(np.count_nonzero(data.encodings == encoding))
        problems.append(f"chunks: encoding {encoding} of {count} chunks is not known")
    offsets, timestamps, _ = reader.decode(data, floats, entries)
    problems += _check_times(entries.chunks[:, floats], offsets, timestamps)
    offsets, histogram_times, _ = reader.decode_histograms(data, histograms, entries)
    problems += _check_times(entries.chunks[:, histograms], offsets, histogram_times)
    # From one chunk of a series to its next, times must ascend, too.
    series = np.repeat(np.arange(len(entries.refs)), np.diff(entries.chunk_offsets))
    overlap = (series[1:] == series[:-1]) & (entries.chunks[0, 1:] <= entries.chunks[1, :-1])
    if overlap.any():
        at = int(entries.refs[series[int(np.argmax(overlap))]]) * 16
        problems.append(f"index: series at byte {at} has chunks that overlap")
    samples = len(timestamps) + len(histogram_times)
    return problems + _check_meta(reader, entries, samples, bool((floats | histograms).all()))


def _check_times(columns: np.ndarray, offsets: np.ndarray, timestamps: np.ndarray) -> list[str]:
    counts = np.diff(offsets)

    def place(wrong: np.ndarray) -> str:
        ref = int(columns[2, int(np.argmax(wrong))])
        return f"{segment_path(ref >> 32)}: chunk at byte {ref & 0xFFFFFFFF}"

    if np.any(counts == 0):
        return [f"{place(counts == 0)} has no samples"]
    if not len(counts):
        return []
    problems = []
    wrong = (timestamps[offsets[:-1]] != columns[0]) | (timestamps[offsets[1:] - 1] != columns[1])
    if wrong.any():
        problems.append(f"{place(wrong)} does not hold the times that the index says")
    ascends = np.ones(len(timestamps), bool)
    ascends[1:] = timestamps[1:] > timestamps[:-1]
    ascends[offsets[:-1]] = True
    wrong = ~np.logical_and.reduceat(ascends, offsets[:-1])
    if wrong.any():
        problems.append(f"{place(wrong)}: its timestamps do not ascend")
    return problems


def _check_meta(reader: BlockReader, entries: SeriesEntries, sample_count: int, all_known: bool) -> list[str]:
    meta = reader.meta
    chunks = entries.chunks
    facts = [
        ("stats.numSeries", meta.series_count, len(entries.refs)),
        ("stats.numChunks", meta.chunk_count, chunks.shape[1]),
    ]
    if all_known:
        facts.append(("stats.numSamples", meta.sample_count, sample_count))
    problems = [f"{META_FILE}: {name} is {said}, the block has {found}" for name, said, found in facts if said != found]
    if chunks.shape[1]:
        low, high = int(chunks[0].min()), int(chunks[1].max())
        if low < meta.min_time_ms or high >= meta.max_time_ms:
            problems.append(
                f"{META_FILE}: times [{meta.min_time_ms}, {meta.max_time_ms}) do not include [{low}, {high}]"
            )
    return problems
