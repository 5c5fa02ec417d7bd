"""Label bytes of OTLP data points, by plans: what the labels of points with the same keys are made of.

A plan is a run of items in the order of their names; an item is a name, attributes whose values are joined by `;`, and
what stands in for them when they are empty. Names stand with their length in front.
Twin: tests/reference/otlp.py, compared in `tests/unit/wire/test_otlp_columns.py`.
"""

from __future__ import annotations

from collections import namedtuple

import numba
import numpy as np

from mimir_ingest.kernels._jit import (
    i32_in,
    i32_out,
    i64,
    i64_in,
    i64_out,
    inline_checked,
    kernel,
    types,
    u8_in,
    u8_out,
)
from mimir_ingest.kernels.varint import uvarint_size, write_uvarint
from mimir_ingest.kernels.words import copy_over, load64

_MULTIPLIER = np.uint64(0xC6A4A7935BD1E995)

CUTS = 3
"""Places in a label set: of the metric's name; begin and end of the label that a row may add."""

Plans = namedtuple("Plans", "items names fallbacks refs ref_offsets cuts")
plans_in = types.NamedTuple((i64_in, i64_in, i64_in, i32_in, i64_in, i64_in), Plans)
"""Plans, as kernels take them.

`items` : int64[plans + 1]
    Plan p has the items `items[p]:items[p + 1]`.
`names`, `fallbacks` : int64[2 * items]
    Begin and end of each item's texts.
`refs` : int32[...], `ref_offsets` : int64[items + 1]
    Which of a point's attributes each item joins.
`cuts` : int64[2 * CUTS * plans]
    Items at which the places lie, for points whose rows add `le`, and for those whose rows add `quantile`.
"""


@kernel(i64(u8_in, plans_in, i64_in, u8_in, i64_in, i64_in, i64_in, u8_out, i64_out, i64_out), boundscheck=True)
def write_sets(
    text, plans, plan_of, adds, attribute_offsets, value_starts, value_ends, sets_out, offsets_out, cuts_out
):
    """Write the label sets of points, without a metric's name.

    Parameters
    ----------
    text : uint8[...]
        All texts.
    plan_of : int64[n]
        Plan of each point, -1 for those that have no labels.
    adds : uint8[n]
        0 for points whose rows may add `le`, 1 for `quantile`.
    attribute_offsets : int64[n + 1]
        Point i has the attributes `attribute_offsets[i]:attribute_offsets[i + 1]`.
    value_starts, value_ends : int64[...]
        Where the value of each attribute lies in `text`.
    sets_out : uint8[room], written
        Label bytes, as far as there is room for them and 15 bytes more.
    offsets_out : int64[n + 1], written
    cuts_out : int64[n * CUTS], written
        Positions in `sets_out`.

    Returns
    -------
    int64
        Bytes of all sets.
    """
    room = len(sets_out) - 15
    to = np.int64(0)
    offsets_out[0] = 0
    for point in range(len(plan_of)):
        plan = plan_of[point]
        cut = point * CUTS
        if plan < 0:
            cuts_out[cut] = cuts_out[cut + 1] = cuts_out[cut + 2] = to
            offsets_out[point + 1] = to
            continue
        first, last = plans.items[plan], plans.items[plan + 1]
        wanted = (2 * plan + adds[point]) * CUTS
        base = attribute_offsets[point]
        for item in range(first, last + 1):
            for i in range(CUTS):
                if plans.cuts[wanted + i] == item - first:
                    cuts_out[cut + i] = to
            if item == last:
                break
            low, high = plans.ref_offsets[item], plans.ref_offsets[item + 1]
            size = np.int64(0)
            for i in range(low, high):
                attribute = base + plans.refs[i]
                size += (size > 0) + value_ends[attribute] - value_starts[attribute]
            fallback = size == 0
            if fallback:
                size = plans.fallbacks[2 * item + 1] - plans.fallbacks[2 * item]
                if size == 0:
                    continue
            name = plans.names[2 * item]
            name_size = plans.names[2 * item + 1] - name
            end = to + name_size + uvarint_size(np.uint64(size)) + size
            if end > room:
                to = end
                continue
            copy_over(text, name, name_size, sets_out, to)
            to += name_size
            if size < 0x80:
                sets_out[to] = np.uint8(size)
                to += 1
            else:
                to = write_uvarint(np.uint64(size), sets_out, to)
            if fallback:
                copy_over(text, plans.fallbacks[2 * item], size, sets_out, to)
            else:
                begin = to
                for i in range(low, high):
                    attribute = base + plans.refs[i]
                    if to > begin:
                        sets_out[to] = 0x3B
                        to += 1
                    size = value_ends[attribute] - value_starts[attribute]
                    copy_over(text, value_starts[attribute], size, sets_out, to)
                    to += size
            to = end
        offsets_out[point + 1] = to
    return to


@kernel(i64(u8_in, i64_in, i64_in, u8_in, i64_in, i64_in, i64_in, i64_in, i64_in, u8_out), boundscheck=True)
def write_rows(sets, set_offsets, cuts, pairs, pair_offsets, set_of, name_of, added, label_offsets, labels_out):
    """Write the label bytes of rows: a set, the pair of `__name__`, and perhaps one label more or replaced.

    Parameters
    ----------
    sets, set_offsets, cuts
        As `write_sets` wrote them.
    pairs, pair_offsets : uint8[...], int64[p + 1]
        Pairs of names and of added labels.
    set_of, name_of, added : int64[rows]
        Each row's set, pair of its name, and added pair or -1.
    label_offsets : int64[rows + 1]
        Where each row goes, worked out by the caller.
    labels_out : uint8[label_offsets[-1]], written

    Returns
    -------
    int64
        Bytes written.
    """
    for row in range(len(set_of)):
        one, name, more = set_of[row], name_of[row], added[row]
        to = label_offsets[row]
        begin, cut, end = set_offsets[one], cuts[one * CUTS], set_offsets[one + 1]
        copy_over(sets, begin, cut - begin, labels_out, to)
        to += cut - begin
        size = pair_offsets[name + 1] - pair_offsets[name]
        copy_over(pairs, pair_offsets[name], size, labels_out, to)
        to += size
        if more >= 0:
            size = cuts[one * CUTS + 1] - cut
            copy_over(sets, cut, size, labels_out, to)
            to += size
            cut = cuts[one * CUTS + 2]
            size = pair_offsets[more + 1] - pair_offsets[more]
            copy_over(pairs, pair_offsets[more], size, labels_out, to)
            to += size
        copy_over(sets, cut, end - cut, labels_out, to)
    return label_offsets[len(set_of)]


@inline_checked
def _hash_of(text, at, size):
    """Return a hash for a table in memory."""
    hashed = np.uint64(size) * _MULTIPLIER
    whole = size - size % 8
    for i in range(at, at + whole, 8):
        hashed = (hashed ^ load64(text, i)) * _MULTIPLIER
        hashed ^= hashed >> np.uint64(29)
    for i in range(at + whole, at + size):
        hashed = (hashed ^ np.uint64(text[i])) * _MULTIPLIER
    return hashed ^ (hashed >> np.uint64(32))


@numba.njit(inline="always")
def _equal(text, a, b, size):
    """Whether `size` bytes at two places within the text are equal."""
    i = np.int64(0)
    while i + 8 <= size:
        if load64(text, a + i) != load64(text, b + i):
            return False
        i += 8
    while i < size:
        if text[a + i] != text[b + i]:
            return False
        i += 1
    return True


@kernel(i64(u8_in, i64_in, i64_in, i32_out, i32_out, i32_out, i32_out), boundscheck=True)
def number_strings(text, starts, ends, slots, followers, firsts_out, numbers_out):
    """Number strings in the order in which they first come.

    Strings mostly come in the same order again and again, so the one that followed last time is tried first.

    Parameters
    ----------
    text, starts, ends : uint8[...], int64[n], int64[n]
        String i is `text[starts[i]:ends[i]]`.
    slots : int32[a power of two, at least 2n], zeros
        Scratch, as is the next.
    followers : int32[n], zeros
    firsts_out : int32[n], written
        Where each distinct string is first.
    numbers_out : int32[n], written

    Returns
    -------
    int64
        Distinct strings.
    """
    mask = np.uint64(len(slots) - 1)
    count = last = np.int64(0)
    for i in range(len(starts)):
        start = starts[i]
        size = ends[i] - start
        if start < 0 or size < 0 or start + size > len(text):
            raise IndexError
        number = np.int64(followers[last]) if count > 0 else np.int64(0)
        guess = np.int64(firsts_out[number]) if number < count else i
        if guess == i or ends[guess] - starts[guess] != size or not _equal(text, starts[guess], start, size):
            at = _hash_of(text, start, size) & mask
            while True:
                number = np.int64(slots[np.int64(at)]) - 1
                if number < 0:
                    number = count
                    firsts_out[number] = i
                    slots[np.int64(at)] = number + 1
                    count += 1
                    break
                guess = np.int64(firsts_out[number])
                if ends[guess] - starts[guess] == size and _equal(text, starts[guess], start, size):
                    break
                at = (at + np.uint64(1)) & mask
            followers[last] = number
        numbers_out[i] = number
        last = number
    return count
