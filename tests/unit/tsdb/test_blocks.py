"""Blocks: what is written is read, the same samples give the same bytes, and what is broken is named."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimir_ingest.errors import BlockCorrupt, InvariantViolated, QueryError
from mimir_ingest.kernels.crc32c import crc32c
from mimir_ingest.kernels.xor_chunk import decode_xor
from mimir_ingest.model.labels import LabelFrame
from mimir_ingest.model.matchers import Matcher, MatchType
from mimir_ingest.model.samples import SampleBudget, SeriesSamples
from mimir_ingest.model.series_chunks import plan_chunks
from mimir_ingest.tsdb import block_reader, block_tools
from mimir_ingest.tsdb.block_meta import decode_meta, encode_meta, read_meta
from mimir_ingest.tsdb.block_reader import BlockReader, open_files, verify_block
from mimir_ingest.tsdb.tombstones import decode_tombstones, encode_tombstones
from mimir_ingest.tsdb.ulid import parse_ulid
from tests.reference import block_index as reference
from tests.reference import xor_chunk as reference_xor
from tests.support.blocks import build, make_samples, sample_series, to_python

EQUAL, NOT_EQUAL, REGEXP, NOT_REGEXP = MatchType
EVER = (-(2**63), 2**63 - 1)

SERIES = sample_series()
SAMPLES = make_samples(SERIES)
BUILT = build(SAMPLES)


def test_every_sample_of_a_block_is_read_back_bit_for_bit() -> None:
    assert to_python(open_files(BUILT.files).select([], *EVER)) == to_python(SAMPLES)


def test_the_same_samples_give_the_same_bytes_however_their_columns_were_made() -> None:
    again = build(make_samples(SERIES[::-1]))
    assert again.files == BUILT.files
    assert list(again.files) == ["chunks/000001", "index", "tombstones", "meta.json"]


def test_the_ulid_depends_on_time_tenant_place_and_content() -> None:
    time_ms, _ = parse_ulid(BUILT.ulid)
    assert time_ms == BUILT.meta["maxTime"] == int(SAMPLES.timestamps.max()) + 1
    changed = SeriesSamples(SAMPLES.labels, SAMPLES.offsets, SAMPLES.timestamps, SAMPLES.values + 0.0)
    changed.values[1] += 1
    others = [build(SAMPLES, tenant="team-b"), build(SAMPLES, cut_offset=43), build(changed)]
    assert len({BUILT.ulid, *(other.ulid for other in others)}) == 4
    assert all(parse_ulid(other.ulid)[0] == time_ms for other in others)


def test_meta_json_says_what_is_in_the_block_and_nothing_of_who_made_it() -> None:
    meta = json.loads(BUILT.files["meta.json"])
    assert meta == BUILT.meta
    assert meta["minTime"] == int(SAMPLES.timestamps.min())
    assert meta["stats"] == {
        "numSamples": SAMPLES.sample_count,
        "numFloatSamples": SAMPLES.sample_count,
        "numSeries": SAMPLES.series_count,
        "numChunks": sum(math.ceil(len(samples) / 120) for _, samples in SERIES),
    }
    assert meta["compaction"] == {"level": 1, "sources": [BUILT.ulid]}
    assert meta["mimir_ingest"] == {"topic_id": "topic-x", "partition": 3, "start_offset": 7, "cut_offset": 42}
    assert meta["thanos"] == {
        "version": 1,
        "labels": {},
        "downsample": {"resolution": 0},
        "source": "receive",
        "segment_files": ["000001"],
        "files": [
            {"rel_path": "chunks/000001", "size_bytes": len(BUILT.files["chunks/000001"])},
            {"rel_path": "index", "size_bytes": len(BUILT.files["index"])},
            {"rel_path": "meta.json"},
            {"rel_path": "tombstones", "size_bytes": 9},
        ],
    }
    assert set(meta) == {"ulid", "minTime", "maxTime", "stats", "compaction", "version", "thanos", "mimir_ingest"}


def test_chunks_hold_120_samples_from_the_series_start_by_the_twins() -> None:
    index = reference.read_index(BUILT.files["index"])
    found = []
    for labels, chunks in index.series.values():
        samples = []
        for low, high, ref in chunks:
            assert ref >> 32 == 0
            encoding, data, _ = reference.read_frame(BUILT.files["chunks/000001"], ref)
            decoded = reference_xor.decode(data)
            assert encoding == 1
            assert (low, high) == (decoded[0][0], decoded[-1][0])
            samples.append(decoded)
        assert all(len(s) == 120 for s in samples[:-1])
        found.append(({n.decode(): v.decode() for n, v in labels}, [s for chunk in samples for s in chunk]))
    assert found == to_python(SAMPLES)


def test_chunks_are_planned_series_by_series() -> None:
    chunk_offsets, starts = plan_chunks(np.array([0, 1, 4, 8]), 3)
    assert chunk_offsets.tolist() == [0, 1, 2, 4]
    assert starts.tolist() == [0, 1, 4, 7, 8]


def test_series_without_samples_are_left_out() -> None:
    samples = make_samples([({"a": "1"}, []), ({"a": "2"}, [(5, 1.0)]), ({"a": "3"}, [])])
    reader = open_files(build(samples).files)
    assert reader.verify() == []
    assert [labels for labels, _ in to_python(reader.select([], *EVER))] == [{"a": "2"}]


def test_what_breaks_the_order_is_refused() -> None:
    one = [(1, 1.0)]
    frame = LabelFrame.from_dicts([{"a": "2"}, {"a": "1"}])
    two = np.array([0, 1, 2])
    with pytest.raises(InvariantViolated, match="label set 1 of 2 is not greater"):
        build(SeriesSamples(frame, two, np.array([1, 1]), np.array([1.0, 1.0])))
    for times in ([(5, 1.0), (5, 2.0)], [(5, 1.0), (4, 1.0)]):
        with pytest.raises(InvariantViolated, match="series 1: timestamp"):
            build(make_samples([({"a": "1"}, one), ({"a": "2"}, times)]))
    with pytest.raises(InvariantViolated, match="without samples"):
        build(SeriesSamples.empty())


@pytest.mark.parametrize("segment_bytes", [700, 1500, 9_000])
def test_segments_are_split_below_their_limit_and_read_as_one(segment_bytes: int) -> None:
    built = build(SAMPLES, segment_bytes=segment_bytes)
    segments = {path: data for path, data in built.files.items() if path.startswith("chunks/")}
    assert len(segments) > 1
    assert list(segments) == [f"chunks/{i + 1:06d}" for i in range(len(segments))]
    assert all(len(data) <= segment_bytes for data in segments.values())
    reader = open_files(built.files)
    assert reader.verify() == []
    assert to_python(reader.select([], *EVER)) == to_python(SAMPLES)
    with pytest.raises(InvariantViolated, match="longer than a segment"):
        build(SAMPLES, segment_bytes=100)


def _oracle(matchers: list[Matcher], start_ms: int, end_ms_incl: int) -> list:
    result = []
    for labels, samples in to_python(SAMPLES):
        kept = [s for s in samples if start_ms <= s[0] <= end_ms_incl]
        if kept and all(m.matches(labels.get(m.name, "")) for m in matchers):
            result.append((labels, kept))
    return result


MATCHERS = st.lists(
    st.builds(
        Matcher,
        st.sampled_from(list(MatchType)),
        st.sampled_from(["__name__", "job", "zone", "instance", "nope"]),
        st.sampled_from(["", "job-1", "metric_2", ".*", ".+", "job-[12]", "eu|", "host-00.", "ü", "metric_1|metric_3"]),
    ),
    max_size=4,
)


@settings(max_examples=120)
@given(MATCHERS, st.integers(-100, 1_300), st.integers(-10, 1_300))
def test_selection_equals_a_plain_python_one(matchers: list[Matcher], start: int, length: int) -> None:
    start_ms = 1_700_000_000_000 + start * 15_000
    end_ms = start_ms + length * 15_000
    reader = open_files(BUILT.files)
    assert to_python(reader.select(matchers, start_ms, end_ms)) == _oracle(matchers, start_ms, end_ms)
    expected = [labels for labels, _ in _oracle(matchers, *EVER)]
    assert reader.select_labels(matchers).to_dicts() == expected
    assert reader.label_names(matchers) == sorted({name for labels in expected for name in labels})
    assert reader.label_values("job", matchers) == sorted({v["job"] for v in expected if "job" in v})


@pytest.mark.parametrize("tombstones", [False, True])
def test_a_read_that_cuts_many_chunks_decodes_some_series_at_a_time(monkeypatch, tombstones: bool) -> None:
    """The samples are those of one go, also where the first series of a part has none in the range."""
    reader = open_files(BUILT.files)
    if tombstones:
        middle = int(np.median(SAMPLES.timestamps))
        reader.tombstones = {ref: [(middle - 100_000, middle)] for ref in reader.index.all_postings().tolist()}
    times = SAMPLES.timestamps
    ranges = [
        (int(times.min()) + 1, int(times.max()) - 1),
        *((int(t), int(t) + 60_000) for t in times[:: len(times) // 20]),
    ]
    whole = [to_python(reader.select([], *r)) for r in ranges]
    assert any(whole)
    parts = []
    read = BlockReader._read
    monkeypatch.setattr(BlockReader, "_read", lambda self, *args: parts.append(args[0].labels.n) or read(self, *args))
    monkeypatch.setattr(block_reader, "_MOST_CUT_CHUNKS", 1)
    assert [to_python(reader.select([], *r)) for r in ranges] == whole
    assert len(parts) > len(ranges)


def test_label_names_and_values_of_the_whole_block() -> None:
    reader = open_files(BUILT.files)
    assert reader.label_names() == ["__name__", "instance", "job", "zone"]
    assert reader.label_values("zone") == ["eu", "ü"]
    assert reader.label_values("nope") == []


def test_a_read_that_was_given_up_stops_between_parts_of_its_chunks(monkeypatch) -> None:
    """The third part is not decoded any more."""
    budget, decoded = SampleBudget(0), []

    def decode(data, starts, *rest) -> int:
        decoded.append(len(starts))
        if len(decoded) == 2:
            budget.end()
        return decode_xor(data, starts, *rest)

    monkeypatch.setattr(block_reader.xor_chunk, "decode_xor", decode)
    monkeypatch.setattr(block_reader, "_PART_CHUNKS", 3)
    whole = open_files(BUILT.files).select([], *EVER, SampleBudget(0))
    assert to_python(whole) == to_python(SAMPLES)
    assert len(decoded) > 3
    decoded.clear()
    budget = SampleBudget(0)
    with pytest.raises(QueryError, match="given up"):
        open_files(BUILT.files).select([], *EVER, budget)
    assert decoded == [3, 3]


def test_only_the_needed_ranges_of_a_segment_are_read() -> None:
    series = [({"a": f"{i:04d}"}, [(j, math.sin(i * 1000 + j)) for j in range(240)]) for i in range(400)]
    built = build(make_samples(series))
    segment = built.files["chunks/000001"]
    asked: list[tuple[int, int, int]] = []

    def read(number: int, start: int, end: int) -> bytes:
        asked.append((number, start, end))
        return segment[start:end]

    reader = BlockReader(built.files["index"], built.meta, read)
    found = reader.select([Matcher(REGEXP, "a", "0001|0399")], 130, 200)
    assert [len(s) for _, s in to_python(found)] == [71, 71]
    assert [number for number, _, _ in asked] == [0, 0]
    assert sum(end - start for _, start, end in asked) < len(segment) // 20
    asked.clear()
    reader.select([], *EVER)
    assert len(asked) == 1


def test_a_chunk_longer_than_the_first_guess_is_read_again() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(size=2000)
    built = build(make_samples([({"a": "1"}, list(enumerate(values.tolist())))]), samples_per_chunk=2000)
    assert len(built.files["chunks/000001"]) > 16_000
    verify_block(built.files)
    assert open_files(built.files).select([], *EVER).values.tolist() == values.tolist()
    built.files["chunks/000001"] = built.files["chunks/000001"][:9000]
    with pytest.raises(BlockCorrupt, match="chunks/000001: the file ends inside the chunk at byte 8"):
        open_files(built.files).select([], *EVER)


def test_tombstones_hide_samples() -> None:
    samples = make_samples([({"a": "1"}, [(t, 1.0) for t in range(10)]), ({"a": "2"}, [(t, 2.0) for t in range(10)])])
    files = dict(build(samples).files)
    refs = open_files(files).index.all_postings().tolist()
    files["tombstones"] = encode_tombstones({refs[0]: [(2, 4), (8, 20)], refs[1]: [(0, 9)], 12345: [(0, 9)]})
    found = to_python(open_files(files).select([], 1, 100))
    assert [(labels, [t for t, _ in kept]) for labels, kept in found] == [({"a": "1"}, [1, 5, 6, 7])]


INT64 = st.integers(-(2**63), 2**63 - 1)


@given(st.dictionaries(st.integers(0, 2**32), st.lists(st.tuples(INT64, INT64), min_size=1, max_size=3)))
def test_tombstones_round_trip(intervals: dict[int, list[tuple[int, int]]]) -> None:
    assert decode_tombstones(encode_tombstones(intervals)) == intervals


def test_a_tombstones_file_that_is_broken_is_refused() -> None:
    assert encode_tombstones() == bytes.fromhex("0130ba300100000000")
    good = encode_tombstones({5: [(1, 2)]})
    for bad in (b"", good[:-1], b"\0" + good[1:], good[:4] + b"\2" + good[5:], good[:6] + b"\x7f" + good[7:]):
        with pytest.raises(BlockCorrupt, match="tombstones"):
            decode_tombstones(bad)
    cut = bytes([0x85])
    with pytest.raises(BlockCorrupt, match="entry at byte 5"):
        decode_tombstones(good[:5] + cut + crc32c(cut).to_bytes(4, "big"))


def _with_frame(encoding: int, position: int = 0) -> dict[str, bytes]:
    """BUILT, with the encoding of one chunk changed and its checksum made good."""
    files = dict(BUILT.files)
    index = reference.read_index(files["index"])
    ref = [ref for _, chunks in index.series.values() for _, _, ref in chunks][position]
    segment = files["chunks/000001"]
    _, data, end = reference.read_frame(segment, ref)
    files["chunks/000001"] = segment[:ref] + reference.frame(encoding, data) + segment[end:]
    return files


def test_a_chunk_under_another_encoding_is_corrupt() -> None:
    for encoding in (2, 3):
        with pytest.raises(BlockCorrupt, match="chunks/000001: chunk at byte 8: "):
            open_files(_with_frame(encoding)).select([], *EVER)


def test_an_unknown_chunk_encoding_is_refused_by_name() -> None:
    reader = open_files(_with_frame(9))
    with pytest.raises(QueryError, match="chunk encoding 9 is not supported"):
        reader.select([], *EVER)
    assert any("encoding 9 of 1 chunks is not known" in line for line in reader.verify())


def test_every_flipped_bit_of_a_chunk_is_noticed() -> None:
    small = build(make_samples([({"a": "1"}, [(t, t * 0.1) for t in range(8)])]))
    segment = small.files["chunks/000001"]
    for bit in range(8 * 8, 8 * len(segment)):
        changed = bytearray(segment)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(BlockCorrupt, match="chunks/000001"):
            verify_block({**small.files, "chunks/000001": bytes(changed)})


@pytest.mark.parametrize("missing", ["chunks/000001", "index", "meta.json"])
def test_a_missing_file_is_named(missing: str) -> None:
    files = {path: data for path, data in BUILT.files.items() if path != missing}
    with pytest.raises(BlockCorrupt, match=f"{missing}: the file is missing"):
        verify_block(files)


def _meta(**changes: object) -> dict[str, bytes]:
    return {**BUILT.files, "meta.json": encode_meta({**BUILT.meta, **changes})}


@pytest.mark.parametrize(
    ("files", "problem"),
    [
        (_meta(stats={**BUILT.meta["stats"], "numSamples": 1}), r"stats.numSamples is 1, the block has \d+"),
        (_meta(stats={**BUILT.meta["stats"], "numSeries": 1}), "stats.numSeries is 1, the block has 40"),
        (_meta(stats={**BUILT.meta["stats"], "numChunks": 1}), "stats.numChunks is 1, the block has"),
        (_meta(maxTime=BUILT.meta["maxTime"] - 1), "do not include"),
        (_meta(minTime=BUILT.meta["minTime"] + 1), "do not include"),
    ],
)
def test_a_meta_json_that_contradicts_the_block_is_a_problem(files: dict[str, bytes], problem: str) -> None:
    with pytest.raises(BlockCorrupt, match=problem):
        verify_block(files)


def _index_of(change: str) -> bytes:
    """An index with good checksums that does not fit the chunks, or itself."""
    index = reference.read_index(BUILT.files["index"])
    series = list(index.series.values())
    if change == "times":
        labels, chunks = series[3]
        series[3] = labels, [(chunks[0][0] - 1, *chunks[0][1:]), *chunks[1:]]
    elif change == "order":
        series[3], series[4] = series[4], series[3]
    elif change == "twice":
        series[3] = series[4]
    return reference.write_index(series)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ("nothing", None),
        ("times", "does not hold the times that the index says"),
        ("order", "is not in label order"),
        ("twice", "a label set occurs twice"),
    ],
)
def test_an_index_that_contradicts_itself_or_the_chunks_is_a_problem(change: str, problem: str | None) -> None:
    found = open_files({**BUILT.files, "index": _index_of(change)}).verify()
    if problem is None:
        assert found == []
    else:
        assert any(problem in line for line in found)


def test_postings_that_miss_a_series_are_a_problem() -> None:
    index = bytearray(BUILT.files["index"])
    twin = reference.read_index(bytes(index))
    wanted = twin.postings[b"job", b"job-1"]
    body = len(wanted).to_bytes(4, "big") + b"".join(ref.to_bytes(4, "big") for ref in wanted)
    at = bytes(index).index(body)
    others = [ref for ref in twin.series if ref not in wanted]
    changed = sorted([*wanted[1:], others[0]])
    body = len(changed).to_bytes(4, "big") + b"".join(ref.to_bytes(4, "big") for ref in changed)
    index[at : at + len(body) + 4] = body + reference.crc32c(body)
    (problem,) = open_files({**BUILT.files, "index": bytes(index)}).verify()
    assert "for job='job-1' differs from the series with that label" in problem


def test_index_versions_other_than_2_are_named() -> None:
    index = bytearray(BUILT.files["index"])
    index[4] = 1
    with pytest.raises(BlockCorrupt, match="index: version 1 at byte 4, only 2 is known"):
        open_files({**BUILT.files, "index": bytes(index)})


@pytest.mark.parametrize(
    "document",
    [
        b"{",
        b"[]",
        b'{"version": 2}',
        b'{"version": 1, "ulid": "x"}',
        b'{"version": 1, "ulid": "01ARYZ6S41TSV4RRFFQ69G5FAV", "minTime": "1", "maxTime": 2}',
        b'{"version": 1, "ulid": "01ARYZ6S41TSV4RRFFQ69G5FAV", "minTime": 1, "maxTime": 2, "stats": 5}',
    ],
)
def test_a_meta_json_that_is_none_is_refused(document: bytes) -> None:
    with pytest.raises(BlockCorrupt, match=r"meta\.json"):
        decode_meta(document)


def test_a_block_of_someone_else_has_no_place_in_our_log() -> None:
    meta = read_meta({"version": 1, "ulid": BUILT.ulid, "minTime": 1, "maxTime": 5, "thanos": {"labels": {"a": "b"}}})
    assert meta.partition_range is None
    assert meta.external_labels == {"a": "b"}
    assert meta.overlaps(4, 5)
    assert not meta.overlaps(5, 9)
    assert not meta.overlaps(0, 1)


def test_the_summary_counts_labels_and_metrics() -> None:
    summary = block_tools.inspect(open_files(BUILT.files))
    pairs = {pair for labels, _ in SERIES for pair in labels.items()}
    assert summary.label_pair_count == len(pairs)
    assert summary.postings_entry_count == sum(len(labels) for labels, _ in SERIES)
    assert summary.metric_counts == [(f"metric_{i}", 10) for i in range(4)]
    assert summary.label_name_counts[0] == ("instance", 40)
    assert summary.series_count == 40
    assert summary.partition_range is not None
    assert summary.partition_range.cut_offset == 42


def test_decode_is_one_call_for_all_chunks() -> None:
    """The reader's answer for one series equals decoding its chunks by hand."""
    reader = open_files(BUILT.files)
    entries = reader.index.series(reader.index.all_postings()[:1])
    data = reader.read_all_chunks(entries)
    offsets = np.array([0, 120, 240, SAMPLES.offsets[1]])
    timestamps, values = np.empty(offsets[-1], np.int64), np.empty(offsets[-1])
    assert decode_xor(data.buffer, data.starts, data.ends, offsets, timestamps, values) == offsets[-1]
    assert timestamps.tolist() == SAMPLES.timestamps[: offsets[-1]].tolist()
