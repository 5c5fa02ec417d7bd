"""The hybrid logical clock that stamps a writer's changes (architecture, section 6).

A version is the wall clock's millisecond, or, while that is not above everything known, the newest known millisecond
with a higher counter. So a change made after another one was read is always newer than it, however skewed the clocks
are, and versions stay close to wall time.
"""

from __future__ import annotations

from partitions.model import NEVER, Version


class HybridClock:
    """Stamps the versions of one writer. Owned by one task; lives as long as its process.

    After a restart the writer reads the store to its end before it stamps: what it stamped before stands there.
    """

    def __init__(self, writer: str) -> None:
        if not writer:
            raise ValueError("a writer needs a name")
        self.writer = writer
        self._last = NEVER

    def next(self, now_ms: int, seen: Version = NEVER) -> Version:
        """Return a version above `seen` and above every earlier one of this clock.

        Parameters
        ----------
        now_ms : int
            Wall clock (ms since the Unix epoch); may stand still or go back.
        seen : Version
            The newest version that the writer has read: `RingDesc.newest`.
        """
        floor = max(self._last, seen)
        if now_ms > floor.ms:
            self._last = Version(now_ms, 0, self.writer)
        else:
            self._last = Version(floor.ms, floor.counter + 1, self.writer)
        return self._last
