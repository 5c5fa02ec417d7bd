"""Twin of kernels/histogram_cuts.py: each chunk's size is that of its bytes, encoded anew at every sample."""

import math

from tests.reference.histogram_chunk import GAUGE, NO_RESET, RESET, UNKNOWN, encode, relation

RANGE_MS = 7_200_000


def range_end(t):
    return math.trunc(t / RANGE_MS) * RANGE_MS + RANGE_MS


def predicted_end(start, now, end, size):
    chunks = float(end - start) / (float(now - start + 1) * (1024.0 / size))
    return end if chunks <= 1 else int(start + (end - start) / math.floor(chunks))


def cut(rows, runs):
    """Return [(header, first row)] of one series' (timestamp, Row) pairs."""
    chunks = []
    known = False
    ends = 0
    for i, (t, row) in enumerate(rows):
        header = row.reset_hint if row.reset_hint in (RESET, GAUGE) else UNKNOWN
        if i == 0 or runs[i] != runs[i - 1] or row.is_float != rows[i - 1][1].is_float:
            known, begins = False, True
        else:
            first = chunks[-1][1]
            size = len(encode(rows[first:i], UNKNOWN))
            enforced = range_end(rows[first][0]) if known else ends
            if not known and size >= 256:
                ends, known = predicted_end(rows[first][0], rows[i - 1][0], ends, size), True
            full = (t >= ends or size >= 2048) and (i - first >= 10 or t >= enforced)
            found = relation(rows[i - 1][1], row, True)
            begins = full or found is not None
            header = found if found is not None else GAUGE if row.reset_hint == GAUGE else NO_RESET
            if full:
                known = False
        if begins:
            chunks.append((header, i))
            ends = range_end(t)
    return chunks
