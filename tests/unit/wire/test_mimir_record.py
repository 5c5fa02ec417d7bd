import contextlib
import struct
import tracemalloc
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimir_ingest.errors import InvariantViolated, RecordCorrupt, RecordVersionUnsupported
from mimir_ingest.model.batch import WriteBatch
from mimir_ingest.wire import symbolized
from mimir_ingest.wire.mimir_record import COMMON_SYMBOLS, decode_mimir, encode_mimir
from mimir_ingest.wire.record import VERSION_CONTROL, decode
from tests.reference import hashing
from tests.reference import symbolized as reference
from tests.reference.varint import Refused, put
from tests.support.protobuf_schema import WriteRequest
from tests.support.random_batches import BATCHES, BITS, TIMES, batch_of, content, label_bytes, starts_of

KNOWN = dict(enumerate(COMMON_SYMBOLS))
STARTS = st.sampled_from([0, 0, 1_789_999_999_000, -1])
STRINGS = st.sampled_from([b"", b"up", b"pod", b"__name__", b"job", b"default/kubernetes"]) | st.binary(max_size=150)


@given(BATCHES, st.integers(0, 1))
def test_versions_0_and_1_survive_bit_for_bit(batch, version):
    series, metadata, source = content(decode(version, encode_mimir(batch, version)).batch)
    assert (series, metadata, source) == content(batch)
    assert decode(version, encode_mimir(batch, version)).settings is None


@given(BATCHES)
def test_the_protobuf_library_writes_the_same_bytes(batch):
    request = WriteRequest()
    request.ParseFromString(encode_mimir(batch, 0))
    assert not list(request.symbols)
    assert request.SerializeToString() == encode_mimir(batch, 0)
    series, metadata, source = content(batch)
    rows = []
    for one in request.timeseries:
        labels = label_bytes((label.name, label.value) for label in one.labels)
        samples = [(s.timestamp, struct.pack("<d", s.value)) for s in one.samples]
        rows.append((labels, hashing.xxh64(labels), samples))
    assert rows == series
    assert [(m.type, m.metric_family_name, m.help, m.unit) for m in request.metadata] == metadata
    assert request.source == source


@given(BATCHES, st.data())
def test_the_first_start_of_a_series_is_when_it_was_created(batch, data):
    starts = data.draw(st.lists(STARTS, min_size=batch.sample_count, max_size=batch.sample_count))
    value = encode_mimir(replace(batch, starts=np.array(starts, np.int64)), 1)
    request = WriteRequest()
    request.ParseFromString(value)
    bounds = batch.sample_offsets.tolist()
    first = [next(filter(None, starts[a:b]), 0) for a, b in pairwise(bounds)]
    assert [one.created_timestamp for one in request.timeseries] == first
    wanted = [[at] * (b - a) for at, (a, b) in zip(first, pairwise(bounds), strict=True)]
    assert starts_of(decode(1, value).batch) == wanted
    assert request.SerializeToString() == value


def test_deltas_have_no_place_in_mimirs_records():
    batch = batch_of([([(b"a", b"b")], [(5, bytes(8))])])
    with pytest.raises(InvariantViolated, match="deltas"):
        encode_mimir(replace(batch, deltas=np.array([True])), 1)


def test_label_bytes_that_are_none_are_a_bug_of_ours():
    batch = WriteBatch(
        *[np.array(a, t) for a, t in (([9], "u1"), ([0, 1], "i8"), ([0], "u8"), ([0, 0], "i8"))],
        *[np.empty(0, t) for t in ("i8", "f8")],
    )
    with pytest.raises(InvariantViolated, match="series 0 of a batch has malformed label bytes"):
        encode_mimir(batch, 0)


def same(body: bytes, known=COMMON_SYMBOLS, slots=64) -> bool:
    """Check a symbolised body against the twin, errors included; return whether it decodes."""
    refused = ""
    try:
        expected = reference.decode(body, dict(enumerate(known)), slots)
    except Refused as error:
        refused = str(error)
    if refused:
        with pytest.raises(symbolized.InvalidRequest) as caught:
            symbolized.decode(body, known, slots)
        assert caught.value.message == refused
        return False
    got = symbolized.decode(body, known, slots)
    series, metadata, source = content(got.batch)
    assert series == [(labels, hashing.xxh64(labels), samples) for labels, samples in expected.series]
    assert starts_of(got.batch) == expected.starts
    assert metadata == expected.metadata
    assert source == expected.source
    assert (got.exemplar_count, got.histogram_count) == (expected.exemplars, expected.histograms)
    flags = (got.skip_label_name_validation, got.skip_label_count_validation)
    assert flags == (expected.skip_names, expected.skip_count)
    return True


def test_the_example_of_the_specification():
    request = WriteRequest(symbols=[b"", b"up", b"a"])
    request.timeseries_rw2.add(labels_refs=[1, 65, 19, 66])
    series, _, _ = content(decode(2, request.SerializeToString()).batch)
    assert series[0][0] == label_bytes([(b"__name__", b"up"), (b"job", b"a")])


@pytest.mark.parametrize(
    ("ref", "text"), [(0, ""), (1, "__name__"), (19, "job"), (28, "kube-system"), (35, "default/kubernetes")]
)
def test_common_references_mean_what_the_specification_says(ref, text):
    assert COMMON_SYMBOLS[ref].decode() == text
    assert len(COMMON_SYMBOLS) == 36


SAMPLES = st.lists(st.tuples(TIMES, BITS), max_size=3)


@st.composite
def requests(draw):
    """A request of the protobuf library, with references that are valid."""
    own = [b"", *draw(st.lists(STRINGS, max_size=6))]
    request = WriteRequest(symbols=own, source=draw(st.integers(0, 3)), skip_label_validation=draw(st.booleans()))
    refs = st.sampled_from([*range(36), *range(64, 64 + len(own)), *range(64, 64 + len(own)), 1, 1])
    for _ in range(draw(st.integers(0, 5))):
        pairs = draw(st.lists(st.tuples(refs, refs), max_size=6))
        one = request.timeseries_rw2.add(
            labels_refs=[ref for pair in pairs for ref in pair], created_timestamp=draw(st.integers(0, 2))
        )
        for timestamp, bits in draw(SAMPLES):
            one.samples.add(timestamp=timestamp, value=struct.unpack("<d", bits)[0], start_timestamp=draw(STARTS))
        if draw(st.booleans()):
            one.metadata.type = draw(st.integers(0, 9))
            one.metadata.help_ref, one.metadata.unit_ref = draw(refs), draw(refs)
        if draw(st.booleans()):
            one.exemplars.add(labels_refs=[draw(refs), draw(refs)], value=1, timestamp=2)
            one.histograms.add(count_int=3, positive_deltas=[1, -2]).positive_spans.add(offset=-1, length=2)
    return request


@given(requests())
def test_symbolised_bodies_of_the_protobuf_library_decode_to_the_definitions_columns(request):
    assert same(request.SerializeToString())


@given(requests())
def test_a_request_without_common_symbols_decodes_too(request):
    for one in request.timeseries_rw2:
        refs = [max(0, ref - 64) for ref in one.labels_refs]
        one.ClearField("labels_refs")
        one.labels_refs.extend(refs)
    same(request.SerializeToString(), (), 0)


def typical() -> WriteRequest:
    request = WriteRequest(symbols=[b"", b"up", b"a", b"help text", b"b" * 140], source=1)
    for refs in ([1, 65, 19, 66], [19, 68, 1, 65], [1, 65, 18, 64, 20, 66, 20, 65]):
        one = request.timeseries_rw2.add(labels_refs=refs)
        one.samples.add(value=1.5, timestamp=1_790_000_000_000, start_timestamp=1_789_999_000_000)
        one.metadata.type, one.metadata.help_ref = 1, 67
    one.exemplars.add(labels_refs=[19, 66], value=1, timestamp=3)
    one.histograms.add(count_int=3, sum=2.5, positive_deltas=[1, -2]).positive_spans.add(offset=-4, length=3)
    return request


def field(number, kind, body=b""):
    return put(number << 3 | kind) + (put(len(body)) + body if kind == 2 else body)


def series(body):
    return field(5, 2, body)


CASES = {
    "proto: Remote Write 1.0 field Timeseries in non-Remote Write 1.0 message": field(1, 2, b""),
    "proto: Remote Write 1.0 field Metadata in non-Remote Write 1.0 message": field(3, 2, b""),
    "proto: Remote Write 2.0 symbols must start with empty string": field(4, 2, b"x"),
    "proto: Remote Write 2.0 odd number of label references": series(field(1, 2, b"\x01")),
    "proto: Remote Write 2.0 odd number of exemplar label references": series(field(4, 2, field(1, 2, b"\x01"))),
    "proto: Remote Write 2.0 invalid label reference": series(field(1, 2, b"\x01\x24")),
    "proto: Remote Write 2.0 invalid exemplar label reference": series(field(4, 2, field(1, 0, b"\x40"))),
    "proto: Remote Write 2.0 invalid help reference": series(field(5, 2, field(3, 0, b"\x40"))),
    "proto: Remote Write 2.0 invalid unit reference": series(field(5, 2, field(4, 0, b"\xff\xff\xff\xff\x0f"))),
    "proto: wrong wireType = 1 for field LabelsRefs": series(field(1, 1, bytes(8))),
    "proto: wrong wireType = 0 for field Samples": series(field(2, 0, b"\x01")),
    "proto: wrong wireType = 2 for field CreatedTimestamp": series(field(6, 2)),
    "proto: wrong wireType = 2 for field HelpRef": series(field(5, 2, field(3, 2))),
    "proto: wrong wireType = 0 for field SymbolsRW2": field(4, 0, b"\x01"),
    "proto: wrong wireType = 0 for field TimeseriesRW2": field(5, 0, b"\x01"),
    "proto: TimeSeriesRW2: illegal tag 0 (wire type 0)": series(b"\x00\x00"),
    "unexpected EOF": series(field(1, 2, b"\x81")),
}


@pytest.mark.parametrize(("text", "body"), CASES.items())
def test_refusals_have_mimirs_texts(text, body):
    assert not same(body)
    with pytest.raises(RecordCorrupt) as caught:
        decode_mimir(2, body)
    assert caught.value.message == f"record of version 2: {text}"


@pytest.mark.parametrize(
    "body",
    [
        field(4, 2) + series(field(1, 0, b"\x01") + field(1, 2, b"\x13\x13") + field(1, 0, b"\x01")),
        series(field(1, 2, b"\x01\x41")) + field(4, 2) + field(4, 2, b"late"),
        series(field(1, 2, b"\x01\x13") + field(5, 2, field(1, 0, b"\x01")) + field(5, 2, field(3, 0, b"\x04"))),
        series(field(5, 2, field(1, 0, b"\x01"))),
        series(field(5, 2) + field(1, 2, b"\x01\x13")),
        series(field(1, 2, b"\x01\x13\x01\x04") + field(5, 2, field(1, 0, b"\x02"))),
        series(field(1, 2, b"\x81\x80\x80\x80\x70\x13")),
        series(b"") * 3 + field(99, 2, b"unknown"),
        b"",
    ],
)
def test_unusual_but_valid_bodies(body):
    assert same(body)


def test_every_truncation_and_every_flipped_bit_ends_as_the_definition_says():
    body = typical().SerializeToString()
    assert same(body)
    assert sum(same(body[:end]) for end in range(len(body))) < 12  # only where a top-level field ends
    refused = 0
    for at in range(len(body)):
        for bit in range(8):
            refused += not same(body[:at] + bytes([body[at] ^ 1 << bit]) + body[at + 1 :])
    assert refused > 500


@given(st.data())
@settings(max_examples=300)
def test_mutated_bodies_end_as_the_definition_says(data):
    body = bytearray(typical().SerializeToString())
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(body)))
        piece = data.draw(st.binary(min_size=1, max_size=11))
        match data.draw(st.sampled_from(["set", "insert", "delete", "repeat"])):
            case "set":
                body[at : at + len(piece)] = piece
            case "insert":
                body[at:at] = piece
            case "delete":
                del body[at : at + len(piece)]
            case "repeat":
                body[at:at] = body[at : at + 30]
    same(bytes(body))


@given(st.integers(0, 2), st.binary(max_size=200))
def test_any_bytes_are_a_batch_or_corrupt(version, value):
    with contextlib.suppress(RecordCorrupt):
        content(decode(version, value).batch)


@pytest.mark.parametrize("version", [0, 1])
def test_damaged_values_of_versions_0_and_1_are_a_batch_or_corrupt(version):
    request = WriteRequest(source=1)
    one = request.timeseries.add()
    one.labels.add(name=b"__name__", value=b"up")
    one.samples.add(value=1.5, timestamp=1_790_000_000_000)
    request.metadata.add(type=1, metric_family_name=b"up", help=b"h", unit=b"u")
    value = request.SerializeToString()
    flips = [value[:i] + bytes([value[i] ^ 1 << b]) + value[i + 1 :] for i in range(len(value)) for b in range(8)]
    corrupt = 0
    for damaged in [*(value[:end] for end in range(len(value))), *flips]:
        try:
            content(decode(version, damaged).batch)
        except RecordCorrupt:
            corrupt += 1
    assert corrupt > 50


def test_references_cannot_stand_for_more_than_the_bound():
    megabyte = [b"", b"x" * (1 << 20)]
    labels = WriteRequest(symbols=megabyte)
    for _ in range(6):
        labels.timeseries_rw2.add(labels_refs=[1, 65] * 100)
    metadata = WriteRequest(symbols=megabyte)
    for i in range(36):
        for j in range(8):
            one = metadata.timeseries_rw2.add(labels_refs=[1, max(i, 1)])
            one.metadata.type, one.metadata.help_ref, one.metadata.unit_ref = j, 65, 65
    for request in (labels, metadata):
        value = request.SerializeToString()
        tracemalloc.start()
        with pytest.raises(RecordCorrupt, match=r"once references are resolved, over 536870912"):
            decode_mimir(2, value)
        assert tracemalloc.get_traced_memory()[1] < 64 << 20
        tracemalloc.stop()


@pytest.mark.parametrize("version", [3, 2**32 - 1, VERSION_CONTROL, -1])
def test_an_unknown_version_stops_the_reader(version):
    for function in (decode, decode_mimir):
        with pytest.raises(RecordVersionUnsupported, match=f"record version {version} is not known"):
            function(version, b"")


@pytest.mark.parametrize("version", [2, 3])
def test_only_versions_0_and_1_are_written(version):
    with pytest.raises(RecordVersionUnsupported, match="does not write"):
        encode_mimir(WriteBatch.empty(), version)
