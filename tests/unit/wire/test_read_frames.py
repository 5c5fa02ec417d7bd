"""Streamed answers read back: whole, in pieces, from the protobuf library, damaged."""

import contextlib
import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimir_ingest.errors import AnswerCorrupt, QueryError
from mimir_ingest.model.samples import SampleBudget
from mimir_ingest.wire.read_frames import FrameReader
from mimir_ingest.wire.read_response import encode_frames
from tests.reference import xor_chunk
from tests.reference.read_response import frame
from tests.support.blocks import to_python
from tests.support.protobuf_schema import ChunkedReadResponse
from tests.unit.wire.test_read_response import by_labels, columns, results, words

EVER = (-(2**63), 2**63 - 1)


def read(pieces, *, start_ms=EVER[0], end_ms=EVER[1], budget=0):
    reader = FrameReader(budget=SampleBudget(budget), start_ms=start_ms, end_ms=end_ms)
    for piece in pieces:
        reader.feed(piece)
    return reader.finish()


@given(results(), st.integers(1, 200), st.data())
def test_what_was_encoded_is_read_back_bit_for_bit_in_any_pieces(series, limit, data):
    stream = b"".join(encode_frames(columns(series), 0, max_frame_bytes=limit))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=4)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    found = read(pieces)
    assert to_python(found) == [(labels, words(times, values)) for labels, times, values in by_labels(series) if times]


def message(*series) -> bytes:
    """Return a frame, made by the protobuf library, of (labels, [[(time, value)] a chunk])."""
    response = ChunkedReadResponse()
    for labels, chunks in series:
        one = response.chunked_series.add()
        for name, value in labels:
            one.labels.add(name=name.encode(), value=value.encode())
        for samples in chunks:
            data = xor_chunk.encode(words(*zip(*samples, strict=True)))
            one.chunks.add(min_time_ms=samples[0][0], max_time_ms=samples[-1][0], type=1, data=data)
    return frame(response.SerializeToString())


def test_frames_of_the_protobuf_library_are_read_with_several_series_each():
    long = "n" * 200
    stream = message(([("__name__", "a"), (long, "ü")], [[(1, 1.0), (2, -0.0)], [(3, 3.0)]]), ([], [[(5, 5.0)]]))
    stream += message(([("__name__", "b")], [[(-7, float("nan"))]]))
    assert to_python(read([stream])) == [
        ({"__name__": "a", long: "ü"}, words([1, 2, 3], [1.0, -0.0, 3.0])),
        ({}, words([5], [5.0])),
        ({"__name__": "b"}, words([-7], [float("nan")])),
    ]


def test_parts_of_a_series_in_several_frames_are_one_series():
    parts = [message(([("a", "x")], [[(10 * i + j, float(j)) for j in range(10)]])) for i in range(5)]
    other = message(([("a", "y")], [[(1, 1.0)]]))
    found = read([*parts, other])
    assert [len(samples) for _, samples in to_python(found)] == [50, 1]


def test_samples_outside_the_range_are_dropped_and_so_are_series_without_any():
    stream = message(
        ([("a", "1")], [[(1, 1.0), (2, 2.0)]]),
        ([("a", "2")], [[(2, 1.0), (3, 2.0), (4, 4.0)]]),
        ([("a", "3")], [[(4, 1.0)]]),
    )
    found = to_python(read([stream], start_ms=2, end_ms=4))
    assert [(labels["a"], [t for t, _ in samples]) for labels, samples in found] == [("1", [2]), ("2", [2, 3])]


def test_more_samples_than_the_budget_has_are_refused():
    stream = message(([("a", "1")], [[(1, 1.0), (2, 2.0)]]))
    assert read([stream], budget=2).sample_count == 2
    with pytest.raises(QueryError, match="too many samples"):
        read([stream], budget=1)


def chunk_frame(data: bytes, kind: int = 1) -> bytes:
    response = ChunkedReadResponse()
    series = response.chunked_series.add()
    series.labels.add(name=b"a", value=b"b")
    series.chunks.add(type=kind, data=data)
    return frame(response.SerializeToString())


GOOD = xor_chunk.encode(words([1, 2], [1.0, 2.0]))


@pytest.mark.parametrize(
    ("stream", "reason"),
    [
        (chunk_frame(b"\xff\xff" + GOOD[2:]), "too short for its samples"),
        (chunk_frame(b"\x00\x00" + bytes(20)), "too short for its samples"),
        (chunk_frame(b"\x00\x03" + GOOD[2:]), "the bit stream ends early|too short"),
        (chunk_frame(GOOD, kind=7), "encoding 7 are not known"),
        (message(([("a", "1")], [[(2, 1.0), (2, 2.0)]])), "do not ascend"),
        (message(([("a", "1")], [[(2, 1.0)], [(1, 2.0)]])), "do not ascend"),
        (
            message(([("a", "1")], [[(1, 1.0)]]), ([("a", "2")], [[(1, 1.0)]]), ([("a", "1")], [[(2, 1.0)]])),
            "a series comes twice",
        ),
        (message(([("b", "1"), ("a", "1")], [[(1, 1.0)]])), "label names do not ascend"),
        (message(([("a", "")], [[(1, 1.0)]])), "shortest form"),
        (message(([("a", "1")], [])), "no chunks"),
        (message(([("a", "1")], [[(1, 1.0)]])).replace(b"\x12\x011", b"\x12\x01\xff"), "checksum"),
        (message(([("a", "1")], [[(1, 1.0)]]))[:-1], "ends within a frame"),
        (b"service unavailable: partition 3 is recovering\n", "a frame|ends within a frame"),
        (frame(b"\x10\x01"), "another query"),
    ],
)
def test_what_is_no_answer_is_an_error_that_says_why(stream, reason):
    with pytest.raises(AnswerCorrupt, match=reason):
        read([stream])


@pytest.mark.parametrize(("name", "value"), [(b"\xff", b"v"), (b"n", b"\xed\xa0\x80")])
def test_labels_that_are_not_utf8_are_refused(name, value):
    response = ChunkedReadResponse()
    series = response.chunked_series.add()
    series.labels.add(name=name, value=value)
    series.chunks.add(type=1, data=GOOD)
    with pytest.raises(AnswerCorrupt, match="not UTF-8"):
        read([frame(response.SerializeToString())])


def test_a_claim_of_many_samples_takes_no_memory():
    claim = struct.pack(">H", 0xFFFF) + GOOD[2:]
    with pytest.raises(AnswerCorrupt, match="too short"):
        read([chunk_frame(claim) * 5000])


@given(results(), st.data())
def test_any_damage_is_an_error_of_ours_or_still_an_answer(series, data):
    stream = bytearray(b"".join(encode_frames(columns(series), 0, max_frame_bytes=100)))
    for _ in range(data.draw(st.integers(1, 3))):
        if stream:
            stream[data.draw(st.integers(0, len(stream) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(AnswerCorrupt):
        assert (np.diff(read([bytes(stream)]).offsets) > 0).all()


@given(st.binary(min_size=11, max_size=60), st.integers(0, 3))
def test_any_chunk_is_an_error_of_ours_or_an_answer(data, kind):
    with contextlib.suppress(AnswerCorrupt):
        assert read([chunk_frame(data, kind)]).series_count == 1


def test_no_frames_are_no_series():
    assert read([]).series_count == 0
    assert read([b""]).series_count == 0
