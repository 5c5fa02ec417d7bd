"""Remote read as a client sees it: requests by the protobuf library, answers read without our code."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence

import cramjam

from tests.reference import crc32c, xor_chunk
from tests.support.protobuf_schema import ChunkedReadResponse, ReadRequest, ReadResponse

SAMPLES, STREAMED_XOR_CHUNKS = 0, 1
EQ, NEQ, RE, NRE = range(4)

Series = tuple[dict[str, str], list[tuple[int, int]]]
"""Labels and (timestamp, value bits)."""


def read_request(*queries: tuple[int, int, Iterable[tuple[int, str, str]]], accepted: Sequence[int] = ()) -> bytes:
    """Return an uncompressed request of (start, inclusive end, [(matcher type, name, value)]) queries."""
    request = ReadRequest(accepted_response_types=accepted)
    for start, end, matchers in queries:
        query = request.queries.add(start_timestamp_ms=start, end_timestamp_ms=end)
        for kind, name, value in matchers:
            query.matchers.add(type=kind, name=name.encode(), value=value.encode())
    return request.SerializeToString()


def compressed(body: bytes) -> bytes:
    """Return a body as a client posts it."""
    return bytes(cramjam.snappy.compress_raw(body))


def labels_of(message) -> dict[str, str]:
    """Return the labels of a message; fails unless their names ascend."""
    names = [label.name for label in message.labels]
    assert names == sorted(set(names))
    return {label.name.decode(): label.value.decode() for label in message.labels}


def bits_of(values: Iterable[float]) -> list[int]:
    """Return the 64 bits of each value. (Unpacking doubles in Python keeps the bits.)"""
    return [struct.unpack("<Q", struct.pack("<d", v))[0] for v in values]


def read_samples(content: bytes) -> list[list[Series]]:
    """Return the series of each query from an uncompressed ReadResponse."""
    return [
        [
            (
                labels_of(series),
                list(zip([s.timestamp for s in series.samples], bits_of(s.value for s in series.samples), strict=True)),
            )
            for series in result.timeseries
        ]
        for result in ReadResponse.FromString(content).results
    ]


def read_frames(stream: bytes) -> list[tuple[int, object]]:
    """Return (size, ChunkedReadResponse) of each frame; fails on bad lengths and checksums."""
    frames, at = [], 0
    while at < len(stream):
        size = shift = 0
        while True:
            byte = stream[at]
            at += 1
            size |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        checksum, message = stream[at : at + 4], stream[at + 4 : at + 4 + size]
        assert len(message) == size
        assert int.from_bytes(checksum, "big") == crc32c.crc32c(message)
        frames.append((size, ChunkedReadResponse.FromString(message)))
        at += 4 + size
    return frames


def read_chunks(stream: bytes, query_count: int) -> list[list[Series]]:
    """Return the series of each query from a stream of frames, parts of a split series joined."""
    results: list[list[Series]] = [[] for _ in range(query_count)]
    last_query = 0
    for _, message in read_frames(stream):
        assert message.query_index >= last_query
        last_query = message.query_index
        series_of_query = results[message.query_index]
        [series] = message.chunked_series
        labels = labels_of(series)
        if not series_of_query or series_of_query[-1][0] != labels:
            series_of_query.append((labels, []))
        for chunk in series.chunks:
            samples = xor_chunk.decode(chunk.data)
            assert chunk.type == 1
            assert 0 < len(samples) <= 120
            assert (chunk.min_time_ms, chunk.max_time_ms) == (samples[0][0], samples[-1][0])
            series_of_query[-1][1].extend(samples)
    return results
