"""Label pairs of series: cutting label bytes into pairs, and selecting series by sets of pairs.

The pairs of all series stand back to back: series r has the pairs `pairs[pair_starts[r]:pair_starts[r + 1]]`, numbers
of a table of distinct pairs. Twin: tests/reference/label_pairs.py.
"""

from __future__ import annotations

import numpy as np

from mimir_ingest.kernels._jit import i32_in, i32_out, i64, i64_in, i64_out, inline_checked, kernel, u8_in, u64, u64_in
from mimir_ingest.kernels.validate import is_utf8
from mimir_ingest.kernels.words import compare_bytes

MALFORMED = -1
"""Status: label bytes that are not (uvarint length, bytes)* with an even number of strings."""


@inline_checked
def _string_end(text, at, end):
    """Return (start, end) of the length-prefixed string at `at`, end MALFORMED when it passes `end`."""
    size = 0
    for shift in range(0, 35, 7):
        if at >= end:
            return at, MALFORMED
        byte = np.int64(text[at])
        at += 1
        size |= (byte & 0x7F) << shift
        if byte < 0x80:
            if at + size > end:
                return at, MALFORMED
            return at, at + size
    return at, MALFORMED


@inline_checked
def _text_end(text, at, end):
    """As `_string_end`, of a string that is not empty, is UTF-8, and has the shortest length prefix."""
    start, string_end = _string_end(text, at, end)
    if string_end <= start or (start - at > 1 and text[start - 1] == 0) or not is_utf8(text, start, string_end):
        return start, np.int64(MALFORMED)
    return start, string_end


@kernel(i64(u8_in, i64_in, i64_in), boundscheck=True)
def check_label_sets(text, starts, ends):
    """Check that `text[starts[i]:ends[i]]` are label sets in their one form (model/labels.py), which blocks can hold.

    Returns
    -------
    int64
        How many are, counted from the first one on; `len(starts)` when all are.
    """
    for i in range(len(starts)):
        at = starts[i]
        last, last_size = at, np.int64(-1)
        while at < ends[i]:
            name, name_end = _text_end(text, at, ends[i])
            if name_end < 0:
                return i
            _, at = _text_end(text, name_end, ends[i])
            if at < 0 or (last_size >= 0 and compare_bytes(text, last, last_size, name, name_end - name) >= 0):
                return i
            last, last_size = name, name_end - name
    return len(starts)


@kernel(i64(u8_in, i64_in, i64_in, i64_out), boundscheck=True)
def count_pairs(text, starts, ends, counts_out):
    """Count the pairs of the label sets `text[starts[i]:ends[i]]`.

    Returns
    -------
    int64
        The sum of `counts_out` (int64[n]), or MALFORMED.
    """
    total = 0
    for i in range(len(starts)):
        at = starts[i]
        strings = 0
        while at < ends[i]:
            _, at = _string_end(text, at, ends[i])
            if at < 0:
                return MALFORMED
            strings += 1
        if strings % 2:
            return MALFORMED
        counts_out[i] = strings // 2
        total += strings // 2
    return total


@kernel(i64(u8_in, i64_in, i64_in, i64_out, i64_out, i64_out, i64_out), boundscheck=True)
def split_pairs(text, starts, ends, pair_starts_out, name_ends_out, value_starts_out, pair_ends_out):
    """Cut the label sets `text[starts[i]:ends[i]]` into pairs (positions in `text`).

    `text[pair_starts_out[j]:name_ends_out[j]]` is a name with its length prefix, `text[value_starts_out[j]:
    pair_ends_out[j]]` a value without. Returns the number of pairs, or MALFORMED.
    """
    count = 0
    for i in range(len(starts)):
        at = starts[i]
        while at < ends[i]:
            pair_starts_out[count] = at
            _, at = _string_end(text, at, ends[i])
            if at < 0:
                return MALFORMED
            name_ends_out[count] = at
            value, at = _string_end(text, at, ends[i])
            if at < 0:
                return MALFORMED
            value_starts_out[count] = value
            pair_ends_out[count] = at
            count += 1
    return count


@kernel(i64(i64_in, i32_in, i64, i64_out, i32_out))
def build_postings(pair_starts, pairs, series_count, starts_out, refs_out):
    """Invert series → pairs into pair → series, ascending.

    Parameters
    ----------
    starts_out : int64[pair count + 1], zeros, written
        Pair p is in the series `refs_out[starts_out[p]:starts_out[p + 1]]`.
    refs_out : int32[pair_starts[series_count]], written

    Returns
    -------
    int64
        Entries written.
    """
    total = pair_starts[series_count]
    last = len(starts_out) - 1
    for i in range(total):
        starts_out[pairs[i] + 1] += 1
    for p in range(last):
        starts_out[p + 1] += starts_out[p]
    for r in range(series_count):
        for i in range(pair_starts[r], pair_starts[r + 1]):
            p = pairs[i]
            refs_out[starts_out[p]] = r
            starts_out[p] += 1
    for p in range(last, 0, -1):
        starts_out[p] = starts_out[p - 1]
    starts_out[0] = 0
    return total


@kernel(i64(i32_in, i64_in, i32_in, u64_in, u64_in, u64, u64, i32_out))
def filter_series(refs, pair_starts, pairs, accepted, constrained, required, absent_accepted, refs_out):
    """Keep the series that satisfy every matcher; matcher m is bit m.

    Parameters
    ----------
    refs : int32[n]
        Candidates.
    accepted, constrained : uint64[pair count]
        The matchers that accept the pair; the matchers on the pair's name.
    required : uint64
        Bits of all matchers.
    absent_accepted : uint64
        Matchers that a series without the label satisfies.

    Returns
    -------
    int64
        Series written to `refs_out` (int32[n]), in the order of `refs`.
    """
    kept = 0
    for i in range(len(refs)):
        r = refs[i]
        got, seen = np.uint64(0), np.uint64(0)
        for j in range(pair_starts[r], pair_starts[r + 1]):
            got |= accepted[pairs[j]]
            seen |= constrained[pairs[j]]
        if (got | (absent_accepted & ~seen)) == required:
            refs_out[kept] = r
            kept += 1
    return kept


@kernel(i64(i32_in, i64_in, i32_in, i64_out, i32_out))
def gather_pairs(refs, pair_starts, pairs, offsets_out, pairs_out):
    """Copy the pairs of the series `refs`: series i's go to `pairs_out[offsets_out[i]:offsets_out[i + 1]]`."""
    written = 0
    offsets_out[0] = 0
    for i in range(len(refs)):
        for j in range(pair_starts[refs[i]], pair_starts[refs[i] + 1]):
            pairs_out[written] = pairs[j]
            written += 1
        offsets_out[i + 1] = written
    return written


@kernel(i64(i64_in, i64_in, i32_in, i64, i64_in, i32_in, i64, i64, i32_out))
def match_few(wanted, posting_starts, postings, indexed, pair_starts, pairs, series_count, most, refs_out):
    """Find the series that have all pairs `wanted`, without looking at more than a few.

    Parameters
    ----------
    wanted : int64[k]
        At least one pair.
    posting_starts, postings : int64[p + 1], int32[...]
        As `build_postings` makes them of the first `indexed` series; they may lack the newest pairs.
    series_count : int64
        Series to look at; those from `indexed` on are scanned.
    most : int64
        The shortest list of postings may be as long.
    refs_out : int32[room], written, ascending

    Returns
    -------
    int64
        Series found, -1 if they or the list to go through are too many.
    """
    driver, shortest = wanted[0], most + 1
    for k in range(len(wanted)):
        pair = wanted[k]
        size = posting_starts[pair + 1] - posting_starts[pair] if pair < len(posting_starts) - 1 else 0
        if size < shortest:
            driver, shortest = pair, size
    if shortest > most:
        return -1
    found = 0
    first = posting_starts[driver] if driver < len(posting_starts) - 1 else 0
    for i in range(shortest + max(0, series_count - indexed)):
        ref = np.int64(postings[first + i]) if i < shortest else indexed + i - shortest
        if ref >= series_count:
            continue
        low, high = pair_starts[ref], pair_starts[ref + 1]
        has_all = True
        for k in range(len(wanted)):
            at = low
            while at < high and pairs[at] != wanted[k]:
                at += 1
            if at == high:
                has_all = False
                break
        if has_all:
            if found == len(refs_out):
                return -1
            refs_out[found] = ref
            found += 1
    return found
