"""Series with their points as Prometheus's JSON: texts that others made, put in their places in one pass.

`HEAD[TIME,"VALUE"],[TIME,"VALUE"]]}` for each series, commas between (spec http-api.md 6.4). Numbers come as a JSON
library prints them, one after another; where Prometheus prints another text, that is given.
Twin: tests/reference/matrix_json.py.
"""

from __future__ import annotations

import numpy as np

from mimir_ingest.kernels._jit import f64_in, i64, i64_in, i64_out, inline, kernel, u8_in, u8_out
from mimir_ingest.kernels.words import copy_over

_COMMA, _MINUS, _DOT, _ZERO, _QUOTE = 44, 45, 46, 48, 34
_OPEN, _CLOSE, _BRACE = 91, 93, 125
_LOW, _LOW_DIGITS = 10_000, 4
"""Of seconds: what differs between points that are near, as most are; the digits before it are copied."""
ROOM = 27
"""Most bytes of a point besides its value."""


@inline
def _write_time(ms, out, at):
    """Write seconds, with three decimals if they are not whole; return the position behind them."""
    if ms < 0:
        out[at] = _MINUS
        at += 1
        ms = -ms
    seconds, rest = ms // 1000, ms % 1000
    width, ten = 1, 10
    while ten <= seconds and width < 18:
        ten *= 10
        width += 1
    for i in range(at + width - 1, at - 1, -1):
        out[i] = _ZERO + seconds % 10
        seconds //= 10
    at += width
    if rest:
        out[at] = _DOT
        for i in range(at + 3, at, -1):
            out[i] = _ZERO + rest % 10
            rest //= 10
        at += 4
    return at


@kernel(i64(f64_in, i64_out))
def find_unusual(values, out):
    """Find the numbers that a JSON library does not write as the query API does; return how many.

    Those are exponents below 1e-4 and from 1e15 on, NaN and infinities.

    Parameters
    ----------
    values : float64[n]
    out : int64[n]
        Which of them, ascending.
    """
    count = 0
    for i in range(len(values)):
        size = abs(values[i])
        if not (1e-4 <= size < 1e15 or size == 0):
            out[count] = i
            count += 1
    return np.int64(count)


@kernel(i64(u8_in, i64_in, u8_in, i64_in, i64_in, u8_in, i64_in, i64_in, u8_out))
def write_series(digits, special_at, specials, special_bounds, timestamps, heads, head_bounds, offsets, out):
    """Write all series; return the number of bytes.

    Parameters
    ----------
    digits : uint8[]
        The numbers of all points, commas between; a fraction `.0` is not written.
    special_at : int64[k], ascending
        Points with other texts than their number.
    specials, special_bounds : uint8[], int64[k + 1]
        Those texts.
    timestamps : int64[m]
        Times (ms), between -1e18 and 1e18.
    heads, head_bounds : uint8[], int64[n + 1]
        What stands before the points of each series, such as `{"metric":{…},"values":[`.
    offsets : int64[n + 1]
        Series i has the points `offsets[i]:offsets[i + 1]`.
    out : uint8[]
        At least `digits`, `specials`, `heads`, `ROOM` a point, 3 a series, and 16.
    """
    at, read, special = 0, 0, 0
    for series in range(len(offsets) - 1):
        if series:
            out[at] = _COMMA
            at += 1
        size = head_bounds[series + 1] - head_bounds[series]
        copy_over(heads, head_bounds[series], size, out, at)
        at += size
        high, digits_at, width = np.int64(0), 0, 0  # 0: none are known
        for point in range(offsets[series], offsets[series + 1]):
            if point > offsets[series]:
                out[at] = _COMMA
                at += 1
            out[at] = _OPEN
            seconds, begun = timestamps[point] // 1000, at + 1
            if high > 0 and seconds // _LOW == high and timestamps[point] == seconds * 1000:
                for i in range(width):
                    out[begun + i] = out[digits_at + i]
                low, at = seconds - high * _LOW, begun + width + _LOW_DIGITS
                for i in range(at - 1, at - 1 - _LOW_DIGITS, -1):
                    out[i] = _ZERO + low % 10
                    low //= 10
            else:
                at = _write_time(timestamps[point], out, begun)
                if seconds >= _LOW and timestamps[point] == seconds * 1000:
                    high, digits_at, width = seconds // _LOW, begun, at - begun - _LOW_DIGITS
            at += 2
            out[at - 2] = _COMMA
            out[at - 1] = _QUOTE
            begun = at
            while read < len(digits) and digits[read] != _COMMA:
                out[at] = digits[read]
                at += 1
                read += 1
            read += 1
            if special < len(special_at) and special_at[special] == point:
                size = special_bounds[special + 1] - special_bounds[special]
                copy_over(specials, special_bounds[special], size, out, begun)
                special += 1
                at = begun + size
            elif at - begun > 2 and out[at - 1] == _ZERO and out[at - 2] == _DOT:
                at -= 2
            at += 2
            out[at - 2] = _QUOTE
            out[at - 1] = _CLOSE
        out[at] = _CLOSE
        out[at + 1] = _BRACE
        at += 2
    return np.int64(at)
