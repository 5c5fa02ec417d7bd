"""The head's hot loops: admission of samples, sorting them by series, picking and joining chunks.

Staged samples are three columns in the order accepted (ref, timestamp, value). A chunk list is sorted by (ref, order of
acceptance). Joining keeps, of equal timestamps, the one accepted first. Twin: tests/reference/head.py.
"""

from __future__ import annotations

import numpy as np

from mimir_ingest.kernels._jit import bool_in, f64_in, f64_out, i32_in, i32_out, i64, i64_in, i64_out, inline, kernel
from mimir_ingest.kernels.words import as_bits, copy_over

NO_SAMPLE = -(1 << 63)
"""Last timestamp of a series that is forgotten: it is new again when its next sample comes."""

FRESH = -(1 << 63) + 1
"""Last timestamp of a series that has just been created."""

ROW_NOT_ELIGIBLE, ROW_OVER_LIMIT, ROW_OVER_METRIC_LIMIT = -1, -2, -3
"""Refs of rows without a series: no sample passes by time; the limit of the tenant's, of the metric's series is
reached."""

ACCEPTED, TIMESTAMP_TOO_OLD, OUT_OF_ORDER, TOO_OLD, NEW_VALUE, TOO_FAR_IN_FUTURE, SERIES_LIMIT, REPEATED = range(8)
"""Outcomes of a sample: index into `counts_out` of `admit_samples`."""

INVALID_HISTOGRAM = 8
"""Outcome of a native histogram that contradicts itself; it does not come this far."""

METRIC_SERIES_LIMIT = 9
"""Outcome of a sample: the limit of its metric's series is reached."""

REJECTED = [i for i in range(METRIC_SERIES_LIMIT + 1) if i not in (ACCEPTED, REPEATED)]
"""Outcomes that are counted as discarded."""

MIN_ACCEPTED, MAX_ACCEPTED, ACCEPTED_LATE, BEHIND_MS, BEHIND_BUCKETS = 10, 11, 12, 13, 14
"""Further entries of `counts_out`: the smallest and largest accepted timestamp, how many were accepted out of order; of
those out of order, accepted or not, by how much (ms) they were behind the newest sample in all, and how many of them
by no more than each of BEHIND_BOUNDS_MS but more than the one before it, and by more than all."""

BEHIND_BOUNDS_MS = (600_000, 1_800_000, 3_600_000, 7_200_000, 10_800_000, 21_600_000, 43_200_000)
"""Those of Prometheus's histogram."""

OUTCOME_COLUMNS = BEHIND_BUCKETS + len(BEHIND_BOUNDS_MS) + 1
"""Length of `counts_out`."""


@kernel(i64(i64_in, i64_in, i64_in, i64, i64, i64_out))
def eligible_rows(rows, sample_offsets, timestamps, floor, ceiling, rows_out):
    """Keep the rows with at least one sample in `[floor, ceiling]`. Returns their count."""
    kept = 0
    for i in range(len(rows)):
        row = rows[i]
        for j in range(sample_offsets[row], sample_offsets[row + 1]):
            if floor <= timestamps[j] <= ceiling:
                rows_out[kept] = row
                kept += 1
                break
    return kept


_STALE, _NAN = np.uint64(0x7FF0000000000002), np.uint64(0x7FF8000000000001)


@inline
def _note_behind(held_ms, t, counts_out):
    """Count a sample at `t`, if it is behind the newest one that was held."""
    if t < held_ms:
        at = BEHIND_BUCKETS
        for bound in BEHIND_BOUNDS_MS:
            at += held_ms - t > bound
        counts_out[at] += 1
        counts_out[BEHIND_MS] += held_ms - t


@kernel(
    i64(
        i32_in,
        i64_in,
        i64_in,
        f64_in,
        i64_in,
        bool_in,
        i64_in,
        i64_out,
        f64_out,
        f64_out,
        i32_out,
        i64_out,
        f64_out,
        i64_out,
        i64_out,
    )
)
def admit_samples(
    refs, sample_offsets, timestamps, values, starts, deltas, bounds, last_ts, last_value, totals,
    refs_out, ts_out, values_out, rows_out, counts_out,
):  # fmt: skip
    """Decide every sample of a record, in row order, as Prometheus's `memSeries.appendable` does.

    A sample that says when what it counts began gets another one there, in front of it: zero, or of deltas what they
    came to before. That one is never out of order, and nobody is told when there is no place for it. A delta is taken
    only behind all samples of its series; of floats the running total is stored.

    Parameters
    ----------
    refs : int32[n]
        Series of each row, or ROW_NOT_ELIGIBLE, ROW_OVER_LIMIT, ROW_OVER_METRIC_LIMIT.
    sample_offsets, timestamps (ms), values
        The record's samples (model.batch); for native histograms, the value is the bits of a digest.
    starts : int64[len(timestamps)] (ms), or int64[0]
        When what each sample counts began; 0 and less: not known.
    deltas : bool[n], or bool[0]
        Rows whose samples are deltas.
    bounds : int64[5]
        Oldest in-order timestamp, oldest out-of-order timestamp, newest timestamp, 1 if out-of-order samples are taken,
        newest timestamp held or NO_SAMPLE.
    last_ts, last_value : int64[series], float64[series], written
        Newest sample of each series.
    totals : float64[series] or float64[0], written
        What the deltas of each series come to; without any entries deltas are not added up.
    refs_out, ts_out, values_out : int32, int64, float64[len(timestamps) + len(starts)], written
        Accepted samples, in order.
    rows_out : int64[len(timestamps) + len(starts)], or int64[0]
        Their numbers in the record; -1 - i for the one in front of sample i.
    counts_out : int64[OUTCOME_COLUMNS], added to
        Samples by outcome; of the accepted, extremes and how many were out of order; how far those out of order were
        behind, but of series over a limit.

    Returns
    -------
    int64
        Samples accepted.
    """
    words = values.view(np.uint64)
    last_words = last_value.view(np.uint64)
    words_out = values_out.view(np.uint64)
    in_order, out_of_order, newest, has_window = bounds[0], bounds[1], bounds[2], bounds[3] != 0
    held_ms = bounds[4]
    has_rows, has_starts, has_deltas, has_totals = len(rows_out) > 0, len(starts) > 0, len(deltas) > 0, len(totals) > 0
    accepted = 0
    low, high = counts_out[MIN_ACCEPTED], counts_out[MAX_ACCEPTED]
    for row in range(len(refs)):
        ref = refs[row]
        is_delta = has_deltas and deltas[row]
        for j in range(sample_offsets[row], sample_offsets[row + 1]):
            t = timestamps[j]
            last = last_ts[ref] if ref >= 0 else FRESH
            if t > newest:
                outcome = TOO_FAR_IN_FUTURE
            elif t >= in_order and t > last:
                outcome = ACCEPTED
            elif is_delta and t <= last:
                outcome = REPEATED if t == last else OUT_OF_ORDER
            elif t == last and (t >= in_order or (has_window and t >= out_of_order)):
                outcome = REPEATED if words[j] == last_words[ref] else NEW_VALUE
            elif has_window:
                outcome = ACCEPTED if t >= out_of_order else TOO_OLD
            else:
                outcome = TIMESTAMP_TOO_OLD if t < in_order else OUT_OF_ORDER
            # Without a window, what is too old is not looked at, as in Prometheus; of a series unknown till then it is.
            if (in_order <= t < last or (t < in_order and has_window)) and ref >= ROW_NOT_ELIGIBLE and t <= newest:
                _note_behind(held_ms, t, counts_out)
            if outcome == ACCEPTED and ref < 0:
                outcome = METRIC_SERIES_LIMIT if ref == ROW_OVER_METRIC_LIMIT else SERIES_LIMIT
            if outcome == ACCEPTED:
                start = starts[j] if has_starts else np.int64(0)
                oldest = min(in_order, out_of_order) if is_delta and has_window else in_order
                if start > 0 and max(oldest, last + 1) <= start < t:
                    refs_out[accepted] = ref
                    ts_out[accepted] = start
                    values_out[accepted] = totals[ref] if is_delta and has_totals else 0.0
                    if has_rows:
                        rows_out[accepted] = -1 - j
                    accepted += 1
                    counts_out[ACCEPTED] += 1
                    low, high = min(low, start), max(high, start)
                counts_out[ACCEPTED_LATE] += t < in_order or t <= last
                word = words[j]
                if is_delta and has_totals and word != _STALE:
                    total = totals[ref] + values[j]
                    word = as_bits(total) if total == total else _NAN
                    totals[ref] = total if np.isfinite(total) else 0.0
                if t > last:
                    last_ts[ref] = t
                    last_words[ref] = word
                refs_out[accepted] = ref
                ts_out[accepted] = t
                words_out[accepted] = word
                if has_rows:
                    rows_out[accepted] = j
                accepted += 1
                low, high = min(low, t), max(high, t)
            counts_out[outcome] += 1
    counts_out[MIN_ACCEPTED], counts_out[MAX_ACCEPTED] = low, high
    return accepted


@inline
def _merge_runs(ts, words, low, middle, high, ts_out, words_out):
    """Merge `[low:middle]` and `[middle:high]` stably into the same places of the outputs."""
    i, j = low, middle
    for at in range(low, high):
        if i < middle and (j >= high or ts[i] <= ts[j]):
            ts_out[at], words_out[at] = ts[i], words[i]
            i += 1
        else:
            ts_out[at], words_out[at] = ts[j], words[j]
            j += 1


@inline
def _ascend(ts, words, low, high, spare_ts, spare_words):
    """Sort `[low:high]` by time, stably, by merging natural runs; drop all but the first of equal times.

    Returns the new end.
    """
    while True:
        runs = 0
        at = low
        while at < high:
            middle = at + 1
            while middle < high and ts[middle] >= ts[middle - 1]:
                middle += 1
            end = middle
            if middle < high:
                end = middle + 1
                while end < high and ts[end] >= ts[end - 1]:
                    end += 1
                _merge_runs(ts, words, at, middle, end, spare_ts, spare_words)
                for i in range(at, end):
                    ts[i], words[i] = spare_ts[i], spare_words[i]
            runs += 1
            at = end
        if runs <= 1:
            break
    kept = low + 1
    for i in range(low + 1, high):
        if ts[i] != ts[kept - 1]:
            ts[kept], words[kept] = ts[i], words[i]
            kept += 1
    return kept


@kernel(i64(i32_in, i64_in, f64_in, i64_out, i32_out, i64_out, i64_out, f64_out, i64_out, f64_out))
def group_samples(refs, timestamps, values, starts, refs_out, offsets_out, ts_out, values_out, spare_ts, spare_values):
    """Sort staged samples by series and time.

    Parameters
    ----------
    refs, timestamps, values : int32[m], int64[m] (ms), float64[m]
        Staged samples.
    starts : int64[series + 1], zeros, written
        Scratch.
    refs_out, offsets_out : int32[min(m, series)], int64[min(m, series) + 1], written
        Series i of the result is `refs_out[i]` and has the samples `offsets_out[i]:offsets_out[i + 1]`.
    ts_out, values_out, spare_ts, spare_values : int64[m], float64[m] twice, written
        Samples, timestamps strictly ascending in a series; scratch.

    Returns
    -------
    int64
        Series written.
    """
    words = values.view(np.uint64)
    words_out = values_out.view(np.uint64)
    spare_words = spare_values.view(np.uint64)
    series = len(starts) - 1
    for i in range(len(refs)):
        starts[refs[i] + 1] += 1
    for r in range(series):
        starts[r + 1] += starts[r]
    for i in range(len(refs)):
        at = starts[refs[i]]
        starts[refs[i]] = at + 1
        ts_out[at] = timestamps[i]
        words_out[at] = words[i]
    groups = written = begin = 0
    offsets_out[0] = 0
    for r in range(series):
        end = starts[r]
        if end == begin:
            continue
        ascending = True
        for i in range(begin + 1, end):
            if ts_out[i] <= ts_out[i - 1]:
                ascending = False
                break
        kept = end if ascending else _ascend(ts_out, words_out, begin, end, spare_ts, spare_words)
        if written != begin:
            for i in range(begin, kept):
                ts_out[written + i - begin] = ts_out[i]
                words_out[written + i - begin] = words_out[i]
        written += kept - begin
        refs_out[groups] = r
        groups += 1
        offsets_out[groups] = written
        begin = end
    return groups


@kernel(i64(i64_in, i64, i64_out, i64_out))
def plan_chunks(offsets, chunk_samples, starts_out, series_out):
    """Split each series' samples into chunks of at most `chunk_samples`, as even as possible.

    `starts_out` (int64[chunks + 1]) gets sample positions, `series_out` (int64[chunks]) the series. Returns the chunks.
    """
    chunks = 0
    for s in range(len(offsets) - 1):
        count = offsets[s + 1] - offsets[s]
        parts = (count + chunk_samples - 1) // chunk_samples
        for part in range(parts):
            starts_out[chunks] = offsets[s] + count * part // parts
            series_out[chunks] = s
            chunks += 1
    starts_out[chunks] = offsets[len(offsets) - 1]
    return chunks


@kernel(i64(i32_in, i32_in, i64_in, i64_in, i64, i64, i64_out, i64_out))
def pick_chunks(refs, chunk_refs, chunk_min, chunk_max, start_ms, end_ms, chunks_out, positions_out):
    """Find the chunks of the series `refs` that overlap `[start_ms, end_ms)`.

    Parameters
    ----------
    refs : int32[n], ascending
    chunk_refs, chunk_min, chunk_max : int32[c] ascending, int64[c], int64[c] (ms)
    chunks_out, positions_out : int64[c], written
        Chunk, and the position in `refs` of its series; in chunk order.

    Returns
    -------
    int64
        Chunks found.
    """
    found = at = 0
    count = len(chunk_refs)
    for i in range(len(refs)):
        ref = refs[i]
        step = 1
        while at + step < count and chunk_refs[at + step] < ref:
            step *= 2
        low, high = at, min(at + step, count)
        while low < high:
            middle = (low + high) // 2
            if chunk_refs[middle] < ref:
                low = middle + 1
            else:
                high = middle
        at = low
        while at < count and chunk_refs[at] == ref:
            if chunk_min[at] < end_ms and chunk_max[at] >= start_ms:
                chunks_out[found] = at
                positions_out[found] = i
                found += 1
            at += 1
    return found


@kernel(i64(i32_in, i64_in, f64_in, i32_in, i64, i64, i64_out, i64_out, f64_out))
def pick_staged(refs, timestamps, values, position_of, start_ms, end_ms, positions_out, ts_out, values_out):
    """Copy the staged samples in `[start_ms, end_ms)` of series r with `position_of[r] >= 0`, in order.

    Returns the samples written.
    """
    words = values.view(np.uint64)
    words_out = values_out.view(np.uint64)
    found = 0
    for i in range(len(refs)):
        position = position_of[refs[i]]
        if position >= 0 and start_ms <= timestamps[i] < end_ms:
            positions_out[found] = position
            ts_out[found] = timestamps[i]
            words_out[found] = words[i]
            found += 1
    return found


@inline
def _first_not_before(timestamps, low, high, at):
    """Return the first place in the ascending `timestamps[low:high]` that is not before `at`."""
    if low == high or timestamps[low] >= at:
        return low
    if timestamps[high - 1] < at:
        return high
    while low < high:
        middle = (low + high) // 2
        if timestamps[middle] < at:
            low = middle + 1
        else:
            high = middle
    return low


@kernel(i64(i64_in, i64_in, i64_in, f64_in, i64, i64, i64_out, i64_out, i64_out, f64_out, i64_out, f64_out))
def join_pieces(
    positions, piece_offsets, timestamps, values, start_ms, end_ms,
    order, offsets_out, ts_out, values_out, spare_ts, spare_values,
):  # fmt: skip
    """Join pieces of series (chunks, staged samples) into whole series.

    Parameters
    ----------
    positions : int64[p]
        Series (0..n) of each piece; pieces are in the order of acceptance.
    piece_offsets : int64[p + 1]
        Piece i has the samples `piece_offsets[i]:piece_offsets[i + 1]`, timestamps ascending.
    timestamps, values : int64[m] (ms), float64[m]
        Samples; those outside `[start_ms, end_ms)` are left out.
    order : int64[p], written
        Scratch.
    offsets_out : int64[n + 1], zeros, written
        Series i has the samples `offsets_out[i]:offsets_out[i + 1]`, timestamps strictly ascending.
    ts_out, values_out, spare_ts, spare_values : int64[m], float64[m] twice, written
        Samples; scratch.

    Returns
    -------
    int64
        Samples written.
    """
    ts_bytes, value_bytes = timestamps.view(np.uint8), values.view(np.uint8)
    ts_bytes_out, value_bytes_out = ts_out.view(np.uint8), values_out.view(np.uint8)
    words, words_out = values.view(np.uint64), values_out.view(np.uint64)
    spare_words = spare_values.view(np.uint64)
    n = len(offsets_out) - 1
    for i in range(len(positions)):
        offsets_out[positions[i] + 1] += 1
    for s in range(n):
        offsets_out[s + 1] += offsets_out[s]
    for i in range(len(positions)):
        s = positions[i]
        order[offsets_out[s]] = i
        offsets_out[s] += 1
    written = first = 0
    for s in range(n):
        last = offsets_out[s]
        begin = written
        ascending = True
        for k in range(first, last):
            piece = order[k]
            low, high = piece_offsets[piece], piece_offsets[piece + 1]
            if high - low == 1:
                t = timestamps[low]
                if start_ms <= t < end_ms:
                    if written > begin and t <= ts_out[written - 1]:
                        ascending = False
                    ts_out[written], words_out[written] = t, words[low]
                    written += 1
                continue
            low = _first_not_before(timestamps, low, high, start_ms)
            high = _first_not_before(timestamps, low, high, end_ms)
            if low < high and written > begin and timestamps[low] <= ts_out[written - 1]:
                ascending = False
            copy_over(ts_bytes, 8 * low, 8 * (high - low), ts_bytes_out, 8 * written)
            copy_over(value_bytes, 8 * low, 8 * (high - low), value_bytes_out, 8 * written)
            written += high - low
        if not ascending:
            written = _ascend(ts_out, words_out, begin, written, spare_ts, spare_words)
        offsets_out[s] = begin
        first = last
    offsets_out[n] = written
    return written
