"""Prometheus XOR chunks: float samples to bits and back, many chunks a call.

One chunk is `uint16 BE count | bit stream`, bits filled from the most significant of each byte, the last byte padded
with zeros:

    sample 0   varint (zig-zag) t, 64 bits of v
    sample 1   uvarint delta = t - t', value
    sample n   delta of delta: 0 | 10 + 14 bits | 110 + 17 bits | 1110 + 20 bits | 1111 + 64 bits; value
    value      x = v ^ v':  0 (x is zero) | 10 + bits of the previous window | 11 + leading:5 + bits:6 + the bits

A delta of delta fits n bits if `-(2^(n-1) - 1) <= d <= 2^(n-1)`; `leading` is capped at 31; `bits` 0 means 64; the
window is reused if the new one lies inside it. Bytes equal those of Prometheus (tsdb/chunkenc/xor.go, v3).

Twin: tests/reference/xor_chunk.py.
"""

from __future__ import annotations

import numpy as np
from numba.cpython.unsafe.numbers import leading_zeros, trailing_zeros

from mimir_ingest.kernels._jit import (
    f64_in,
    f64_out,
    i64,
    i64_in,
    i64_out,
    inline,
    inline_checked,
    kernel,
    u8_in,
    u8_out,
)
from mimir_ingest.kernels.bit_stream import bit_window, end_bits, put_bits, take64, take_xor
from mimir_ingest.kernels.words import byteswap64, load64

MAX_SAMPLES = 0xFFFF
"""Samples in a chunk: its count has 16 bits."""

OUT_TOO_SMALL, TOO_MANY_SAMPLES = -1, -2
"""Statuses of `encode_xor`."""

TRUNCATED, VARINT_TOO_LONG, COUNT_DIFFERS = 1, 2, 3
"""Reasons in a decoder's status, which is `-(4 * chunk + reason)`."""

_REASONS = {
    TRUNCATED: "the bit stream ends early",
    VARINT_TOO_LONG: "a varint is longer than 10 bytes",
    COUNT_DIFFERS: "the sample count is not the expected one",
}

# Constants of bit arithmetic: uint64 with anything else is typed as int64.
_U0, _U1, _U2, _U3, _U4, _U5, _U6, _U7, _U8, _U11 = (np.uint64(n) for n in (0, 1, 2, 3, 4, 5, 6, 7, 8, 11))
_U13, _U14, _U16, _U17, _U20, _U24, _U31, _U32, _U40, _U44 = (
    np.uint64(n) for n in (13, 14, 16, 17, 20, 24, 31, 32, 40, 44)
)
_U48, _U51, _U56, _U57, _U60, _U61, _U62, _U63, _U64 = (np.uint64(n) for n in (48, 51, 56, 57, 60, 61, 62, 63, 64))
_LOW7 = np.uint64(0x7F)
_NO_WINDOW = np.uint64(0xFF)
_STEP_ROOM = 28
"""Bytes that one sample can touch: 145 bits or 18 bytes, and the eight-byte register."""


def max_encoded_size(chunk_sample_counts: np.ndarray) -> int:
    """Return a number of bytes that is enough for `encode_xor` of chunks with these sample counts."""
    return int(22 * len(chunk_sample_counts) + 20 * int(np.sum(chunk_sample_counts)) + _STEP_ROOM)


def explain_status(status: int) -> tuple[int, str]:
    """Return (chunk, reason) of a decoder's negative status."""
    return (-status) // 4, _REASONS[(-status) % 4]


@inline
def _put_uvarint(out, at, register, used, value):
    while value > _LOW7:
        at, register, used = put_bits(out, at, register, used, (value & _LOW7) | np.uint64(0x80), _U8)
        value >>= _U7
    return put_bits(out, at, register, used, value, _U8)


@inline
def _put_delta_of_delta(out, at, register, used, dod):
    """Append a timestamp's bits, except for at most 24 that are returned: (at, register, used, bits, bit count)."""
    bits = np.uint64(dod)
    if dod == 0:
        return at, register, used, _U0, _U1
    if -((1 << 13) - 1) <= dod <= 1 << 13:
        return at, register, used, (_U2 << _U14) | (bits & np.uint64(0x3FFF)), _U16
    if -((1 << 16) - 1) <= dod <= 1 << 16:
        return at, register, used, (_U6 << _U17) | (bits & np.uint64(0x1FFFF)), _U20
    if -((1 << 19) - 1) <= dod <= 1 << 19:
        return at, register, used, (_U14 << _U20) | (bits & np.uint64(0xFFFFF)), _U24
    at, register, used = put_bits(out, at, register, used, np.uint64(15), _U4)
    at, register, used = put_bits(out, at, register, used, bits >> _U32, _U32)
    return at, register, used, bits & np.uint64(0xFFFFFFFF), _U32


@kernel(i64(i64_in, f64_in, i64_in, u8_out, i64_out))
def encode_xor(timestamps, values, starts, out, ends_out):
    """Encode samples as XOR chunks, back to back.

    Parameters
    ----------
    timestamps : int64[n]
        ms since the Unix epoch; any order is representable.
    values : float64[n]
        Kept bit-exact.
    starts : int64[k + 1]
        Chunk j holds the samples `starts[j]:starts[j + 1]`, at most MAX_SAMPLES.
    out : uint8[...], written
        `max_encoded_size` bytes are always enough.
    ends_out : int64[k], written
        Chunk j is `out[ends_out[j - 1]:ends_out[j]]` (from 0 for j = 0).

    Returns
    -------
    int64
        Bytes written, or OUT_TOO_SMALL, or TOO_MANY_SAMPLES.
    """
    words = values.view(np.uint64)
    size = len(out)
    at = 0
    for chunk in range(len(starts) - 1):
        first, end = starts[chunk], starts[chunk + 1]
        count = end - first
        if count > MAX_SAMPLES:
            return TOO_MANY_SAMPLES
        if at + 2 > size:
            return OUT_TOO_SMALL
        out[at] = count >> 8
        out[at + 1] = count & 0xFF
        at += 2
        register, used = _U0, _U0
        leading, trailing, window = _NO_WINDOW, _U0, _U64
        previous_t = delta = _U0
        previous_word = _U0
        for i in range(first, end):
            if at + _STEP_ROOM > size:
                return OUT_TOO_SMALL
            t = np.uint64(timestamps[i])
            word = words[i]
            if i == first:
                signed = timestamps[i]
                at, register, used = _put_uvarint(out, at, register, used, np.uint64((signed << 1) ^ (signed >> 63)))
                at, register, used = put_bits(out, at, register, used, word, _U64)
                previous_t, previous_word = t, word
                continue
            new_delta = t - previous_t
            if i == first + 1:
                at, register, used = _put_uvarint(out, at, register, used, new_delta)
                head, head_bits = _U0, _U0
            else:
                at, register, used, head, head_bits = _put_delta_of_delta(
                    out, at, register, used, np.int64(new_delta - delta)
                )
            delta = new_delta
            x = word ^ previous_word
            previous_t, previous_word = t, word
            if x == _U0:
                at, register, used = put_bits(out, at, register, used, head << _U1, head_bits + _U1)
                continue
            new_leading = min(np.uint64(leading_zeros(x)), _U31)
            new_trailing = np.uint64(trailing_zeros(x))
            if new_leading >= leading and new_trailing >= trailing and leading != _NO_WINDOW:
                at, register, used = put_bits(out, at, register, used, (head << _U2) | _U2, head_bits + _U2)
            else:
                leading, trailing = new_leading, new_trailing
                window = _U64 - leading - trailing
                fields = (_U3 << _U11) | (leading << _U6) | (window & _U63)
                at, register, used = put_bits(out, at, register, used, (head << _U13) | fields, head_bits + _U13)
            at, register, used = put_bits(out, at, register, used, x >> trailing, window)
        if at + 8 > size:
            return OUT_TOO_SMALL
        at = end_bits(out, at, register, used)
        ends_out[chunk] = at
    return at


@inline_checked
def _take_uvarint(data, bit, end_bit):
    """Return (value, next bit), next bit -reason when it does not decode."""
    value, shift = _U0, _U0
    for i in range(10):
        if bit + 8 > end_bit:
            return _U0, -TRUNCATED
        byte = bit_window(data, bit) >> _U56
        bit += 8
        if i == 9 and byte > _U1:
            return _U0, -VARINT_TOO_LONG
        value |= (byte & _LOW7) << shift
        if byte < np.uint64(0x80):
            return value, bit
        shift += _U7
    return _U0, -VARINT_TOO_LONG


@kernel(i64(u8_in, i64_in, i64_out), boundscheck=True)
def count_xor(data, starts, counts_out):
    """Read the sample counts of chunks that begin at `starts` (int64[k]).

    Returns
    -------
    int64
        The sum of `counts_out` (int64[k]), or a negative status, see `explain_status`.
    """
    total = 0
    for chunk in range(len(starts)):
        at = starts[chunk]
        if at < 0 or at + 2 > len(data):
            return -(4 * chunk + TRUNCATED)
        counts_out[chunk] = (np.int64(data[at]) << 8) | np.int64(data[at + 1])
        total += counts_out[chunk]
    return total


@inline
def _delta_of_delta(window):
    """Return (how much a delta grows, bits taken) by the bits at the top of a window; no bits: it has 64 of them."""
    if window >> _U63 == _U0:
        return _U0, _U1
    if window >> _U62 == _U2:
        dod = (window >> _U48) & np.uint64(0x3FFF)
        return dod - (np.uint64(0x4000) if dod > np.uint64(0x2000) else _U0), _U16
    if window >> _U61 == _U6:
        dod = (window >> _U44) & np.uint64(0x1FFFF)
        return dod - (np.uint64(0x20000) if dod > np.uint64(0x10000) else _U0), _U20
    if window >> _U60 == _U14:
        dod = (window >> _U40) & np.uint64(0xFFFFF)
        return dod - (np.uint64(0x100000) if dod > np.uint64(0x80000) else _U0), _U24
    return _U0, _U0


@inline
def _xor_fields(window, leading, trailing):
    """Return (bits of the fields, bits of the difference, leading, trailing).

    Without branches: which of the three forms a value has, no processor foresees.
    """
    control = window >> _U62
    some, fresh = control >= _U2, control == _U3
    bits = (window >> _U51) & _U63
    bits = bits if bits != _U0 else _U64
    leading = (window >> _U57) & _U31 if fresh else leading
    # Wraps around when leading + bits > 64; Prometheus then shifts all bits out, too.
    trailing = _U64 - leading - bits if fresh else trailing
    fields = _U13 if fresh else (_U2 if some else _U1)
    return fields, _U64 - leading - trailing if some else _U0, leading, trailing


@kernel(i64(u8_in, i64_in, i64_in, i64_in, i64_out, f64_out), boundscheck=True)
def decode_xor(data, starts, ends, sample_offsets, timestamps_out, values_out):
    """Expand XOR chunks into columns.

    Parameters
    ----------
    data : uint8[...]
        May be hostile: a negative status is the worst outcome.
    starts, ends : int64[k]
        Chunk j is `data[starts[j]:ends[j]]`; bytes after its last sample are ignored, as in Prometheus.
    sample_offsets : int64[k + 1]
        Chunk j must hold `sample_offsets[j + 1] - sample_offsets[j]` samples; they go to these places.
    timestamps_out : int64[sample_offsets[-1]], written
        ms since the Unix epoch.
    values_out : float64[sample_offsets[-1]], written
        Bit-exact; the staleness marker survives.

    Returns
    -------
    int64
        Samples written, or a negative status, see `explain_status`.

    Notes
    -----
    Cost: 6 ns a sample whose delta repeats. All but the last 16 bytes of `data` are read by loads that need no check.
    """
    words_out = values_out.view(np.uint64)
    stamps_out = timestamps_out.view(np.uint64)
    unchecked = (len(data) - 16) * 8
    total = 0
    for chunk in range(len(starts)):
        start, end = starts[chunk], ends[chunk]
        first, last = sample_offsets[chunk], sample_offsets[chunk + 1]
        if start < 0 or end > len(data) or start + 2 > end:
            return -(4 * chunk + TRUNCATED)
        if (np.int64(data[start]) << 8 | np.int64(data[start + 1])) != last - first:
            return -(4 * chunk + COUNT_DIFFERS)
        if first == last:
            continue
        bit, end_bit = (start + 2) * 8, end * 8
        zigzag, bit = _take_uvarint(data, bit, end_bit)
        if bit < 0:
            return bit - 4 * chunk
        if bit + 64 > end_bit:
            return -(4 * chunk + TRUNCATED)
        t = (zigzag >> _U1) ^ (_U0 - (zigzag & _U1))
        word = take64(data, bit)
        bit += 64
        stamps_out[first], words_out[first] = t, word
        delta, leading, trailing = _U0, _U0, _U0
        for i in range(first + 1, last):
            is_open = bit <= unchecked
            if i == first + 1:
                delta, bit = _take_uvarint(data, bit, end_bit)
                if bit < 0:
                    return bit - 4 * chunk
                is_open, window, taken = False, _U0, _U0
            else:
                if is_open:
                    window = byteswap64(load64(data, bit >> 3)) << (np.uint64(bit) & _U7)
                else:
                    window = bit_window(data, bit)
                dod, taken = _delta_of_delta(window)
                if taken == _U0:
                    dod = take64(data, bit + 4)
                    bit += 68
                    is_open = False
                delta += dod
            t += delta
            bit += np.int64(taken)
            if is_open:
                window <<= taken
                fields, size, leading, trailing = _xor_fields(window, leading, trailing)
                bit += np.int64(fields)
                if taken + fields + size <= _U57:
                    x = ((window << fields) >> _U1) >> (_U63 - size)
                else:
                    x = byteswap64(load64(data, bit >> 3)) << (np.uint64(bit) & _U7)
                    x |= np.uint64(data[(bit >> 3) + 8]) >> (_U8 - (np.uint64(bit) & _U7))
                    x >>= _U64 - size
                word ^= (x << trailing) if trailing < _U64 else _U0
                bit += np.int64(size)
            else:
                x, bit, leading, trailing = take_xor(data, bit, leading, trailing)
                word ^= x
            if bit > end_bit:
                return -(4 * chunk + TRUNCATED)
            stamps_out[i], words_out[i] = t, word
        total += last - first
    return total
