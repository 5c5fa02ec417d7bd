"""Pieces of a few series, in plain Python."""

from __future__ import annotations

Sample = tuple[int, float]


def chunks_of(
    refs: list[int], chunks: list[tuple[int, list[Sample]]], start_ms: int, end_ms: int
) -> list[tuple[int, list[Sample], bool]]:
    """(position in `refs`, samples, whether all of them are inside) of the (series, samples) that overlap the range."""
    found = []
    for position, ref in enumerate(refs):
        for series, samples in chunks:
            first, last = samples[0][0], samples[-1][0]
            if series == ref and first < end_ms and last >= start_ms:
                found.append((position, samples, first >= start_ms and last < end_ms))
    return found


def staged_of(
    refs: list[int], staged: list[tuple[int, int, float]], start_ms: int, end_ms: int
) -> list[tuple[int, Sample]]:
    """(position in `refs`, sample) of the (series, time, value) that lie in the range, in their order."""
    return [(refs.index(ref), (at, value)) for ref, at, value in staged if ref in refs and start_ms <= at < end_ms]
