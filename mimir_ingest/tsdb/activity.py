"""When each series of a head last got a sample, and what kind it was: what "active series" are counted from.

It decides nothing and is no content: blocks, checkpoints and snapshots do not hold it. Times are record times (the
log's stamps), so that a replay counts as the first reading did. One writer, beside the head's; readers take `columns`
under the head's lock. Source: spec ingest-storage.md 9.8.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mimir_ingest.model.byte_table import grown

NEVER = -(1 << 63)
"""Arrival time of a series that has got no sample, or is forgotten."""

FLOAT = -1
"""Bucket count of a series whose last sample is a float."""


@dataclass(frozen=True, slots=True)
class ActivityColumns:
    """One entry a series; longer than the table, and written to while they are read."""

    seen_ms: np.ndarray
    """int64[...]: record time (ms) of the last sample, or NEVER."""
    buckets: np.ndarray | None
    """int32[...]: buckets of the last native histogram, or FLOAT; None: there never was one."""
    otlp: np.ndarray | None
    """bool[...]: whether the last sample came by OTLP; None: none did."""


class Activity:
    """Columns by series number. The rare ones are made when the first native histogram or OTLP sample comes."""

    def __init__(self) -> None:
        self._now_ms = NEVER
        self._from_otlp = False
        self._seen_ms = np.empty(0, np.int64)
        self._buckets: np.ndarray | None = None
        self._otlp: np.ndarray | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of memory taken."""
        return sum(c.nbytes for c in (self._seen_ms, self._buckets, self._otlp) if c is not None)

    @property
    def columns(self) -> ActivityColumns:
        """What readers count from."""
        return ActivityColumns(self._seen_ms, self._buckets, self._otlp)

    def reserve(self, before: int, count: int) -> None:
        """Make room for the series `before`..`count`, which have got nothing yet."""
        self._seen_ms = grown(self._seen_ms, count)
        self._seen_ms[before:count] = NEVER
        if self._buckets is not None:
            self._buckets = grown(self._buckets, count)
            self._buckets[before:count] = FLOAT
        if self._otlp is not None:
            self._otlp = grown(self._otlp, count)
            self._otlp[before:count] = False

    def begin(self, now_ms: int, *, otlp: bool) -> None:
        """What is noted next is of a record with this record time (ms), that came by OTLP or not."""
        self._now_ms, self._from_otlp = now_ms, otlp

    def note(self, refs: np.ndarray, buckets: np.ndarray | None = None) -> None:
        """The series `refs` (int32[n]) got samples: floats, or histograms with so many `buckets` (int64[n])."""
        self._seen_ms[refs] = self._now_ms
        if buckets is not None and self._buckets is None:
            self._buckets = np.full(len(self._seen_ms), FLOAT, np.int32)
        if self._buckets is not None:
            self._buckets[refs] = FLOAT if buckets is None else buckets
        if self._from_otlp and self._otlp is None:
            self._otlp = np.zeros(len(self._seen_ms), bool)
        if self._otlp is not None:
            self._otlp[refs] = self._from_otlp

    def forget(self, gone: np.ndarray) -> None:
        """The series of a mask (bool[n], n at most all) are no longer known."""
        self._seen_ms[: len(gone)][gone] = NEVER

    def renumbered(self, kept: np.ndarray) -> Activity:
        """Return the activity of the series `kept` (int64[k]), numbered 0..k."""
        made = Activity()
        made._seen_ms = self._seen_ms[kept]
        made._buckets = None if self._buckets is None else self._buckets[kept]
        made._otlp = None if self._otlp is None else self._otlp[kept]
        return made

    @classmethod
    def restored(cls, last_ts: np.ndarray) -> Activity:
        """Build that of a stored head from its series' last timestamps (int64[n], ms).

        why: the log after a checkpoint tells the rest, and a sample arrives about when it is taken.
        """
        made = cls()
        made._seen_ms = last_ts.copy()
        return made
