"""Twin of the histogram chunk kernels: strings of bits, Python integers, one chunk at a time.

A histogram is a `Row` of tests.support.histograms; a chunk is a list of (timestamp, Row).
"""

import math
import struct

STALE = 0x7FF0000000000002
UNKNOWN, RESET, NO_RESET, GAUGE = range(4)
FLAGS = {UNKNOWN: 0, RESET: 0x80, NO_RESET: 0x40, GAUGE: 0xC0}
SIZES = (3, 6, 9, 12, 18, 25, 56, 64)
PREFIXES = ("10", "110", "1110", "11110", "111110", "1111110", "11111110", "11111111")


def word(value):
    return struct.unpack("<Q", struct.pack("<d", value))[0]


def unword(bits):
    return struct.unpack("<d", struct.pack("<Q", bits))[0]


def low(value, size):
    return format(value & (1 << size) - 1, f"0{size}b")


def varbit(value, signed):
    if signed:
        # As differences of int64 in Go, which wrap round.
        value = (value + (1 << 63)) % (1 << 64) - (1 << 63)
    if value == 0:
        return "0"
    for size, prefix in zip(SIZES, PREFIXES, strict=True):
        fits = -(1 << size - 1) + 1 <= value <= 1 << size - 1 if signed else value < 1 << size
        if fits or size == 64:
            return prefix + low(value, size)
    raise AssertionError


def threshold(value):
    if value == 0:
        return low(0, 8)
    fraction, exponent = math.frexp(value)
    if fraction == 0.5 and -242 <= exponent <= 11:
        return low(exponent + 243, 8)
    return low(255, 8) + low(word(value), 64)


def spans(indexes):
    found = []
    for i in indexes:
        if found and found[-1][0] + found[-1][1] == i:
            found[-1][1] += 1
        else:
            found.append([i, 1])
    out, end = varbit(len(found), False), 0
    for start, length in found:
        out += varbit(length, False) + varbit(start - end, True)
        end = start + length
    return out


def bound(value):
    thousandths = value * 1000
    if 0 <= thousandths <= 33554430 and math.floor(thousandths + 0.5) / 1000 == value:
        return varbit(math.floor(thousandths + 0.5) + 1, False)
    return "0" + low(word(value), 64)


class Xor:
    """The state of one value's differences."""

    def __init__(self, bits):
        self.bits, self.window = bits, None

    def put(self, bits):
        x, self.bits = self.bits ^ bits, bits
        if x == 0:
            return "0"
        leading = min(64 - x.bit_length(), 31)
        trailing = (x & -x).bit_length() - 1
        if self.window and leading >= self.window[0] and trailing >= self.window[1]:
            leading, trailing = self.window
            head = "10"
        else:
            self.window = leading, trailing
            head = "11" + low(leading, 5) + low(64 - leading - trailing, 6)
        return head + low(x >> trailing, 64 - leading - trailing)


def layout(rows):
    live = [row for _, row in rows if row.sum_bits != STALE]
    return [sorted({i for row in live for i, _ in side(row)}) for side in (lambda r: r.negative, lambda r: r.positive)]


def counts_of(row, indexes, side):
    held = dict(row.negative if side == 0 else row.positive)
    return [held.get(i, 0.0) for i in indexes]


def spread(rows):
    """Return the rows of one chunk as they are read: with its buckets, but for stale ones."""
    negative, positive = layout([(0, row) for row in rows])
    return [
        row
        if row.sum_bits == STALE
        else row._replace(
            negative=tuple(zip(negative, counts_of(row, negative, 0), strict=True)),
            positive=tuple(zip(positive, counts_of(row, positive, 1), strict=True)),
        )
        for row in rows
    ]


def encode(rows, header):
    """Return the bytes of one chunk; all rows are of one kind."""
    first, is_float = rows[0][1], rows[0][1].is_float
    negative, positive = layout(rows)
    out = threshold(first.zero_threshold) + varbit(first.schema, True) + spans(positive) + spans(negative)
    if first.schema == -53:
        out += varbit(len(first.custom), False) + "".join(map(bound, first.custom))
    state = None
    for t, row in rows:
        stale = row.sum_bits == STALE
        counts = [] if stale else [counts_of(row, positive, 1), counts_of(row, negative, 0)]
        if is_float:
            values = [word(row.count), word(row.zero_count), row.sum_bits, *(word(c) for part in counts for c in part)]
        else:
            deltas = [int(b) - int(a) for part in counts for a, b in zip([0, *part], part, strict=False)]
            values = [int(row.count), int(row.zero_count), *deltas]
        if state is None:
            out += varbit(t, True)
            if is_float:
                out += "".join(low(v, 64) for v in values)
            else:
                out += varbit(values[0], False) + varbit(values[1], False) + low(row.sum_bits, 64)
                out += "".join(varbit(v, True) for v in values[2:])
            state = {"t": (t, 0), "xor": [Xor(v) for v in values], "sum": Xor(row.sum_bits)}
            state["last"] = [(v, 0) for v in values]
            continue
        delta = t - state["t"][0]
        out += varbit(delta - state["t"][1], True)
        state["t"] = t, delta
        if is_float:
            out += "".join(x.put(v) for x, v in zip(state["xor"], values, strict=False))
            continue
        if stale:
            out += "00" + state["sum"].put(row.sum_bits)
            continue
        bits = []
        for i, value in enumerate(values):
            last, step = state["last"][i]
            bits.append(varbit(value - last - step, True))
            state["last"][i] = value, value - last
        out += bits[0] + bits[1] + state["sum"].put(row.sum_bits) + "".join(bits[2:])
    data = bytes(int(out[i : i + 8].ljust(8, "0"), 2) for i in range(0, len(out), 8))
    return struct.pack(">HB", len(rows), FLAGS[header]) + data


def shrinks(before, after):
    sides = ((before.negative, after.negative), (before.positive, after.positive))
    return any(count > dict(now).get(i, 0.0) for old, now in sides for i, count in old)


def relation(before, after, detect):
    """None when a chunk goes on, else the header of the next one."""
    own = after.reset_hint if after.reset_hint in (RESET, GAUGE) else UNKNOWN
    if before.is_float != after.is_float:
        return own
    if after.sum_bits == STALE:
        return None
    gauge = after.reset_hint == GAUGE
    if before.sum_bits == STALE or gauge != (before.reset_hint == GAUGE) or after.reset_hint == RESET:
        return own
    detect = detect and not gauge
    if detect and after.count < before.count:
        return RESET
    if (before.schema, before.zero_threshold) != (after.schema, after.zero_threshold):
        return own
    if before.custom != after.custom:
        return RESET if detect else own
    if detect and (after.zero_count < before.zero_count or shrinks(before, after)):
        return RESET
    return None


def listed(row):
    return [[i for i, _ in side] for side in (row.negative, row.positive)]


def plan(rows, runs, chunk_samples, detect, same_buckets, hinted):
    """Return [(header, first row)] of one series' rows."""
    chunks = []
    for i, row in enumerate(rows):
        own = row.reset_hint if row.reset_hint in (RESET, GAUGE) else UNKNOWN
        if i == 0 or runs[i] != runs[i - 1]:
            chunks.append((NO_RESET if hinted and row.reset_hint == NO_RESET else own, i))
            continue
        header = relation(rows[i - 1], row, detect)
        other = same_buckets and listed(rows[i - 1]) != listed(row)
        if header is None and hinted and row.reset_hint == UNKNOWN and row.sum_bits != STALE:
            header = UNKNOWN
        if header is None and (other or i - chunks[-1][1] >= chunk_samples):
            header = GAUGE if row.reset_hint == GAUGE else NO_RESET if detect else UNKNOWN
        if header is not None:
            chunks.append((header, i))
    return chunks
