"""Native histograms on the wire: the protobuf library and plain twins judge every decoder and encoder."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimir_ingest.errors import QueryError, RecordCorrupt, RecordVersionUnsupported
from mimir_ingest.model.samples import SampleBudget, SeriesSamples, without_empty_series
from mimir_ingest.tsdb.segment import FoundSamples
from mimir_ingest.wire import remote_write_v1, symbolized
from mimir_ingest.wire.columnar import decode_columnar
from mimir_ingest.wire.read_frames import FrameReader
from mimir_ingest.wire.read_response import encode_frames, encode_samples
from mimir_ingest.wire.record import (
    VERSION_COLUMNAR,
    VERSION_V0,
    VERSION_V1,
    VERSION_V2,
    RecordSettings,
    decode,
    encode_columnar,
    encode_mimir,
    split_for_size,
)
from tests.reference import histogram_wire as reference
from tests.support.histograms import STALE_BITS, Row, as_rows, histogram_rows, put_histogram, stored
from tests.support.native_series import make_series, native_samples
from tests.support.protobuf_schema import ReadResponse, WriteRequest
from tests.support.random_batches import TIMES, batch_of, content, histogram_batches, histograms_of

VERSIONS = [VERSION_COLUMNAR, VERSION_V0, VERSION_V1]
ROWS = histogram_rows()


def encode(batch, version):
    return encode_columnar(batch, RecordSettings()) if version == VERSION_COLUMNAR else encode_mimir(batch, version)


@settings(deadline=None)
@given(histogram_batches(), st.sampled_from(VERSIONS))
def test_a_batch_with_histograms_survives_in_every_version_that_is_written(batch, version):
    got = decode(version, encode(batch, version)).batch
    assert content(got) == content(batch)
    wanted = histograms_of(batch.histograms)
    assert histograms_of(got.histograms) == (wanted if any(wanted) else [])


@settings(deadline=None)
@given(histogram_batches())
def test_the_protobuf_library_reads_our_histograms_and_writes_the_same_bytes(batch):
    request = WriteRequest()
    body = encode_mimir(batch, VERSION_V0)
    request.ParseFromString(body)
    assert request.SerializeToString() == body
    found = [[reference.decode(h) for h in series.histograms] for series in request.timeseries]
    assert [[(t, row) for t, row, *_ in series] for series in found] == histograms_of(batch.histograms)
    assert not any(problem for series in found for _, _, problem, *_ in series)


@settings(deadline=None)
@given(histogram_batches(), st.sampled_from(VERSIONS), st.integers(200, 4000))
def test_parts_with_histograms_keep_the_limit_and_lose_nothing(batch, version, max_bytes):
    parts = [p for p in split_for_size(batch, version, max_bytes) if p.series_count]
    assert [rows for part in parts for rows in histograms_of(part.histograms)] == histograms_of(batch.histograms)
    for part in parts:
        assert len(encode(part, version)) <= max_bytes or part.series_count == 1


SPANS = st.lists(st.tuples(st.integers(-3, 4) | st.sampled_from([-(2**31), 2**31 - 1]), st.integers(0, 4)), max_size=4)


@st.composite
def messages(draw, message):
    """Fill a Histogram with anything, consistent or not."""
    if draw(st.booleans()):
        put_histogram(message, draw(TIMES), draw(ROWS))
    else:
        message.timestamp, message.schema = (
            draw(TIMES),
            draw(st.sampled_from([-53, -4, 0, 8, 9, 127, 128, -128, 2**31 - 1])),
        )
        message.reset_hint, message.sum = draw(st.integers(0, 5)), draw(st.floats(allow_nan=False))
        for field in ("count_int", "zero_count_int"):
            if draw(st.booleans()):
                setattr(message, field, draw(st.integers(0, 2**64 - 1)))
        for field in ("count_float", "zero_count_float"):
            if draw(st.booleans()):
                message.ClearField(field.replace("float", "int"))
                setattr(message, field, draw(st.floats(allow_nan=False)))
        message.custom_values.extend(draw(st.lists(st.floats(allow_nan=False), max_size=3)))
        for side in ("negative", "positive"):
            getattr(message, f"{side}_deltas").extend(draw(st.lists(st.integers(-9, 2**62), max_size=6)))
            getattr(message, f"{side}_counts").extend(draw(st.lists(st.floats(allow_nan=False), max_size=6)))
    if draw(st.booleans()):
        for side in ("negative", "positive"):
            spans = getattr(message, f"{side}_spans")
            del spans[:]
            for offset, length in draw(SPANS):
                spans.add(offset=offset, length=length)


def same(found, facts, expected):
    """Compare decoded histograms with the twin's."""
    assert found.timestamps.tolist() == [t for t, *_ in expected]
    assert as_rows(found.values) == [row for _, row, *_ in expected]
    assert facts.schema.tolist() == [schema for *_, schema, _ in expected]
    assert facts.buckets.tolist() == [received for *_, received in expected]
    problems = [(int(p), *d) if p else None for p, d in zip(facts.problem, facts.details.tolist(), strict=True)]
    assert problems == [problem for _, _, problem, *_ in expected]


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_any_histograms_of_the_protobuf_library_decode_as_the_twin_says(data):
    request, symbolic = WriteRequest(), WriteRequest()
    symbolic.symbols.append(b"")
    for _ in range(data.draw(st.integers(1, 3))):
        row, other = request.timeseries.add(), symbolic.timeseries_rw2.add()
        for _ in range(data.draw(st.integers(0, 3))):
            message = row.histograms.add()
            data.draw(messages(message))
            other.histograms.add().CopyFrom(message)
    expected = [[reference.decode(h) for h in series.histograms] for series in request.timeseries]
    flat = [one for series in expected for one in series]
    for write in (
        remote_write_v1.decode(request.SerializeToString()),
        symbolized.decode(symbolic.SerializeToString()),
    ):
        assert write.histogram_count == len(flat)
        if not flat:
            assert write.batch.histograms is None
            continue
        assert write.batch.histograms.offsets.tolist() == np.cumsum([0, *map(len, expected)]).tolist()
        same(write.batch.histograms, write.histogram_facts, flat)


def test_histograms_of_version_2_are_read():
    request = WriteRequest()
    request.symbols.extend([b"", b"lat"])
    row = request.timeseries_rw2.add(labels_refs=[1, 65])
    one = Row(3, 1, False, 0.001, 2.0, 7.0, 0, (), ((4, 5.0),))
    put_histogram(row.histograms.add(), 17, one)
    got = decode(VERSION_V2, request.SerializeToString()).batch
    assert histograms_of(got.histograms) == [[(17, one)]]


def small():
    rows = [
        Row(3, 1, True, 0.5, 1.0, 4.0, 0, ((-2, 1.0),), ((0, 1.5), (7, 0.5))),
        Row(-53, 0, False, 0.0, 0.0, 2.0, 5, (), ((0, 2.0),), (1.5,)),
    ]
    series = [([(b"a", b"b")], [(5, bytes(8))]), ([(b"a", b"c")], [])]
    return batch_of(series, histograms=[[(5, rows[0])], [(6, rows[1]), (7, rows[0])]])


def refused(value: bytes) -> bool:
    try:
        batch, _ = decode_columnar(value)
    except (RecordCorrupt, RecordVersionUnsupported):
        return True
    content(batch)
    histograms_of(batch.histograms)
    return False


def test_every_truncation_and_flipped_bit_of_a_record_with_histograms_is_an_error_of_ours_or_a_batch():
    value = encode_columnar(small(), RecordSettings())
    assert not refused(value)
    kept = [end for end in range(len(value)) if not refused(value[:end])]
    assert all(value[end:] == bytes(len(value) - end) and len(value) - end < 8 for end in kept)
    count = 0
    for at in range(len(value)):
        for bit in range(8):
            count += refused(value[:at] + bytes([value[at] ^ 1 << bit]) + value[at + 1 :])
    assert count > 2000


def test_layout_1_has_no_histograms_and_layout_2_is_written_only_with_them():
    value = encode_columnar(small(), RecordSettings())
    assert value[:2] == b"\2\0"
    with pytest.raises(RecordVersionUnsupported, match="record section 10 of form 0 is not known"):
        decode_columnar(b"\1" + value[1:])
    without = batch_of([([(b"a", b"b")], [(5, bytes(8))])], histograms=[[]])
    assert encode_columnar(without, RecordSettings())[:2] == b"\1\0"


def selection() -> SeriesSamples:
    """Series of every kind, as a selection gives them."""
    return native_samples(make_series(1_700_000_000_000, 90))


def hintless(samples):
    return [[(t, row._replace(reset_hint=0)) for t, row in rows] for rows in histograms_of(samples.histograms)]


@pytest.mark.parametrize("limit", [300, 1 << 20])
def test_streamed_answers_with_histograms_are_read_back(limit):
    samples = selection()
    reader = FrameReader(budget=SampleBudget(0), start_ms=0, end_ms=1 << 62)
    for piece in encode_frames(samples, 0, max_frame_bytes=limit):
        reader.feed(piece)
    found = reader.finish()
    assert found.labels.to_dicts() == samples.labels.to_dicts()
    assert found.offsets.tolist() == samples.offsets.tolist()
    assert found.timestamps.tolist() == samples.timestamps.tolist()
    assert found.values.tobytes() == samples.values.tobytes()
    assert hintless(found) == hintless(samples)


@pytest.mark.parametrize("window", [(0, 1 << 62), (1_700_000_100_000, 1_700_001_000_000)])
def test_streamed_answers_have_the_hints_with_which_their_histograms_were_read(window):
    """Among them chunks that were cut by size, longer ones than are written, and beginnings within one."""
    read = native_samples(make_series(1_700_000_000_000, 150) + steady(1_700_000_000_000, 300))
    found = FoundSamples(read.offsets, read.timestamps, read.values, read.histograms).as_read().histograms
    inside = (found.timestamps >= window[0]) & (found.timestamps < window[1])
    samples = without_empty_series(replace(read, histograms=found.keep(inside)))
    reader = FrameReader(budget=SampleBudget(0), start_ms=0, end_ms=1 << 62)
    for piece in encode_frames(samples, 0):
        reader.feed(piece)
    assert histograms_of(reader.finish().histograms) == histograms_of(samples.histograms)


def steady(first_ms: int, length: int) -> list:
    """A series whose histograms take so few bytes that Prometheus has hundreds in a chunk."""
    rows = [Row(3, 0, False, 0.0, 0.0, 2.0, 5, (), ((1, 2.0),))] * length
    return [({"__name__": "latency_steady"}, [(first_ms + 15_000 * i, row) for i, row in enumerate(rows)])]


def test_one_message_with_all_samples_has_the_histograms_for_the_protobuf_library():
    samples = selection()
    response = ReadResponse()
    response.ParseFromString(encode_samples([samples]))
    found = [[reference.decode(h)[:2] for h in series.histograms] for series in response.results[0].timeseries]
    assert [[(t, stored(row)) for t, row in rows] for rows in found] == hintless(samples)
    assert any(row.sum_bits == STALE_BITS for rows in found for _, row in rows)


def test_a_budget_is_taken_from_before_histograms_are_decoded():
    samples = selection()
    reader = FrameReader(budget=SampleBudget(samples.sample_count + 100), start_ms=0, end_ms=1 << 62)
    stream = b"".join(encode_frames(samples, 0))
    with pytest.raises(QueryError, match="too many samples"):
        reader.feed(stream)
