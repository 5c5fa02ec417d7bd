"""Records in which a series goes from native histograms back to floats: which rows can be taken at once."""

from __future__ import annotations

import numpy as np


def in_turns(refs: np.ndarray, floats: np.ndarray, histograms: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """Put the rows of a record into turns, so that floats may be taken before histograms in each.

    A series' samples come in the order of its rows, of a row the floats first, as in Prometheus. Where a row with
    floats follows one with histograms, it has to wait for the next turn.

    Parameters
    ----------
    refs : int32[n]
        Series of each row; negative without one.
    floats, histograms : int64[n + 1]
        Where the samples of each kind of each row begin, and the end.

    Returns
    -------
    (int64[n] rows by turn, int64[turns + 1] where each turn begins in them, and the end), or None: one turn does.
    """
    with_floats, with_histograms = np.diff(floats) > 0, np.diff(histograms) > 0
    rows = np.flatnonzero((with_floats | with_histograms) & (refs >= 0))
    if not with_floats.any() or not with_histograms.any() or len(rows) < 2:
        return None
    rows = rows[np.argsort(refs[rows], kind="stable")]
    same = refs[rows[1:]] == refs[rows[:-1]]
    waits = same & with_floats[rows[1:]] & with_histograms[rows[:-1]]
    if not waits.any():
        return None
    waited = np.concatenate(([0], np.cumsum(waits)))
    first = np.maximum.accumulate(np.where(np.concatenate(([True], ~same)), np.arange(len(rows)), 0))
    turn = np.zeros(len(refs), np.int64)
    turn[rows] = waited - waited[first]
    order = np.argsort(turn, kind="stable")
    return order, np.searchsorted(turn[order], np.arange(turn.max() + 2))
