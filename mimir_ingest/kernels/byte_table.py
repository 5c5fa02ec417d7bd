"""Tables that number distinct byte strings: open addressing, linear probing, exact comparison.

Key i is `arena[key_starts[i]:key_starts[i + 1]]` with the hash `key_hashes[i]`; numbers are dense and never change. A
slot is 0 when free, else `high 32 bits of the hash << 32 | number + 1`; probing starts at `hash & (len(slots) - 1)`.
Callers make room first: slots at most half used, arena and key columns large enough for everything that they add.
Bytes are compared eight at a time. Twin: tests/reference/byte_table.py.
"""

from __future__ import annotations

import numpy as np

from mimir_ingest.kernels._jit import i32_out, i64, i64_in, i64_out, inline, kernel, u8_in, u8_out, u64_in, u64_out
from mimir_ingest.kernels.words import load64

UNKNOWN = -1
"""Number of a key that the table lacks."""

_LOW32 = np.uint64(0xFFFFFFFF)
_HIGH32 = np.uint64(0xFFFFFFFF00000000)
_U0, _U1, _U32, _U47 = np.uint64(0), np.uint64(1), np.uint64(32), np.uint64(47)
_MULTIPLIER = np.uint64(0xC6A4A7935BD1E995)


@inline
def _equal(a, a_start, b, b_start, size):
    """Whether `size` bytes of a and b are equal; both ranges lie within their arrays."""
    if size < 8:
        for i in range(size):  # noqa: SIM110 (a generator does not compile)
            if a[a_start + i] != b[b_start + i]:
                return False
        return True
    # No way out in between, so that the compiler takes several words at a time: equal hashes mean equal bytes.
    last = size - 8
    different = load64(a, a_start + last) ^ load64(b, b_start + last)
    for i in range(0, last, 8):
        different |= load64(a, a_start + i) ^ load64(b, b_start + i)
    return different == _U0


@inline
def _find(hashed, text, start, size, slots, key_starts, arena):
    """Return (number or UNKNOWN, slot where the search ended)."""
    mask = np.uint64(len(slots) - 1)
    at = hashed & mask
    tag = hashed & _HIGH32
    while True:
        slot = slots[np.int64(at)]
        if slot == _U0:
            return np.int64(UNKNOWN), np.int64(at)
        if slot & _HIGH32 == tag:
            number = np.int64(slot & _LOW32) - 1
            key_start = key_starts[number]
            if key_starts[number + 1] - key_start == size and _equal(text, start, arena, key_start, size):
                return number, np.int64(at)
        at = (at + _U1) & mask


@kernel(i64(u8_in, i64_in, u64_in, u64_in, i64_in, u64_in, u8_in, i64, i32_out))
def find_keys(text, offsets, hashes, slots, key_starts, key_hashes, arena, count, numbers_out):
    """Look up the strings `text[offsets[i]:offsets[i + 1]]`.

    Writers repeat their series in the same order, so the key after the one just found is tried first.

    Returns
    -------
    int64
        How many are unknown; their `numbers_out` (int32[n]) is UNKNOWN. A key with another hash than its string is one.
    """
    unknown = 0
    guess = np.int64(0)
    for i in range(len(hashes)):
        start = offsets[i]
        size = offsets[i + 1] - start
        hashed = hashes[i]
        if (
            guess < count
            and key_hashes[guess] == hashed
            and key_starts[guess + 1] - key_starts[guess] == size
            and _equal(text, start, arena, key_starts[guess], size)
        ):
            number = guess
        else:
            number, _ = _find(hashed, text, start, size, slots, key_starts, arena)
            if number < 0 or key_hashes[number] != hashed:
                number = np.int64(UNKNOWN)
                unknown += 1
        numbers_out[i] = number
        guess = number + 1
    return unknown


@kernel(i64(u8_in, i64_in, i64_in, u64_in, u64_out, i64_out, u64_out, u8_out, i64, i32_out))
def intern_keys(text, starts, ends, hashes, slots, key_starts, key_hashes, arena, count, numbers_out):
    """Number the strings `text[starts[i]:ends[i]]`, adding those that are new, in order.

    `key_starts[count]` is where the next key goes in `arena`. Returns the new count of keys.
    """
    for i in range(len(starts)):
        start = starts[i]
        size = ends[i] - start
        number, at = _find(hashes[i], text, start, size, slots, key_starts, arena)
        if number < 0:
            number = count
            count += 1
            key_start = key_starts[number]
            arena[key_start : key_start + size] = text[start : start + size]
            key_starts[number + 1] = key_start + size
            key_hashes[number] = hashes[i]
            slots[at] = (hashes[i] & _HIGH32) | np.uint64(number + 1)
        numbers_out[i] = number
    return count


@kernel(i64(u64_in, i64, u64_out))
def fill_slots(key_hashes, count, slots_out):
    """Enter keys 0..count into empty slots (after growth). Returns `count`."""
    mask = np.uint64(len(slots_out) - 1)
    for number in range(count):
        hashed = key_hashes[number]
        at = hashed & mask
        while slots_out[np.int64(at)] != _U0:
            at = (at + _U1) & mask
        slots_out[np.int64(at)] = (hashed & _HIGH32) | np.uint64(number + 1)
    return count


@kernel(i64(u8_in, i64_in, i64_in, u64_out))
def hash_spans(text, starts, ends, hashes_out):
    """Hash the strings `text[starts[i]:ends[i]]` for tables in memory: MurmurHash64A's step, never written anywhere."""
    for i in range(len(starts)):
        size = ends[i] - starts[i]
        whole = size - size % 8
        words = text[starts[i] : starts[i] + whole].view(np.uint64)
        hashed = np.uint64(size) * _MULTIPLIER
        for j in range(len(words)):
            word = words[j] * _MULTIPLIER
            word ^= word >> _U47
            hashed = (hashed ^ (word * _MULTIPLIER)) * _MULTIPLIER
        tail = _U0
        for j in range(starts[i] + whole, ends[i]):
            tail = (tail << np.uint64(8)) | np.uint64(text[j])
        hashed = (hashed ^ tail) * _MULTIPLIER
        hashed ^= hashed >> _U47
        hashed *= _MULTIPLIER
        hashes_out[i] = hashed ^ (hashed >> _U32)
    return len(starts)
