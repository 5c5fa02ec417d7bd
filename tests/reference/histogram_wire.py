"""Twin of the histogram kernels of the wire: messages of the protobuf library to plain rows."""

from __future__ import annotations

from tests.support.histograms import Row, bits

OK, NEGATIVE_OFFSET, MISMATCH = range(3)


def buckets_of(spans, counts, custom):
    """Return ((index, count), …) and a problem with what its message names."""
    index, indexes = 0, []
    for number, span in enumerate(spans, 1):
        if span.offset < 0 and (number > 1 or custom):
            return (), (NEGATIVE_OFFSET, number, span.offset)
        index += span.offset
        indexes.append((index, span.length))
        index += span.length
    total = sum(length for _, length in indexes)
    outside = any(length and not -(2**31) <= i <= i + length - 1 < 2**31 for i, length in indexes)
    if total != len(counts) or outside:
        return (), (MISMATCH, total, len(counts))
    flat = [i + k for i, length in indexes for k in range(length)]
    return tuple(zip(flat, counts, strict=True)), None


def absolute(deltas):
    total, counts = 0, []
    for delta in deltas:
        total = (total + delta + 2**63) % 2**64 - 2**63
        counts.append(float(total))
    return counts


def decode(message):
    """Return (timestamp, Row, problem or None, schema, buckets received)."""
    is_float = message.HasField("count_float")
    sides, problems, received = [], [], 0
    for number, side in enumerate(("negative", "positive")):
        counts = list(getattr(message, side + "_counts")) if is_float else absolute(getattr(message, side + "_deltas"))
        received += len(counts)
        buckets, problem = buckets_of(getattr(message, side + "_spans"), counts, message.schema == -53)
        sides.append(buckets)
        if problem:
            problems.append((problem[0], number, *problem[1:]))
    if problems:
        sides = [(), ()]
    schema = message.schema if -128 < message.schema <= 127 and not problems else -128
    row = Row(
        schema,
        message.reset_hint if 0 <= message.reset_hint < 4 else 0,
        is_float,
        message.zero_threshold,
        message.zero_count_float if is_float else float(message.zero_count_int),
        message.count_float if is_float else float(message.count_int),
        bits(message.sum),
        *sides,
        tuple(message.custom_values),
    )
    return message.timestamp, row, problems[0] if problems else None, message.schema, received
