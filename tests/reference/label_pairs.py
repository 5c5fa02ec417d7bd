"""Cutting label bytes, postings and filtering in plain Python."""

from __future__ import annotations


def split_pairs(text: bytes) -> list[tuple[int, int, int, int]] | None:
    """(pair start, name end, value start, pair end) of each pair, None for bytes that are no label set."""
    spans: list[tuple[int, int, int]] = []
    at = 0
    while at < len(text):
        start, size, shift = at, 0, 0
        while True:
            if at >= len(text) or shift > 28:
                return None
            byte = text[at]
            at += 1
            size |= (byte % 128) << shift
            shift += 7
            if byte < 128:
                break
        if at + size > len(text):
            return None
        spans.append((start, at, at + size))
        at += size
    if len(spans) % 2:
        return None
    return [(a[0], a[2], b[1], b[2]) for a, b in zip(spans[::2], spans[1::2], strict=True)]


def prefixed(text: bytes) -> bytes:
    """A string behind its length."""
    out, size = bytearray(), len(text)
    while size >= 128:
        out.append(size % 128 + 128)
        size //= 128
    return bytes(out) + bytes([size]) + text


def is_label_set(text: bytes) -> bool:
    """Whether bytes are what an encoder makes of a sorted mapping from texts to texts, none empty."""
    spans = split_pairs(text)
    if spans is None:
        return False
    pairs = []
    for start, name_end, value, end in spans:
        size = next(n for n in range(1, 6) if text[start + n - 1] < 128)
        pairs.append((text[start + size : name_end], text[value:end]))
    names = [name for name, _ in pairs]
    if names != sorted(set(names)) or not all(n and v for n, v in pairs):
        return False
    try:
        b"\n".join(n + b"\n" + v for n, v in pairs).decode()
    except UnicodeDecodeError:
        return False
    return b"".join(prefixed(n) + prefixed(v) for n, v in pairs) == text


def postings(series: list[list[int]], pair_count: int) -> list[list[int]]:
    """Pair → the series that have it."""
    return [[r for r, pairs in enumerate(series) if p in pairs] for p in range(pair_count)]


def filter_series(refs, series, accepted, constrained, required, absent_accepted) -> list[int]:
    """The series whose every required bit is accepted by a pair, or whose label is absent where that is accepted."""
    kept = []
    for ref in refs:
        wanted = {bit for bit in range(64) if required >> bit & 1}
        for bit in list(wanted):
            hit = any(accepted[p] >> bit & 1 for p in series[ref])
            seen = any(constrained[p] >> bit & 1 for p in series[ref])
            if hit or (not seen and absent_accepted >> bit & 1):
                wanted.discard(bit)
        if not wanted:
            kept.append(ref)
    return kept


def match_few(
    series: list[list[int]], indexed: int, count: int, wanted: list[int], most: int, room: int
) -> list[int] | None:
    """Of the first `count` series those with all pairs; None if they, or those to look through, are too many."""
    shortest = min(sum(pair in pairs for pairs in series[:indexed]) for pair in wanted)
    found = [r for r, pairs in enumerate(series[:count]) if set(wanted) <= set(pairs)]
    return None if shortest > most or len(found) > room else found
