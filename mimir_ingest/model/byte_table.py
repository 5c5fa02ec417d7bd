"""Distinct byte strings, numbered densely in the order in which they came (kernels/byte_table.py).

Columns only grow: entries below a count once read never change, and growth replaces an array, so that a reader who took
arrays and count together keeps a consistent view. `find` and `intern` must not run at the same time.
"""

from __future__ import annotations

import numpy as np

from mimir_ingest.kernels.byte_table import fill_slots, find_keys, intern_keys


def grown(column: np.ndarray, size: int) -> np.ndarray:
    """Return `column`, or a longer copy of it, with room for `size` entries; new entries are undefined."""
    if len(column) >= size:
        return column
    longer = np.empty(max(size, len(column) + len(column) // 2, 64), column.dtype)
    longer[: len(column)] = column
    return longer


class ByteTable:
    """A growing set of byte strings. One writer; readers see `text`, `starts` and `count`."""

    def __init__(self) -> None:
        self.count = 0
        """Number of keys."""
        self.text = np.empty(0, np.uint8)
        """uint8[...]: key i is `text[starts[i]:starts[i + 1]]`."""
        self.starts = np.zeros(64, np.int64)
        self.hashes = np.empty(64, np.uint64)
        """uint64[count]."""
        self._slots = np.zeros(128, np.uint64)

    @property
    def nbytes(self) -> int:
        """Bytes of memory taken."""
        return self.text.nbytes + self.starts.nbytes + self.hashes.nbytes + self._slots.nbytes

    def find(self, text: np.ndarray, offsets: np.ndarray, hashes: np.ndarray) -> tuple[np.ndarray, int]:
        """Return (int32[n] numbers, -1 where unknown; count of unknown) of `text[offsets[i]:offsets[i + 1]]`."""
        numbers = np.empty(len(hashes), np.int32)
        unknown = find_keys(
            text, offsets, hashes, self._slots, self.starts, self.hashes, self.text, self.count, numbers
        )
        return numbers, unknown

    def intern(self, text: np.ndarray, starts: np.ndarray, ends: np.ndarray, hashes: np.ndarray) -> np.ndarray:
        """Return int32[n], the numbers of `text[starts[i]:ends[i]]`; new strings are added in order."""
        self._reserve(len(hashes), int((ends - starts).sum()))
        numbers = np.empty(len(hashes), np.int32)
        self.count = intern_keys(
            text, starts, ends, hashes, self._slots, self.starts, self.hashes, self.text, self.count, numbers
        )
        return numbers

    def _reserve(self, keys: int, text_bytes: int) -> None:
        wanted = self.count + keys
        self.starts = grown(self.starts, wanted + 1)
        self.hashes = grown(self.hashes, wanted)
        self.text = grown(self.text, int(self.starts[self.count]) + text_bytes)
        if 2 * wanted > len(self._slots):
            # why: a power of two, at most half used, so that an unknown key ends its search after two slots on average.
            slots = np.zeros(1 << (4 * wanted - 1).bit_length(), np.uint64)
            fill_slots(self.hashes, self.count, slots)
            self._slots = slots
