import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimir_ingest.model.labels import LabelFrame
from mimir_ingest.model.samples import SeriesSamples
from mimir_ingest.wire import read_response
from mimir_ingest.wire.read_response import encode_frames, encode_samples
from tests.reference import read_response as reference
from tests.reference import xor_chunk
from tests.reference.crc32c import crc32c
from tests.reference.varint import uvarint
from tests.support.protobuf_schema import ChunkedReadResponse, ReadResponse

NAMES = st.sampled_from(["__name__", "job", "instance", "le", "äöü"])
VALUES = st.one_of(st.sampled_from(["a", "b", "c"]), st.text(min_size=1, max_size=150))
TIMES = st.lists(st.integers(-(2**62), 2**62), max_size=5, unique=True).map(sorted)
NASTY = [0.0, -0.0, 1.5, float("inf"), struct.unpack("<d", struct.pack("<Q", 0x7FF0000000000002))[0]]


@st.composite
def results(draw):
    """Series with distinct labels, in any order: [(labels, timestamps, values)]."""
    sets = draw(
        st.lists(st.dictionaries(NAMES, VALUES, max_size=4), max_size=6, unique_by=lambda s: tuple(sorted(s.items())))
    )
    out = []
    for labels in sets:
        times = draw(TIMES)
        out.append((labels, times, draw(st.lists(st.sampled_from(NASTY), min_size=len(times), max_size=len(times)))))
    return out


def columns(series) -> SeriesSamples:
    counts = [len(times) for _, times, _ in series]
    return SeriesSamples(
        LabelFrame.from_dicts([labels for labels, _, _ in series]),
        np.cumsum([0, *counts], dtype=np.int64),
        np.array([t for _, times, _ in series for t in times], np.int64),
        np.array([v for _, _, values in series for v in values], np.float64),
    )


def by_labels(series):
    """Order as Prometheus does: by the sequence of (name, value) pairs."""
    return sorted(series, key=lambda one: [(n.encode(), v.encode()) for n, v in sorted(one[0].items())])


def bits(value):
    return struct.pack("<d", value)


def words(times, values):
    """Return samples as the twin of the chunk codec takes them: (timestamp, value bits)."""
    return [(t, int.from_bytes(bits(v), "little")) for t, v in zip(times, values, strict=True)]


def split(stream):
    """Return the messages of a stream of frames, checksums checked."""
    messages, at = [], 0
    while at < len(stream):
        size, at = uvarint(stream, at)
        message = stream[at + 4 : at + 4 + size]
        assert len(message) == size
        assert struct.unpack(">I", stream[at : at + 4])[0] == crc32c(message)
        messages.append(ChunkedReadResponse.FromString(message))
        at += 4 + size
    return messages


@given(st.lists(results(), max_size=3))
def test_samples_read_back_with_the_protobuf_library_and_equal_the_twin(answers):
    body = encode_samples([columns(series) for series in answers])
    expected = [
        [
            (sorted(labels.items()), [(t, bits(v)) for t, v in zip(times, values, strict=True)])
            for labels, times, values in by_labels(series)
        ]
        for series in answers
    ]
    assert body == b"".join(reference.field(1, reference.samples_result(series)) for series in expected)
    response = ReadResponse.FromString(body)
    assert [
        [
            (
                [(p.name.decode(), p.value.decode()) for p in one.labels],
                [(s.timestamp, bits(s.value)) for s in one.samples],
            )
            for one in result.timeseries
        ]
        for result in response.results
    ] == expected


@given(results(), st.integers(0, 300), st.integers(1, 200))
def test_frames_equal_the_twin(series, index, limit):
    stream = b"".join(encode_frames(columns(series), index, max_frame_bytes=limit))
    expected = [
        (sorted(labels.items()), [(times[0], times[-1], xor_chunk.encode(words(times, values)))])
        for labels, times, values in by_labels(series)
        if times
    ]
    assert stream == reference.frames(expected, index, limit)


@pytest.mark.parametrize("piece", [1, 500, 1 << 16])
def test_frames_hold_every_sample_whatever_the_size_of_a_piece(piece, monkeypatch):
    monkeypatch.setattr(read_response, "_SAMPLES_A_CALL", piece)
    series = [
        ({"__name__": "m", "i": f"{i:03d}"}, list(range(0, 15_000 * n, 15_000)), [float(i * j) for j in range(n)])
        for i, n in enumerate([0, 1, 120, 121, 500, 3, 0])
    ]
    messages = split(b"".join(encode_frames(columns(series), 7, max_frame_bytes=700)))
    assert {m.query_index for m in messages} == {7}
    found = {}
    for one in (one for m in messages for one in m.chunked_series):
        samples = found.setdefault({p.name: p.value for p in one.labels}[b"i"].decode(), [])
        for chunk in one.chunks:
            decoded = xor_chunk.decode(chunk.data)
            assert (chunk.type, chunk.min_time_ms, chunk.max_time_ms) == (1, decoded[0][0], decoded[-1][0])
            assert len(decoded) <= 120
            samples += decoded
    assert found == {labels["i"]: words(times, values) for labels, times, values in series if times}


def test_a_series_over_the_frame_size_goes_on_in_another_frame():
    rng = np.random.default_rng(1)
    times = list(range(0, 120 * 2000, 1))
    series = [({"__name__": "noise"}, times, rng.random(len(times)).tolist())]
    messages = split(b"".join(encode_frames(columns(series), 0)))
    sizes = [m.ByteSize() for m in messages]
    assert len(messages) > 1
    assert all(1 << 20 <= size < (1 << 20) + 2000 for size in sizes[:-1])
    assert all(len(m.chunked_series) == 1 and m.chunked_series[0].labels[0].value == b"noise" for m in messages)


def test_no_series_gives_an_empty_result_and_no_frame():
    assert encode_samples([SeriesSamples.empty()]) == b"\x0a\x00"
    assert list(encode_frames(SeriesSamples.empty(), 0)) == []
