"""Chunks of native histograms equal the plain twin's bytes, come back as they were, and refuse damage."""

import itertools
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimir_ingest.kernels.histogram_plan import rank_among
from mimir_ingest.model import histogram_chunks
from mimir_ingest.model.histogram_chunks import (
    ChunkPlan,
    HistogramChunkCorrupt,
    as_read,
    count_samples,
    cut_chunks,
    decode_chunks,
    encode_chunks,
    plan_chunks,
)
from mimir_ingest.model.histograms import GAUGE, NO_RESET, RESET, RESET_UNKNOWN, Histograms
from tests.reference import histogram_chunk as reference
from tests.reference import histogram_cuts as cuts
from tests.support.histograms import STALE_BITS, Row, as_rows, histogram_rows, of_rows
from tests.support.native_series import BOUNDS, growing


@st.composite
def series_rows(draw, max_size=12):
    """A series' rows: runs of one layout with changing counts, some none, markers in between."""
    rows = []
    while len(rows) < max_size and draw(st.booleans()):
        first = draw(histogram_rows())
        counts = st.integers(0, 9).map(float)
        for _ in range(draw(st.integers(1, 4))):
            if draw(st.integers(0, 5)) == 0:
                rows.append(Row(0, 0, first.is_float, 0.0, 0.0, 0.0, STALE_BITS, (), ()))
                continue
            change = draw(counts) - 2
            positive = tuple((i, max(c + change, 0.0)) for i, c in first.positive)
            rows.append(
                first._replace(
                    positive=positive,
                    count=max(first.count + draw(counts) - 4, 0.0),
                    zero_count=0.0 if first.custom else draw(counts),
                    sum_bits=draw(st.integers(0, 2**64 - 1).filter(lambda b: b != STALE_BITS)),
                    reset_hint=draw(st.sampled_from([first.reset_hint, 0, 0, 1, 2])),
                )
            )
    return rows


TIMES = st.lists(st.integers(-(2**63), 2**63 - 1) | st.integers(0, 60), min_size=16, max_size=16)


@settings(deadline=None, max_examples=200)
@given(
    st.lists(series_rows(), min_size=1, max_size=3),
    TIMES,
    st.tuples(st.booleans(), st.booleans(), st.booleans()),
    st.integers(1, 5),
    st.data(),
)
def test_plans_bytes_and_hints_are_those_of_the_twin(series, times, modes, chunk_samples, data):
    detect, same_buckets, hinted = modes
    flat = [row for rows in series for row in rows]
    offsets = np.cumsum([0, *map(len, series)])
    timestamps = np.array((times * 3)[: len(flat)], np.int64)
    runs = data.draw(st.lists(st.integers(0, 1), min_size=len(flat), max_size=len(flat)))
    values = of_rows(flat)
    plan = plan_chunks(
        values,
        offsets,
        chunk_samples=chunk_samples,
        detect_resets=detect,
        same_buckets=same_buckets,
        hinted=hinted,
        runs=np.array(runs, np.int64),
    )
    wanted = [
        (header, int(offsets[i]) + first)
        for i, rows in enumerate(series)
        for header, first in reference.plan(
            rows, runs[offsets[i] : offsets[i + 1]], chunk_samples, detect, same_buckets, hinted
        )
    ]
    assert list(zip(plan.headers.tolist(), plan.starts[:-1].tolist(), strict=True)) == wanted
    chunks = encode_chunks(timestamps, values, plan)
    starts = np.concatenate([[0], chunks.ends[:-1]]).astype(np.int64)[: len(chunks.ends)]
    for j, header in enumerate(plan.headers.tolist()):
        own = range(plan.starts[j], plan.starts[j + 1])
        expected = reference.encode([(int(timestamps[i]), flat[i]) for i in own], header)
        assert chunks.data[starts[j] : chunks.ends[j]].tobytes() == expected
    sample_offsets, found, decoded = decode_chunks(
        chunks.data, starts, chunks.ends, chunks.is_float, resets_begin_chunks=detect, headers_hold=hinted
    )
    assert sample_offsets.tolist() == plan.starts.tolist()
    assert found.tolist() == timestamps.tolist()
    chunked = [flat[a:b] for a, b in itertools.pairwise(plan.starts.tolist())]
    read = [row for rows in chunked for row in (rows if same_buckets else reference.spread(rows))]
    assert [row._replace(reset_hint=0) for row in as_rows(decoded)] == [row._replace(reset_hint=0) for row in read]
    for j, header in enumerate(plan.headers.tolist()):
        live = [i for i in range(plan.starts[j], plan.starts[j + 1]) if flat[i].sum_bits != STALE_BITS]
        later = GAUGE if header == GAUGE else NO_RESET if detect else RESET_UNKNOWN
        known = header == GAUGE or (header == RESET and not detect) or (header == NO_RESET and hinted)
        first = header if known else RESET_UNKNOWN
        hints = [first if i == plan.starts[j] else later for i in live]
        assert decoded.reset_hint[live].tolist() == hints


def test_differences_wrap_round_as_int64_does():
    """Prometheus subtracts int64: what wrapped to a short difference is written as a short one."""
    rows, times = [Row(0, 0, False, 0.0, 0.0, 0.0, 0, (), ())] * 3, [0, 2**63 - 2**54, 0]
    plan = ChunkPlan(np.array([0, 3]), np.zeros(1, np.uint8))
    data = encode_chunks(np.array(times), of_rows(rows), plan).data.tobytes()
    # The zero threshold; schema, spans, time and counts of 0; the first sum.
    bits = "0" * (8 + 6 + 64)
    bits += "1" * 8 + f"{2**63 - 2**54:064b}" + "000"
    # 0 - 2 * (2**63 - 2**54) is 2**55.
    bits += "11111110" + f"{2**55:056b}" + "000"
    size = -(-len(bits) // 8)
    assert data == b"\0\3\0" + int(bits.ljust(8 * size, "0"), 2).to_bytes(size, "big")
    assert data == reference.encode(list(zip(times, rows, strict=True)), 0)
    assert read(data, is_float=False)[1].tolist() == times


def encoded(timestamps, values, plan):
    chunks = encode_chunks(timestamps, values, plan)
    starts = np.concatenate([[0], chunks.ends[:-1]]).astype(np.int64)[: len(chunks.ends)]
    return decode_chunks(chunks.data, starts, chunks.ends, chunks.is_float, resets_begin_chunks=True)


def check_cuts(series, steps, begin_ms=0):
    """Series are cut like the twin cuts them, and read with the buckets that a reader of these chunks sees."""
    flat = [row for rows in series for row in rows]
    offsets = np.cumsum([0, *map(len, series)])
    times = [begin_ms + int(t) for rows in series for t in np.cumsum(steps[: len(rows)])]
    runs = [i % 50 // 45 for rows in series for i in range(len(rows))]
    values, timestamps, given_runs = of_rows(flat), np.array(times, np.int64), np.array(runs, np.int64)
    plan = cut_chunks(values, timestamps, offsets, given_runs)
    wanted = [
        (header, int(a) + first)
        for a, b in itertools.pairwise(offsets.tolist())
        for header, first in cuts.cut(list(zip(times[a:b], flat[a:b], strict=True)), runs[a:b])
    ]
    assert list(zip(plan.headers.tolist(), plan.starts[:-1].tolist(), strict=True)) == wanted
    _, _, read = encoded(timestamps, values, plan)
    found = as_read(values, timestamps, offsets, given_runs)
    assert [r._replace(reset_hint=0) for r in as_rows(found)] == [r._replace(reset_hint=0) for r in as_rows(read)]
    return plan


@settings(deadline=None, max_examples=100)
@given(
    st.lists(series_rows(), min_size=1, max_size=3),
    st.lists(st.integers(1, 4_000_000), min_size=60, max_size=60),
    st.integers(-(10**8), 10**12),
)
def test_histograms_are_cut_and_read_like_the_twin_cuts_them(series, steps, begin_ms):
    check_cuts(series, steps, begin_ms)


@pytest.mark.parametrize("step_ms", [15_000, 700_000])
def test_chunks_are_of_like_size_and_end_with_their_range(step_ms):
    rng = random.Random(step_ms)
    kinds = [
        growing(rng, 260),
        growing(rng, 90, is_float=True, reset_every=23),
        growing(rng, 260, hint=GAUGE),
        growing(rng, 200, custom=BOUNDS),
    ]
    plan = check_cuts(kinds, [step_ms] * 260)
    assert len(plan.headers) > 20


def test_a_reader_sees_what_a_chunk_has_even_if_later_samples_brought_it():
    few, more = (Row(0, 0, False, 0.0, 0.0, n, 0, (), tuple((i, 1.0) for i in range(int(n)))) for n in (1.0, 3.0))
    found = as_read(of_rows([few, more]), np.array([0, 1]), np.array([0, 2]))
    assert [row.positive for row in as_rows(found)] == [((0, 1.0), (1, 0.0), (2, 0.0)), more.positive]


def test_a_reader_is_not_told_that_a_chunk_began_with_a_reset():
    """As Prometheus 3.14 reads: a sum of it and of a counter that went on has no conflict of resets to warn of."""
    rows = [Row(0, 0, False, 0.0, 0.0, count, 0, (), ((0, count),)) for count in (2.0, 3.0, 1.0, 2.0)]
    assert as_read(of_rows(rows), np.arange(4), np.array([0, 4])).reset_hint.tolist() == [0, NO_RESET, 0, NO_RESET]


def one_chunk(rows):
    plan = ChunkPlan(np.array([0, len(rows)]), np.zeros(1, np.uint8))
    return encode_chunks(np.arange(len(rows)) * 1000, of_rows(rows), plan)


GROWING = [
    Row(3, 0, False, 2.0**-128, float(i), float(9 * i), i, ((-2, float(2 * i)),), ((1, float(i)), (5, float(5 * i))))
    for i in range(1, 8)
]


def test_many_chunks_are_decoded_a_part_at_a_time(monkeypatch):
    """The rows are the same, somebody is asked before each part, and a damaged chunk has its number in the call."""
    rows = [row for k in range(8) for row in GROWING[k % 3 :]]
    offsets = np.cumsum([0, *(7 - k % 3 for k in range(8))])
    plan = plan_chunks(of_rows(rows), offsets, chunk_samples=100, detect_resets=False)
    chunks = encode_chunks(np.arange(len(rows)), of_rows(rows), plan)
    starts = np.concatenate([[0], chunks.ends[:-1]]).astype(np.int64)
    asked = []

    def decode(data):
        columns = data, starts, chunks.ends, chunks.is_float
        offsets, times, values = decode_chunks(*columns, resets_begin_chunks=True, check=lambda: asked.append(1))
        return offsets.tolist(), times.tolist(), as_rows(values)

    whole = decode(chunks.data)
    assert len(asked) == 1
    monkeypatch.setattr(histogram_chunks, "_PART_BYTES", int(chunks.ends[1]))
    assert decode(chunks.data) == whole
    assert len(asked) > 4
    damaged = chunks.data.copy()
    damaged[starts[6] + 3 : chunks.ends[6]] = 255
    with pytest.raises(HistogramChunkCorrupt) as raised:
        decode(damaged)
    assert raised.value.chunk == 6


def read(data: bytes, is_float: bool):
    buffer = np.frombuffer(data, np.uint8)
    ends = np.array([len(data)])
    return decode_chunks(buffer, np.zeros(1, np.int64), ends, np.array([is_float]), resets_begin_chunks=True)


@pytest.mark.parametrize("is_float", [False, True])
def test_every_truncation_is_refused_and_every_flipped_bit_ends(is_float):
    rows = [row._replace(is_float=is_float) for row in GROWING]
    data = one_chunk(rows).data.tobytes()
    assert len(as_rows(read(data, is_float)[2])) == len(rows)
    for size in range(len(data)):
        with pytest.raises(HistogramChunkCorrupt):
            read(data[:size], is_float)
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        try:
            _, timestamps, values = read(bytes(changed), is_float)
        except HistogramChunkCorrupt:
            continue
        assert len(timestamps) == len(values) == len(values.count)
        assert values.bucket_offsets[-1] == len(values.bucket_index) == len(values.bucket_count)


@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_are_a_chunk_or_refused_within_bounded_memory(data, is_float):
    try:
        _, _, values = read(data, is_float)
    except HistogramChunkCorrupt:
        return
    assert len(values.bucket_index) <= 8 * len(data)


def test_counts_of_chunks_are_read_without_decoding_them():
    chunks = one_chunk(GROWING)
    assert count_samples(chunks.data, np.zeros(1, np.int64), chunks.ends).tolist() == [[7, 3, 0]]


@pytest.mark.parametrize("schema", [-54, -5, 9, 52, 1 << 40])
def test_a_schema_that_is_not_supported_is_named(schema):
    data = reference.encode([(0, GROWING[0]._replace(schema=schema))], 0)
    with pytest.raises(HistogramChunkCorrupt, match="chunk 0: its histogram schema is not supported"):
        read(data, False)


def test_no_histograms_are_no_chunks():
    nothing = Histograms.empty()
    plan = plan_chunks(nothing, np.zeros(3, np.int64), chunk_samples=120, detect_resets=True)
    chunks = encode_chunks(np.empty(0, np.int64), nothing, plan)
    assert (len(chunks.data), len(chunks.ends)) == (0, 0)


@given(st.lists(st.tuples(st.sets(st.integers(0, 20)), st.sets(st.integers(0, 20))), min_size=1, max_size=4))
def test_ranks_count_the_older_samples_of_the_other_kind(series):
    one, other = ([sorted(pair[k]) for pair in series] for k in (0, 1))
    flat = [t for times in one for t in times]
    ranks = np.empty(len(flat), np.int64)
    shared = rank_among(
        np.cumsum([0, *map(len, one)]), np.array(flat, np.int64),
        np.cumsum([0, *map(len, other)]), np.array([t for times in other for t in times], np.int64), ranks,
    )  # fmt: skip
    wanted = [2 * sum(o < t for o in b) + (t in b) for a, b in zip(one, other, strict=True) for t in a]
    assert ranks.tolist() == wanted
    assert shared == sum(rank % 2 for rank in wanted)
