"""The scanner of remote read frames against its twin, on good frames and on damaged ones."""

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mimir_ingest.kernels.read_frames import (
    CHUNK_BYTES,
    CHUNK_COLUMNS,
    PAIR_BYTES,
    PAIR_COLUMNS,
    SERIES_COLUMNS,
    FrameStatus,
    find_invalid_text,
    number_series,
    scan_frames,
)
from tests.reference import read_frames as reference
from tests.reference.read_response import field, frame, number
from tests.reference.varint import Refused

TEXT = st.sampled_from(["", "a", "b", "job", "ä", "x" * 130])
UNKNOWN = st.sampled_from([b"", b"", b"", number(9, 5), field(15, b"abc"), b"\x4d\0\0\0\0", b"\x49" + bytes(8)])
BAD = st.sampled_from([b"", b"", b"", b"", b"\x08\x01", b"\x12", b"\x0c", b"\x0f", b"\x00\x00", b"\x10\x05"])


@st.composite
def messages(draw):
    """A frame's message: mostly well formed."""
    out = b""
    for _ in range(draw(st.integers(0, 3))):
        names = draw(st.lists(TEXT, max_size=4, unique=draw(st.booleans())))
        if draw(st.integers(0, 3)):
            names = sorted(names, key=str.encode)
        body = b"".join(field(1, field(1, n.encode()) + field(2, draw(TEXT).encode())) for n in names)
        for _ in range(draw(st.integers(0, 3))):
            data = draw(st.binary(min_size=draw(st.sampled_from([0, 11])), max_size=20))
            content = number(1, draw(st.integers(-5, 5))) + number(3, draw(st.integers(0, 3))) + field(4, data)
            body += field(2, draw(UNKNOWN) + content + draw(BAD))
        out += field(1, body + draw(UNKNOWN))
    return out + number(2, draw(st.sampled_from([0, 0, 0, 0, 1]))) + draw(UNKNOWN) + draw(BAD)


STREAMS = st.lists(messages(), max_size=3).map(lambda all_of: b"".join(map(frame, all_of)))


def scanned(data: bytes):
    """Return what the kernel says in the twin's form; a status is an integer."""
    pairs = np.empty(PAIR_COLUMNS * (len(data) // PAIR_BYTES), np.int64)
    chunks = np.empty(CHUNK_COLUMNS * (len(data) // CHUNK_BYTES), np.int64)
    series = np.empty(SERIES_COLUMNS * (len(data) // CHUNK_BYTES), np.int64)
    counts = np.empty(3, np.int64)
    status = scan_frames(np.frombuffer(data, np.uint8), pairs, chunks, series, counts)
    if status < 0:
        return status
    labels = []
    for start, name, name_end, value, end in pairs.reshape(-1, 5)[: counts[1]].tolist():
        assert reference.pair(data[start:end])
        labels.append((data[name:name_end], data[value:end]))
    data_of = [(kind, data[a:b]) for a, b, kind in chunks.reshape(-1, 3)[: counts[2]].tolist()]
    bounds = [(0, 0), *map(tuple, series.reshape(-1, 2)[: counts[0]].tolist())]
    return status, [(labels[p:q], data_of[c:d]) for (p, c), (q, d) in itertools.pairwise(bounds)]


def expected(data: bytes):
    try:
        return reference.frames(data)
    except Refused:
        return None


def check(data: bytes) -> None:
    answer, wanted = scanned(data), expected(data)
    if wanted is None:
        assert isinstance(answer, int)
        assert answer < 0
    else:
        assert answer == wanted


@given(STREAMS)
def test_frames_read_as_the_definition_reads_them(stream):
    check(stream)


@given(STREAMS, st.data())
def test_a_stream_cut_anywhere_gives_the_frames_before_the_cut(stream, data):
    check(stream[: data.draw(st.integers(0, len(stream)))])


@given(STREAMS, st.data())
def test_a_flipped_bit_reads_as_the_definition_reads_it(stream, data):
    if stream:
        damaged = bytearray(stream)
        damaged[data.draw(st.integers(0, len(stream) - 1))] ^= 1 << data.draw(st.integers(0, 7))
        check(bytes(damaged))


@given(messages(), st.data())
def test_damage_under_a_right_checksum_reads_as_the_definition_reads_it(message, data):
    if message:
        damaged = bytearray(message)
        damaged[data.draw(st.integers(0, len(message) - 1))] = data.draw(st.integers(0, 255))
        check(frame(bytes(damaged)))


@given(st.binary(max_size=60))
def test_any_message_reads_as_the_definition_reads_it(message):
    check(frame(message))
    check(message)


def test_a_frame_that_announces_too_much_is_refused_before_it_is_there():
    assert scanned(b"\xff\xff\xff\xff\x0f") == FrameStatus.TOO_LARGE


@given(st.lists(st.lists(st.integers(0, 3), max_size=3), max_size=12))
def test_series_that_follow_each_other_with_equal_pairs_have_one_number(sets):
    numbers = np.empty(len(sets), np.int64)
    offsets = np.cumsum([0, *map(len, sets)], dtype=np.int64)
    count = number_series(offsets, np.array([p for s in sets for p in s], np.int32), numbers)
    wanted, last = [], -1
    for i, one in enumerate(sets):
        last += i == 0 or one != sets[i - 1]
        wanted.append(last)
    assert (numbers.tolist(), count) == (wanted, last + 1)


@given(st.lists(st.binary(max_size=4) | st.text(max_size=3).map(str.encode), max_size=6))
def test_text_that_is_not_utf8_is_found(strings):
    def valid(text):
        try:
            text.decode()
        except UnicodeDecodeError:
            return False
        return True

    bounds = np.cumsum([0, *map(len, strings)], dtype=np.int64)
    found = find_invalid_text(np.frombuffer(b"".join(strings), np.uint8), bounds[:-1].copy(), bounds[1:].copy())
    assert found == next((i for i, s in enumerate(strings) if not valid(s)), len(strings))
