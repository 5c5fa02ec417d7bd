"""Hashes of label sets, a batch at a call: xxHash64 for identity, FNV-1 for partition tokens.

xxHash64 with seed 0 (specification: xxHash_spec 0.1.1, XXH64) over each series' label bytes. FNV-1, 32 bits (multiply,
then xor; spec ingest-storage 3.1) over tenant, then each name and value without separators.

FNV-1 is a chain of multiplications, four cycles a byte whatever the machine; four series are advanced in turn, so that
the multiplications of one fill the waiting time of the others.
Twin: tests/reference/hashing.py.
"""

from __future__ import annotations

import numpy as np

from mimir_ingest.kernels._jit import i64, i64_in, inline, kernel, u8_in, u8_out, u32, u32_out, u64_out
from mimir_ingest.kernels.varint import read_uvarint
from mimir_ingest.kernels.words import copy_blocks, load8, load64

FNV_OFFSET_BASIS = 2166136261

_P1 = np.uint64(0x9E3779B185EBCA87)
_P2 = np.uint64(0xC2B2AE3D27D4EB4F)
_P3 = np.uint64(0x165667B19E3779F9)
_P4 = np.uint64(0x85EBCA77C2B2AE63)
_P5 = np.uint64(0x27D4EB2F165667C5)
_START_1 = np.uint64(0x60EA27EEADC0B5D6)  # P1 + P2
_START_4 = np.uint64(0x61C8864E7A143579)  # -P1
_FNV_PRIME = np.uint32(16777619)


@inline
def _rotate(value, bits):
    return (value << np.uint64(bits)) | (value >> np.uint64(64 - bits))


@inline
def _round(lane, word):
    return _rotate(lane + word * _P2, 31) * _P1


@inline
def _merge_round(value, lane):
    return (value ^ _round(np.uint64(0), lane)) * _P1 + _P4


@inline
def xxh64_span(data, at, end):
    """Return xxHash64 of `data[at:end]`; the caller has checked `0 <= at <= end <= len(data)`."""
    size = end - at
    if size >= 32:
        a, b, c, d = _START_1, _P2, np.uint64(0), _START_4
        stop = end - 32
        while at <= stop:
            a = _round(a, load64(data, at))
            b = _round(b, load64(data, at + 8))
            c = _round(c, load64(data, at + 16))
            d = _round(d, load64(data, at + 24))
            at += 32
        value = _rotate(a, 1) + _rotate(b, 7) + _rotate(c, 12) + _rotate(d, 18)
        value = _merge_round(_merge_round(_merge_round(_merge_round(value, a), b), c), d)
    else:
        value = _P5
    value += np.uint64(size)
    while at + 8 <= end:
        value = _rotate(value ^ _round(np.uint64(0), load64(data, at)), 27) * _P1 + _P4
        at += 8
    if at + 4 <= end:
        word = (
            np.uint64(data[at])
            | np.uint64(data[at + 1]) << np.uint64(8)
            | np.uint64(data[at + 2]) << np.uint64(16)
            | np.uint64(data[at + 3]) << np.uint64(24)
        )
        value = _rotate(value ^ word * _P1, 23) * _P2 + _P3
        at += 4
    while at < end:
        value = _rotate(value ^ np.uint64(data[at]) * _P5, 11) * _P1
        at += 1
    value = (value ^ value >> np.uint64(33)) * _P2
    value = (value ^ value >> np.uint64(29)) * _P3
    return value ^ value >> np.uint64(32)


@kernel(i64(u8_in, i64_in, u64_out))
def xxh64_spans(data, offsets, hashes_out):
    """Write xxHash64, seed 0, of each `data[offsets[i]:offsets[i + 1]]`.

    Returns
    -------
    int64
        The number of spans, or -1 when the offsets do not ascend within `data`.
    """
    n = len(offsets) - 1
    if len(hashes_out) < n or offsets[0] < 0:
        return -1
    for i in range(n):
        if offsets[i + 1] < offsets[i] or offsets[i + 1] > len(data):
            return -1
        hashes_out[i] = xxh64_span(data, offsets[i], offsets[i + 1])
    return n


@inline
def _fnv_span(state, data, at, end):
    for i in range(at, end):
        state = np.uint32(state * _FNV_PRIME ^ load8(data, i))
    return state


@kernel(u32(u32, u8_in))
def fnv1_extend(state, data):
    """Return the FNV-1 state after uint8[n], for example a tenant's bytes; begin with FNV_OFFSET_BASIS."""
    return _fnv_span(state, data, 0, len(data))


@inline
def _advance_spans(state, data, offsets, n, tokens_out):
    """Hash n spans, four lanes side by side; a lane that ends takes the next span."""
    following = 0
    a = b = c = d = state
    at_a = at_b = at_c = at_d = np.int64(0)
    end_a = end_b = end_c = end_d = np.int64(0)
    own_a = own_b = own_c = own_d = np.int64(-1)
    while True:
        while at_a == end_a and following < n:
            if own_a >= 0:
                tokens_out[own_a] = a
            a, own_a, at_a, end_a = state, following, offsets[2 * following], offsets[2 * following + 1]
            following += 1
        while at_b == end_b and following < n:
            if own_b >= 0:
                tokens_out[own_b] = b
            b, own_b, at_b, end_b = state, following, offsets[2 * following], offsets[2 * following + 1]
            following += 1
        while at_c == end_c and following < n:
            if own_c >= 0:
                tokens_out[own_c] = c
            c, own_c, at_c, end_c = state, following, offsets[2 * following], offsets[2 * following + 1]
            following += 1
        while at_d == end_d and following < n:
            if own_d >= 0:
                tokens_out[own_d] = d
            d, own_d, at_d, end_d = state, following, offsets[2 * following], offsets[2 * following + 1]
            following += 1
        steps = min(min(end_a - at_a, end_b - at_b), min(end_c - at_c, end_d - at_d))
        if steps == 0:
            break
        for i in range(steps):
            a = np.uint32(a * _FNV_PRIME ^ load8(data, at_a + i))
            b = np.uint32(b * _FNV_PRIME ^ load8(data, at_b + i))
            c = np.uint32(c * _FNV_PRIME ^ load8(data, at_c + i))
            d = np.uint32(d * _FNV_PRIME ^ load8(data, at_d + i))
        at_a += steps
        at_b += steps
        at_c += steps
        at_d += steps
    if own_a >= 0:
        tokens_out[own_a] = _fnv_span(a, data, at_a, end_a)
    if own_b >= 0:
        tokens_out[own_b] = _fnv_span(b, data, at_b, end_b)
    if own_c >= 0:
        tokens_out[own_c] = _fnv_span(c, data, at_c, end_c)
    if own_d >= 0:
        tokens_out[own_d] = _fnv_span(d, data, at_d, end_d)


@kernel(i64(u32, u8_in, i64_in, u32_out))
def fnv1_spans(state, data, offsets, tokens_out):
    """Write FNV-1 of each `data[offsets[2 * i]:offsets[2 * i + 1]]`, continuing from `state`; return the spans.

    Four spans advance at a time. -1 when a span is outside `data`.
    """
    n = len(offsets) // 2
    for i in range(n):
        if offsets[2 * i] < 0 or offsets[2 * i + 1] < offsets[2 * i] or offsets[2 * i + 1] > len(data):
            return -1
    if len(tokens_out) < n:
        return -1
    _advance_spans(state, data, offsets, n, tokens_out)
    return n


@kernel(i64(u32, u8_in, i64_in, u8_out, u32_out), boundscheck=True)
def series_tokens(state, labels, label_offsets, scratch, tokens_out):
    """Write the partition token of each series.

    Parameters
    ----------
    state : uint32
        FNV-1 state after the tenant id (`fnv1_extend`).
    labels : uint8[...], read-only
    label_offsets : int64[n + 1], read-only
        Label bytes of each series.
    scratch : uint8[m]
        At least as long as `labels`, plus 16.
    tokens_out : uint32[n], written

    Returns
    -------
    int64
        n, or -1 when the label bytes are malformed.
    """
    n = len(label_offsets) - 1
    spans = np.empty(2 * n, np.int64)
    used = np.int64(0)
    for i in range(n):
        spans[2 * i] = used
        at, end = label_offsets[i], label_offsets[i + 1]
        if at < 0 or end > len(labels):
            return -1
        while at < end:
            size = np.int64(load8(labels, at))
            at += 1
            if size >= 0x80:
                value, at = read_uvarint(labels, at - 1, end)
                size = np.int64(value)
                if at < 0:
                    return -1
            if size < 0 or size > end - at or used + size + 16 > len(scratch):
                return -1
            if at + size + 16 <= len(labels):
                copy_blocks(labels, at, size, scratch, used)
            else:
                scratch[used : used + size] = labels[at : at + size]
            used += size
            at += size
        spans[2 * i + 1] = used
    _advance_spans(state, scratch, spans, n, tokens_out)
    return n
