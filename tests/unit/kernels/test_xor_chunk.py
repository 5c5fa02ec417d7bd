"""XOR chunks: our bytes equal the twin's, and every sample survives bit for bit."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimir_ingest.kernels import xor_chunk
from mimir_ingest.kernels.xor_chunk import count_xor, decode_xor, encode_xor, explain_status, max_encoded_size
from mimir_ingest.model.batch import STALE_NAN_BITS
from tests.reference import xor_chunk as reference

INT64 = st.integers(-(2**63), 2**63 - 1)
DELTA = st.one_of(
    st.sampled_from([0, 1, -1, 15_000, 15_001]),
    st.sampled_from([s * (1 << (n - 1)) + d for n in (14, 17, 20) for s in (1, -1) for d in (-1, 0, 1)]),
    st.integers(-(2**21), 2**21),
    INT64,
)
WORD = st.one_of(
    st.sampled_from([0, STALE_NAN_BITS, 0x7FF8000000000001, 0xFFF8000000000000, 0x7FF0000000000000, 1, 2**64 - 1]),
    st.sampled_from([struct.unpack("<Q", struct.pack("<d", v))[0] for v in (0.0, 1.0, 2.0, 1.5, -1.0, 1e300, 0.1)]),
    st.builds(lambda bits, shift: bits << shift & (2**64 - 1), st.integers(0, 255), st.integers(0, 63)),
    st.integers(0, 2**64 - 1),
)


def _wrap(value: int) -> int:
    return (value + 2**63) % 2**64 - 2**63


@st.composite
def chunks(draw: st.DrawFn) -> list[list[tuple[int, int]]]:
    """Chunks whose timestamps are running sums of deltas of deltas, or anything."""
    result = []
    for _ in range(draw(st.integers(0, 4))):
        t, delta, chunk = draw(INT64), 0, []
        for _ in range(draw(st.integers(0, 12))):
            delta += draw(DELTA)
            t = _wrap(t + delta)
            chunk.append((t, draw(WORD)))
        result.append(chunk)
    return result


def _encode(chunk_list: list[list[tuple[int, int]]]) -> tuple[bytes, np.ndarray]:
    counts = np.array([len(c) for c in chunk_list], np.int64)
    flat = [s for c in chunk_list for s in c]
    timestamps = np.array([t for t, _ in flat], np.int64)
    values = np.array([w for _, w in flat], np.uint64).view(np.float64)
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    out = np.full(max_encoded_size(counts), 0xEE, np.uint8)
    ends = np.empty(len(chunk_list), np.int64)
    written = encode_xor(timestamps, values, starts, out, ends)
    assert written == (ends[-1] if len(ends) else 0)
    return out[:written].tobytes(), ends


def _decode(data: bytes, starts: np.ndarray, ends: np.ndarray, counts: np.ndarray) -> tuple[int, list[tuple[int, int]]]:
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    timestamps, values = np.empty(offsets[-1], np.int64), np.empty(offsets[-1], np.float64)
    status = decode_xor(np.frombuffer(data, np.uint8), starts, ends, offsets, timestamps, values)
    return status, list(zip(timestamps.tolist(), values.view(np.uint64).tolist(), strict=True))


@given(chunks())
def test_bytes_equal_the_twin_and_samples_come_back(chunk_list: list[list[tuple[int, int]]]) -> None:
    data, ends = _encode(chunk_list)
    starts = np.concatenate([[0], ends]).astype(np.int64)[:-1]
    expected = [reference.encode(c) for c in chunk_list]
    assert [data[s:e] for s, e in zip(starts, ends, strict=True)] == expected
    counts = np.empty(len(chunk_list), np.int64)
    assert count_xor(np.frombuffer(data, np.uint8), starts, counts) == sum(map(len, chunk_list))
    status, samples = _decode(data, starts, ends, counts)
    assert status == len(samples)
    assert samples == [s for c in chunk_list for s in c]
    assert [reference.decode(c) for c in expected] == chunk_list


@given(st.integers(1, 6), st.binary(max_size=60), st.sampled_from([b"", b"\x5a" * 32]))
def test_arbitrary_bytes_decode_as_the_twin_or_fail_as_the_twin(count: int, body: bytes, behind: bytes) -> None:
    data = count.to_bytes(2, "big") + body
    one = np.array([0], np.int64)
    status, samples = _decode(data + behind, one, np.array([len(data)], np.int64), np.array([count], np.int64))
    try:
        expected = reference.decode(data)
    except ValueError:
        assert status < 0
        assert explain_status(status)[0] == 0
    else:
        assert (status, samples) == (count, expected)


def test_a_chunk_cut_at_every_byte_is_refused() -> None:
    chunk = [(1000 * i + i % 3, i * 0x0123456789ABCDEF % 2**64) for i in range(20)]
    data, ends = _encode([[(5, 5)], chunk])
    for end in range(int(ends[0]), int(ends[1])):
        status, _ = _decode(data, np.array([0, ends[0]]), np.array([ends[0], end]), np.array([1, 20]))
        assert explain_status(status) == (1, "the bit stream ends early")


def test_spans_outside_the_data_and_other_counts_are_refused() -> None:
    data, ends = _encode([[(1, 1), (2, 2)]])
    size = int(ends[0])
    for start, end, count, reason in (
        (0, size + 1, 2, xor_chunk.TRUNCATED),
        (-1, size, 2, xor_chunk.TRUNCATED),
        (size, size, 2, xor_chunk.TRUNCATED),
        (0, size, 3, xor_chunk.COUNT_DIFFERS),
    ):
        status, _ = _decode(data, np.array([start]), np.array([end]), np.array([count]))
        assert status == -reason


def test_golden_bytes() -> None:
    """Written out by hand from the format: t 1000, 1001 (delta 1), 1003 (delta of delta 1); v 1.0, 1.0, 2.0."""
    one, two = 0x3FF0000000000000, 0x4000000000000000
    data, _ = _encode([[(1000, one), (1001, one), (1003, two)]])
    bits = "0" + "10" + format(1, "014b") + "11" + format(1, "05b") + format(11, "06b") + "1" * 11
    bits += "0" * (-len(bits) % 8)
    tail = int(bits, 2).to_bytes(len(bits) // 8, "big")
    assert data == bytes.fromhex("0003" + "d00f" + "3ff0000000000000" + "01") + tail


def test_too_small_an_output_and_too_many_samples_are_reported() -> None:
    timestamps, values = np.arange(65_536, dtype=np.int64), np.zeros(65_536)
    ends = np.empty(1, np.int64)
    whole = np.array([0, 65_536], np.int64)
    out = np.empty(max_encoded_size(np.diff(whole)), np.uint8)
    assert encode_xor(timestamps, values, whole, out, ends) == xor_chunk.TOO_MANY_SAMPLES
    assert encode_xor(timestamps, values, np.array([0, 65_535]), out, ends) > 0
    for size in (0, 1, 2, 29, 100):
        assert encode_xor(timestamps, values, np.array([0, 1000]), out[:size], ends) == xor_chunk.OUT_TOO_SMALL


@pytest.mark.parametrize("count", [0, 1, 2, 120])
def test_the_promised_output_size_is_enough_for_the_worst_samples(count: int) -> None:
    """Every sample takes the widest prefix and all 64 value bits."""
    rng = np.random.default_rng(7)
    timestamps = rng.integers(-(2**63), 2**63 - 1, count)
    values = rng.integers(0, 2**64 - 1, count, np.uint64) | np.uint64(1)
    values[1::2] ^= np.uint64(1 << 63 | 1)
    out = np.empty(2 + 20 * count + 20, np.uint8)
    assert encode_xor(timestamps, values.view(np.float64), np.array([0, count]), out, np.empty(1, np.int64)) > 0
