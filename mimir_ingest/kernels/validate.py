"""Validation of series: one pass that gives the first broken rule of each, and where.

The rules and their order are those of spec ingest-storage 8.5. A series without a byte over 0x7F, which is nearly every
one, needs no UTF-8 check: its bytes are looked at eight at a time, and only label names a second time.
Twin: tests/reference/validate.py.
"""

from __future__ import annotations

import enum

import numba
import numpy as np

from mimir_ingest.kernels._jit import i64, i64_in, i64_out, inline, inline_checked, kernel, u8_in, u8_out
from mimir_ingest.kernels.varint import CUT_OFF, read_length
from mimir_ingest.kernels.words import compare_bytes, load64


class SeriesRule(enum.IntEnum):
    """The first rule that a series breaks."""

    OK = 0
    NO_LABELS = 1
    MISSING_METRIC_NAME = 2
    METRIC_NAME_INVALID = 3
    MAX_LABEL_NAMES = 4
    MAX_LABEL_NAMES_INFO = 5
    LABEL_INVALID = 6
    LABEL_NAME_TOO_LONG = 7
    LABEL_VALUE_INVALID = 8
    LABEL_VALUE_TOO_LONG = 9
    DUPLICATE_LABEL_NAMES = 10
    TOO_FAR_IN_FUTURE = 11
    TOO_FAR_IN_PAST = 12
    VALUES_TO_SHORTEN = 13
    """Breaks no rule, once its over-long values are shortened."""


(
    MAX_LABEL_NAMES,
    MAX_LABEL_NAMES_INFO,
    MAX_NAME_BYTES,
    MAX_VALUE_BYTES,
    UTF8_SCHEME,
    SKIP_LABEL_NAMES,
    SKIP_LABEL_COUNT,
    SHORTEN_VALUES,
    MIN_TIMESTAMP,
    MAX_TIMESTAMP,
) = range(10)
"""Indexes of the limits; from UTF8_SCHEME to SHORTEN_VALUES they are 0 or 1, timestamps are inclusive."""

UNORDERED, WITHOUT_SAMPLES = range(2)
"""Indexes of the counts."""

_OK = np.uint8(SeriesRule.OK)
_NO_LABELS = np.uint8(SeriesRule.NO_LABELS)
_MISSING_METRIC_NAME = np.uint8(SeriesRule.MISSING_METRIC_NAME)
_METRIC_NAME_INVALID = np.uint8(SeriesRule.METRIC_NAME_INVALID)
_TOO_MANY = np.uint8(SeriesRule.MAX_LABEL_NAMES)
_TOO_MANY_INFO = np.uint8(SeriesRule.MAX_LABEL_NAMES_INFO)
_LABEL_INVALID = np.uint8(SeriesRule.LABEL_INVALID)
_NAME_TOO_LONG = np.uint8(SeriesRule.LABEL_NAME_TOO_LONG)
_VALUE_INVALID = np.uint8(SeriesRule.LABEL_VALUE_INVALID)
_VALUE_TOO_LONG = np.uint8(SeriesRule.LABEL_VALUE_TOO_LONG)
_DUPLICATE = np.uint8(SeriesRule.DUPLICATE_LABEL_NAMES)
_FUTURE = np.uint8(SeriesRule.TOO_FAR_IN_FUTURE)
_PAST = np.uint8(SeriesRule.TOO_FAR_IN_PAST)
_SHORTEN = np.uint8(SeriesRule.VALUES_TO_SHORTEN)

_always = numba.njit(inline="always")
"""For helpers of every series or label: as functions of their own they cost reference counts."""
_HIGH_BITS = np.uint64(0x8080808080808080)
_NAME_WORD = np.uint64(int.from_bytes(b"__name__", "little"))
_INFO = np.frombuffer(b"_info", np.uint8)
_NINE = np.uint64(ord("9"))
_BYTE = np.uint64(0xFF)
_REPEAT = np.uint64(0x0101010101010101)
_UNDERSCORES = np.uint64(ord("_")) * _REPEAT


@_always
def is_ascii(data, at, end):
    """Whether no byte of `data[at:end]` is over 0x7F. The caller has checked `0 <= at <= end <= len(data)`."""
    seen = np.uint64(0)
    whole = end - (end - at) % 8
    for i in range(at, whole, 8):
        seen |= load64(data, i)
    for i in range(whole, end):
        seen |= np.uint64(data[i])
    return seen & _HIGH_BITS == np.uint64(0)


@inline_checked
def is_utf8(data, at, end):
    """Whether `data[at:end]` is UTF-8 as RFC 3629 has it: shortest forms, no surrogates, nothing over U+10FFFF."""
    while at < end:
        lead = data[at]
        at += 1
        if lead < 0x80:
            continue
        low = np.uint8(0x80)
        high = np.uint8(0xBF)
        if 0xC2 <= lead <= 0xDF:
            more = 1
        elif 0xE0 <= lead <= 0xEF:
            more = 2
            if lead == 0xE0:
                low = np.uint8(0xA0)
            elif lead == 0xED:
                high = np.uint8(0x9F)
        elif 0xF0 <= lead <= 0xF4:
            more = 3
            if lead == 0xF0:
                low = np.uint8(0x90)
            elif lead == 0xF4:
                high = np.uint8(0x8F)
        else:
            return False
        if at + more > end or data[at] < low or data[at] > high:
            return False
        for i in range(at + 1, at + more):
            if data[i] < 0x80 or data[i] > 0xBF:
                return False
        at += more
    return True


@inline
def _between(word, low, high):
    """Set the high bit of each byte of `word` (all under 0x80) that is in `low..high`."""
    reaches = word + np.uint64(0x80 - low) * _REPEAT
    passes = word + np.uint64(0x7F - high) * _REPEAT
    return reaches & ~passes


@inline
def _name_bits(word):
    """Set the high bit of each byte that is a letter, a digit or an underscore."""
    letters = _between(word | np.uint64(0x20) * _REPEAT, ord("a"), ord("z"))
    underscores = ~((word ^ _UNDERSCORES) + np.uint64(0x7F) * _REPEAT)
    return letters | _between(word, ord("0"), ord("9")) | underscores


@_always
def _first_word(data, at, size):
    """Return the first eight bytes of `data[at:at + size]`, underscores behind a shorter one's end.

    The caller has checked that `at + 8 <= len(data)`.
    """
    word = load64(data, at)
    if size < 8:
        kept = (np.uint64(1) << np.uint64(8 * size)) - np.uint64(1)
        word = (word & kept) | (_UNDERSCORES & ~kept)
    return word


@_always
def _rest_bits(data, at, size):
    """Return `_name_bits` of all bytes from the ninth on together, in overlapping words. As `_first_word`."""
    bits = _HIGH_BITS
    stop = at + size - 8
    at += 8
    while at < stop:
        bits &= _name_bits(load64(data, at))
        at += 8
    return bits & _name_bits(load64(data, stop))


@_always
def _is_plain_metric(data, at, size):
    """Whether the ASCII string `data[at:at + size]`, not empty, is `[a-zA-Z_:][a-zA-Z0-9_:]*`. As `_first_word`."""
    bits = _HIGH_BITS
    if ord("0") <= data[at] <= ord("9"):
        return False
    stop = at + size
    while at < stop:
        word = _first_word(data, at, stop - at)
        bits &= _name_bits(word) | _between(word, ord(":"), ord(":"))
        at += 8
    return bits & _HIGH_BITS == _HIGH_BITS


@inline_checked
def is_legacy_name(data, at, size, last_digit):
    """Whether `data[at:at + size]` is `[a-zA-Z_][a-zA-Z0-9_]*`; also with colons if `last_digit` is `:`, not `9`."""
    if size == 0 or ord("0") <= data[at] <= ord("9"):
        return False
    for i in range(at, at + size):
        byte = data[i]
        lower = byte | 0x20
        if not (ord("a") <= lower <= ord("z") or ord("0") <= byte <= last_digit or byte == ord("_")):
            return False
    return True


@_always
def walk_plain(labels, at, end, utf8):
    """Walk the label bytes of a series in which nearly everything is known to be in order.

    The caller has checked that `labels[at:end]` is ASCII, so that every length takes one byte and is under 128; that no
    length limit is under 128; and that `end + 8 <= len(labels)`.

    Returns
    -------
    count : int64
        Number of labels if their names and the metric name are valid and no name occurs twice, else -1.
    metric, metric_size : int64
        Where the value of `__name__` stands; -1 without one.
    """
    count = np.int64(0)
    metric = np.int64(-1)
    metric_size = np.int64(0)
    last = np.uint64(0)
    last_at = at
    last_size = np.int64(-1)
    bits = _HIGH_BITS
    while at < end:
        size = np.int64(load64(labels, at) & _BYTE)
        name = at + 1
        value = name + size + 1
        if value > end:
            return np.int64(-1), metric, metric_size
        word = _first_word(labels, name, size)
        if not utf8:
            bits &= _name_bits(word)
            if size > 8:
                bits &= _rest_bits(labels, name, size)
            if size == 0 or word & _BYTE <= _NINE:
                bits = np.uint64(0)
        elif size == 0:
            bits = np.uint64(0)
        if size == last_size and word == last and (size <= 8 or compare_bytes(labels, last_at, size, name, size) == 0):
            return np.int64(-1), metric, metric_size
        value_size = np.int64(load64(labels, value - 1) & _BYTE)
        at = value + value_size
        if size == 8 and word == _NAME_WORD and metric < 0:
            metric, metric_size = value, value_size
        last, last_at, last_size = word, name, size
        count += 1
    if bits & _HIGH_BITS != _HIGH_BITS or at != end:
        return np.int64(-1), metric, metric_size
    if metric >= 0 and not utf8 and not _is_plain_metric(labels, metric, metric_size):
        return np.int64(-1), metric, metric_size
    return count, metric, metric_size


@inline_checked
def is_info(data, at, size):
    """Whether a metric name ends in `_info`."""
    if size < len(_INFO):
        return False
    same = True
    for i in range(len(_INFO)):
        same &= data[at + size - len(_INFO) + i] == _INFO[i]
    return same


@_always
def check_samples(timestamps, first, last, limits, code, at):
    """Return (code, at, whether timestamps ascend strictly) of the samples `first:last`; a broken rule stays."""
    ascending = True
    for j in range(first, last):
        if code in (_OK, _SHORTEN):
            if timestamps[j] > limits[MAX_TIMESTAMP]:
                code, at = _FUTURE, j
            elif timestamps[j] < limits[MIN_TIMESTAMP]:
                code, at = _PAST, j
        if j > first and timestamps[j] <= timestamps[j - 1]:
            ascending = False
    return code, at, ascending


@inline_checked
def walk_labels(labels, at, end, limits):
    """Walk the label bytes of any series, rule by rule.

    Returns
    -------
    code, where : uint8, int64
        First broken rule on a label, and the label's number.
    shorten : bool
        Whether a value is over its limit and that is no error.
    count, metric, metric_size : int64
        As `walk_plain`; count is a negative WireStatus when the bytes contradict themselves.
    """
    names_matter = limits[SKIP_LABEL_NAMES] == 0
    utf8 = limits[UTF8_SCHEME] != 0
    code = _OK
    where = np.int64(0)
    shorten = False
    count = np.int64(0)
    metric = np.int64(-1)
    metric_size = np.int64(0)
    last = at
    last_size = np.int64(-1)
    while at < end:
        size, name = read_length(labels, at, end)
        if name < 0:
            return code, where, shorten, name, metric, metric_size
        value_size, value = read_length(labels, name + size, end)
        if value < 0:
            return code, where, shorten, value, metric, metric_size
        at = value + value_size
        if metric < 0 and size == 8 and load64(labels, name) == _NAME_WORD:
            metric, metric_size = value, value_size
        if code == _OK:
            where = count
            # Whatever a request asks to skip: no block can hold an empty name, or what is not UTF-8.
            if not (
                (size > 0 and is_utf8(labels, name, name + size))
                if utf8 or not names_matter
                else is_legacy_name(labels, name, size, ord("9"))
            ):
                code = _LABEL_INVALID
            elif size > limits[MAX_NAME_BYTES]:
                code = _NAME_TOO_LONG
            elif not is_utf8(labels, value, at):
                code = _VALUE_INVALID
            elif value_size > limits[MAX_VALUE_BYTES] and limits[SHORTEN_VALUES] == 0:
                code = _VALUE_TOO_LONG
            elif size == last_size and compare_bytes(labels, last, last_size, name, size) == 0:
                code = _DUPLICATE
            elif value_size > limits[MAX_VALUE_BYTES]:
                shorten = True
        last, last_size = name, size
        count += 1
    return code, where, shorten, count, metric, metric_size


@kernel(i64(u8_in, i64_in, i64_in, i64_in, i64_in, u8_out, i64_out, i64_out), boundscheck=True)
def check_series(labels, label_offsets, sample_offsets, timestamps, limits, codes_out, at_out, counts_out):
    """Find the first rule that each series breaks.

    Parameters
    ----------
    labels, label_offsets, sample_offsets, timestamps
        Columns of a WriteBatch of n series.
    limits : int64[10], read-only
        By the indexes above.
    codes_out : uint8[n], written
        A SeriesRule each.
    at_out : int64[n], written
        Number of the label in its series; for rules on the number of labels, that number; for rules on timestamps, the
        number of the sample in the batch.
    counts_out : int64[2], written
        Of series that stay (OK or VALUES_TO_SHORTEN): UNORDERED (timestamps do not ascend strictly), WITHOUT_SAMPLES.

    Returns
    -------
    int64
        Series whose code is not OK, or a negative WireStatus when label bytes contradict themselves.
    """
    counts_out[:] = 0
    failed = 0
    utf8 = limits[UTF8_SCHEME] != 0
    may_be_plain = limits[MAX_NAME_BYTES] >= 127 and limits[MAX_VALUE_BYTES] >= 127
    first, last = label_offsets[0], label_offsets[len(codes_out)]  # most requests are ASCII: one pass over all of it
    all_ascii = 0 <= first <= last <= len(labels) and is_ascii(labels, first, last)
    for i in range(len(codes_out)):
        at = label_offsets[i]
        end = label_offsets[i + 1]
        if at < 0 or end > len(labels):
            return CUT_OFF
        code = _OK
        where = np.int64(0)
        shorten = False
        count = np.int64(-1)
        plain = False
        if may_be_plain and end + 8 <= len(labels) and (all_ascii or is_ascii(labels, at, end)):
            count, metric, metric_size = walk_plain(labels, at, end, utf8)
            plain = count >= 0
        if not plain:
            code, where, shorten, count, metric, metric_size = walk_labels(labels, at, end, limits)
            if count < 0:
                return count

        if count == 0:
            code = _NO_LABELS
        elif metric < 0:
            code = _MISSING_METRIC_NAME
        elif not plain and not (
            is_utf8(labels, metric, metric + metric_size)
            if utf8
            else is_legacy_name(labels, metric, metric_size, ord(":"))
        ):
            code = _METRIC_NAME_INVALID
        elif count > limits[MAX_LABEL_NAMES] and limits[SKIP_LABEL_COUNT] == 0:
            if not is_info(labels, metric, metric_size):
                code, where = _TOO_MANY, count
            elif count > limits[MAX_LABEL_NAMES_INFO]:
                code, where = _TOO_MANY_INFO, count
        if code == _OK and shorten:
            code = _SHORTEN
        code, where, ascending = check_samples(
            timestamps, sample_offsets[i], sample_offsets[i + 1], limits, code, where
        )
        codes_out[i] = code
        at_out[i] = where
        if code in (_OK, _SHORTEN):
            counts_out[UNORDERED] += not ascending
            counts_out[WITHOUT_SAMPLES] += sample_offsets[i] == sample_offsets[i + 1]
        failed += code != _OK
    return failed
