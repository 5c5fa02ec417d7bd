"""Label pairs against their plain twin."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mimir_ingest.kernels.label_pairs import (
    MALFORMED,
    build_postings,
    check_label_sets,
    count_pairs,
    filter_series,
    gather_pairs,
    match_few,
    split_pairs,
)
from mimir_ingest.model.labels import encode_label_bytes
from tests.reference import label_pairs as plain

LABEL_SETS = st.dictionaries(st.text(min_size=1, max_size=5), st.text(min_size=1, max_size=200), max_size=5)
SERIES = st.lists(st.lists(st.integers(0, 7), unique=True, max_size=5).map(sorted), max_size=12)


@settings(deadline=None)
@given(st.one_of(st.binary(max_size=12), LABEL_SETS.map(encode_label_bytes)), st.binary(max_size=3))
def test_label_bytes_are_cut_as_the_plain_walk_cuts_them(text, before):
    wanted = plain.split_pairs(text)
    data = np.frombuffer(before + text, np.uint8)
    starts, ends = np.array([len(before)], np.int64), np.array([len(data)], np.int64)
    counts = np.empty(1, np.int64)
    total = count_pairs(data, starts, ends, counts)
    if wanted is None:
        assert total == MALFORMED
        return
    assert (total, counts[0]) == (len(wanted), len(wanted))
    columns = [np.empty(total, np.int64) for _ in range(4)]
    assert split_pairs(data, starts, ends, *columns) == total
    assert [tuple(c - len(before) for c in row) for row in zip(*(c.tolist() for c in columns), strict=True)] == wanted


TEXTS = st.sampled_from([b"", b"a", b"ab", b"b", "ü".encode(), b"\xff", b"\xed\xa0\x80", b"x" * 130])


@settings(deadline=None, max_examples=300)
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=12),
            LABEL_SETS.map(encode_label_bytes),
            st.lists(TEXTS, max_size=6).map(lambda texts: b"".join(plain.prefixed(t) for t in texts)),
        ),
        max_size=3,
    )
)
def test_label_sets_are_those_that_the_plain_encoder_gives_back(texts):
    data = np.frombuffer(b"".join(texts), np.uint8)
    offsets = np.cumsum([0, *map(len, texts)], dtype=np.int64)
    good = check_label_sets(data, offsets[:-1], offsets[1:])
    assert good == next((i for i, text in enumerate(texts) if not plain.is_label_set(text)), len(texts))


def columns(series: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    starts = np.cumsum([0, *map(len, series)], dtype=np.int64)
    return starts, np.array([p for pairs in series for p in pairs], np.int32)


@settings(deadline=None)
@given(SERIES)
def test_postings_are_the_inverse_of_the_series(series):
    starts, pairs = columns(series)
    out, refs = np.zeros(9, np.int64), np.empty(len(pairs), np.int32)
    assert build_postings(starts, pairs, len(series), out, refs) == len(pairs)
    assert [refs[out[p] : out[p + 1]].tolist() for p in range(8)] == plain.postings(series, 8)


WORDS = st.lists(st.integers(0, 15), min_size=8, max_size=8)


@settings(deadline=None)
@given(SERIES, WORDS, WORDS, st.integers(0, 15), st.data())
def test_filtering_keeps_what_satisfies_every_matcher(series, accepted, constrained, absent, data):
    starts, pairs = columns(series)
    refs = data.draw(st.lists(st.integers(0, len(series) - 1), unique=True) if series else st.just([]))
    out = np.empty(len(refs), np.int32)
    arrays = (np.array(accepted, np.uint64), np.array(constrained, np.uint64))
    accepted = [a & 15 for a in accepted]
    kept = filter_series(np.array(refs, np.int32), starts, pairs, *arrays, np.uint64(15), np.uint64(absent), out)
    # A pair that is accepted is also one of its matcher's name.
    assert out[:kept].tolist() == plain.filter_series(refs, series, accepted, constrained, 15, absent)
    offsets, gathered = np.empty(len(refs) + 1, np.int64), np.empty(sum(len(series[r]) for r in refs), np.int32)
    assert gather_pairs(np.array(refs, np.int32), starts, pairs, offsets, gathered) == len(gathered)
    assert [gathered[a:b].tolist() for a, b in itertools.pairwise(offsets)] == [series[r] for r in refs]


@settings(deadline=None, max_examples=300)
@given(
    SERIES,
    st.integers(0, 12),
    st.integers(0, 13),
    st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True),
    st.integers(0, 4),
    st.integers(1, 5),
)
def test_few_series_with_all_pairs_are_found_behind_the_shortest_list_and_where_nothing_is_indexed(
    series, indexed, count, wanted, most, room
):
    indexed, count = min(indexed, len(series)), min(count, len(series))
    pair_starts = np.cumsum([0, *map(len, series)], dtype=np.int64)
    pairs = np.array([p for one in series for p in one], np.int32)
    # Postings know the pairs that there were when they were made.
    known = max((p for one in series[:indexed] for p in one), default=-1) + 1
    posting_starts, postings = np.zeros(known + 1, np.int64), np.empty(int(pair_starts[indexed]), np.int32)
    build_postings(pair_starts, pairs, indexed, posting_starts, postings)
    refs = np.empty(room, np.int32)
    seen = min(indexed, count)
    lists = np.array(wanted, np.int64), posting_starts, postings, seen
    found = match_few(*lists, pair_starts, pairs, count, most, refs)
    expected = plain.match_few(series, indexed, count, wanted, most, room)
    assert (None if found < 0 else refs[:found].tolist()) == expected
