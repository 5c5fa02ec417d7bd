"""The newest sample of each series, in plain Python."""

from __future__ import annotations

Sample = tuple[int, float]


def newest_of(
    refs: list[int], parts: list[list[tuple[int, list[Sample]]]], start_ms: int, end_ms: int
) -> tuple[list[Sample | None], list[bool], list[int]]:
    """What chunks alone tell, of parts of (series, samples of a chunk): by place in `refs` the newest sample of a chunk
    that ends in the range, the first of equal times; whether a chunk goes on past it; the chunks that overlap it.
    """
    newest: list[Sample | None] = [None] * len(refs)
    unsure, chunks = [False] * len(refs), [0] * len(refs)
    for part in parts:
        for series, samples in part:
            first, last = samples[0][0], samples[-1][0]
            if series not in refs or first >= end_ms or last < start_ms:
                continue
            place = refs.index(series)
            chunks[place] += 1
            taken = newest[place]
            if last >= end_ms:
                unsure[place] = True
            elif taken is None or last > taken[0]:
                newest[place] = samples[-1]
    return newest, unsure, chunks
