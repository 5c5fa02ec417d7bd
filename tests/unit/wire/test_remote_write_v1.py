import struct
import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimir_ingest.errors import InvalidRequest
from mimir_ingest.model.batch import STALE_NAN_BITS
from mimir_ingest.wire.remote_write_v1 import decode
from tests.reference import hashing
from tests.reference import remote_write as reference
from tests.reference.varint import put
from tests.support.protobuf_schema import WriteRequest
from tests.support.random_batches import starts_of

NAMES = st.one_of(
    st.sampled_from([b"__name__", b"job", b"instance", b"le", b"instance_id", b"a"]), st.binary(max_size=200)
)
VALUES = st.binary(max_size=200)
TIMES = st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(1_600_000_000_000, 1_900_000_000_000))
BITS = st.one_of(st.floats().map(lambda v: struct.pack("<d", v)), st.just(struct.pack("<Q", STALE_NAN_BITS)))
LABELS = st.lists(st.tuples(NAMES, VALUES), max_size=8)


def message(series, metadata=(), **fields):
    request = WriteRequest(**fields)
    for number, (labels, samples) in enumerate(series):
        one = request.timeseries.add(created_timestamp=number // 2)
        for name, value in labels:
            one.labels.add(name=name, value=value)
        for timestamp, bits in samples:
            one.samples.add(value=struct.unpack("<d", bits)[0], timestamp=timestamp)
    for kind, family, text, unit in metadata:
        request.metadata.add(type=kind, metric_family_name=family, help=text, unit=unit)
    return request


def rows(batch):
    """Return what a batch holds in the twin's form."""
    labels, bits = batch.labels.tobytes(), batch.values.view(np.uint64)
    out = []
    for i in range(batch.series_count):
        span = range(*batch.sample_offsets[i : i + 2].tolist())
        samples = [(int(batch.timestamps[j]), struct.pack("<Q", int(bits[j]))) for j in span]
        out.append((labels[batch.label_offsets[i] : batch.label_offsets[i + 1]], samples))
    text, ends = batch.metadata.text.tobytes(), batch.metadata.offsets.tolist()
    strings = [text[a:b] for a, b in pairwise(ends)]
    metadata = [(int(kind), *strings[3 * i : 3 * i + 3]) for i, kind in enumerate(batch.metadata.types)]
    return out, metadata


def same(body):
    """Check a body against the twin, errors included; return whether it decodes."""
    refused = ""
    try:
        expected = reference.decode(body)
    except reference.Refused as error:
        refused = str(error)
    if refused:
        with pytest.raises(InvalidRequest) as caught:
            decode(body)
        assert caught.value.message == refused
        return False
    got = decode(body)
    assert rows(got.batch) == (expected.series, expected.metadata)
    assert starts_of(got.batch) == expected.starts
    assert got.batch.hashes.tolist() == [hashing.xxh64(labels) for labels, _ in expected.series]
    assert (got.exemplar_count, got.histogram_count) == (expected.exemplars, expected.histograms)
    assert got.batch.source == expected.source
    assert (got.skip_label_name_validation, got.skip_label_count_validation) == (
        expected.skip_names,
        expected.skip_count,
    )
    return True


SERIES = st.lists(st.tuples(LABELS, st.lists(st.tuples(TIMES, BITS), max_size=4)), max_size=5)
METADATA = st.lists(st.tuples(st.integers(0, 9), VALUES, VALUES, VALUES), max_size=4)


@given(SERIES, METADATA, st.integers(0, 3), st.booleans(), st.booleans())
def test_bodies_of_the_protobuf_library_decode_to_the_same_columns(series, metadata, source, names, count):
    request = message(series, metadata, source=source, skip_label_validation=names, skip_label_count_validation=count)
    assert same(request.SerializeToString())
    got, items = rows(decode(request.SerializeToString()).batch)
    assert [samples for _, samples in got] == [[(t, b) for t, b in samples] for _, samples in series]
    assert items == [(kind if kind < 8 else 0, *strings) for kind, *strings in metadata]
    for (canonical, _), (labels, _) in zip(got, series, strict=True):
        kept = sorted(((n, v) for n, v in labels if v), key=lambda pair: pair[0])
        assert canonical == b"".join(put(len(x)) + x for pair in kept for x in pair)


def typical() -> WriteRequest:
    labels = [(b"__name__", b"up"), (b"instance", b"localhost:9090"), (b"job", b"prometheus"), (b"long", b"x" * 200)]
    request = message(
        [(labels, [(1_790_000_000_000, struct.pack("<d", 1.5))])] * 2 + [(labels[::-1], [])],
        [(1, b"up", b"whether it is up", b"bool")],
    )
    request.timeseries[0].created_timestamp = 1_789_999_999_000
    exemplar = request.timeseries[0].exemplars.add(value=3, timestamp=5)
    exemplar.labels.add(name=b"trace_id", value=b"abc")
    histogram = request.timeseries[1].histograms.add(
        count_int=3, sum=2.5, schema=-1, zero_threshold=1e-9, positive_deltas=[1, -2, 3], custom_values=[0.5, 1.5]
    )
    histogram.positive_spans.add(offset=-4, length=3)
    return request


def test_every_truncation_ends_as_the_definition_says():
    body = typical().SerializeToString()
    assert same(body)
    decoded = sum(same(body[:end]) for end in range(len(body)))
    assert decoded < 8  # only where a top-level field ends


def test_every_flipped_bit_ends_as_the_definition_says():
    body = typical().SerializeToString()
    refused = 0
    for at in range(len(body)):
        for bit in range(8):
            refused += not same(body[:at] + bytes([body[at] ^ 1 << bit]) + body[at + 1 :])
    assert refused > 100


@given(st.binary(max_size=300))
@settings(max_examples=300)
def test_any_bytes_end_as_the_definition_says(body):
    same(body)


@given(st.data())
@settings(max_examples=300)
def test_mutated_bodies_end_as_the_definition_says(data):
    body = bytearray(typical().SerializeToString())
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(st.integers(0, len(body)))
        kind = data.draw(st.sampled_from(["set", "insert", "delete", "repeat"]))
        piece = data.draw(st.binary(min_size=1, max_size=11))
        if kind == "set":
            body[at : at + len(piece)] = piece
        elif kind == "insert":
            body[at:at] = piece
        elif kind == "delete":
            del body[at : at + len(piece)]
        else:
            body[at:at] = body[at : at + 30]
    same(bytes(body))


def field(number, kind, content=b""):
    return put(number << 3 | kind) + (put(len(content)) + content if kind == 2 else content)


LABEL = field(1, 2, field(1, 2, b"a") + field(2, 2, b"b"))
CASES = {
    "proto: wrong wireType = 0 for field Timeseries": field(1, 0, b"\x00"),
    "proto: wrong wireType = 2 for field Source": field(2, 2),
    "proto: wrong wireType = 1 for field Metadata": field(3, 1, bytes(8)),
    "proto: wrong wireType = 2 for field SkipLabelValidation": field(1000, 2),
    "proto: wrong wireType = 5 for field Labels": field(1, 2, field(1, 5, bytes(4))),
    "proto: wrong wireType = 0 for field Value": field(1, 2, field(2, 2, field(1, 0, b"\x01"))),
    "proto: wrong wireType = 1 for field TimestampMs": field(1, 2, field(2, 2, field(2, 1, bytes(8)))),
    "proto: wrong wireType = 0 for field Name": field(1, 2, field(1, 2, field(1, 0, b"\x01"))),
    "proto: wrong wireType = 2 for field CreatedTimestamp": field(1, 2, field(6, 2)),
    "proto: wrong wireType = 0 for field Help": field(3, 2, field(4, 0, b"\x01")),
    "proto: WriteRequest: illegal tag 0 (wire type 2)": b"\x02\x00",
    "proto: TimeSeries: illegal tag 0 (wire type 0)": field(1, 2, LABEL + b"\x00\x00"),
    "proto: LabelPair: illegal tag 0 (wire type 0)": field(1, 2, field(1, 2, b"\x00\x00")),
    "proto: TimeSeries: wiretype end group for non-group": field(1, 2, field(9, 4)),
    "proto: illegal wireType 3": field(9, 3),
    "proto: integer overflow": b"\x80" * 11,
    "proto: negative length found during unmarshaling": b"\x0a" + b"\xff" * 9 + b"\x01",
    "unexpected EOF": field(1, 2, LABEL)[:-1],
    "proto: Remote Write 2.0 field Symbols in non-Remote Write 2.0 message": field(4, 2, b"x"),
    "proto: Remote Write 2.0 field Timeseries in non-Remote Write 2.0 message": field(5, 2, b"x"),
}


@pytest.mark.parametrize(("text", "body"), CASES.items())
def test_refusals_have_mimirs_texts(text, body):
    with pytest.raises(InvalidRequest) as caught:
        decode(body)
    assert caught.value.message == text
    assert not same(body)


def test_an_error_inside_an_earlier_field_comes_first():
    with pytest.raises(InvalidRequest, match="wrong wireType = 5 for field Labels"):
        decode(field(1, 2, field(1, 5, bytes(4))) + b"\x0a\xff")


@pytest.mark.parametrize(
    "body",
    [
        field(1, 2, field(1, 2, field(1, 2, b"no") + field(1, 2, b"n") + field(2, 2, b"w") + field(2, 2, b"v"))),
        field(1, 2, field(2, 2, field(1, 1, bytes(8)) + field(1, 1, b"\x01" * 8) + field(2, 0, b"\x05"))),
        field(1, 2, LABEL + field(99, 2, b"unknown") + field(77, 0, b"\x01") + field(78, 5, bytes(4))),
        b"\x8a\x80\x00" + b"\x89\x00" + b"\x8a\x00\x85\x00" + b"\x12\x82\x00\x61\x62",
        field(1, 2, field(1, 2, field(2, 2, b"b") + field(1, 2, b"a"))),
        field(1, 2) * 3,
        b"",
    ],
    ids=["last wins", "last sample wins", "unknown fields", "overlong varints", "value first", "empty series", "empty"],
)
def test_unusual_but_legal_bodies_decode(body):
    assert same(body)


def test_a_series_of_many_labels_in_reverse_is_sorted_in_reasonable_work():
    names = [b"n%06d" % i for i in range(60_000)]
    labels = b"".join(field(1, 2, field(1, 2, n) + field(2, 2, b"v")) for n in reversed(names))
    batch = decode(field(1, 2, labels)).batch
    assert batch.labels.tobytes() == b"".join(b"\x07" + n + b"\x01v" for n in names)


@pytest.mark.parametrize("item", [b"\x0a\x00", b"\x0a\x02\x12\x00", b"\x1a\x00", b"\x0a\x02\x0a\x00"])
def test_memory_is_bounded_by_the_size_of_the_body(item):
    body = item * 100_000
    decode(item)
    tracemalloc.start()
    decoded = decode(body)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert decoded.batch.series_count + len(decoded.batch.metadata) == 100_000
    assert peak < 20 * len(body) + 100_000


def test_many_samples_of_a_series_are_all_kept():
    samples = [(i, struct.pack("<d", 0.0)) for i in range(10_000)]
    batch = decode(message([([(b"a", b"b")], samples)]).SerializeToString()).batch
    assert batch.timestamps.tolist() == list(range(10_000))
    assert batch.sample_offsets.tolist() == [0, 10_000]
