"""Room on Python's stack for trees of the parser's greatest height."""

from __future__ import annotations

import sys

from mimir_ingest.promql.parser import MAX_DEPTH

_FRAMES = 6 * MAX_DEPTH + 1000
# why: planning and evaluation take up to five Python frames a level (dispatch, operator, comprehension), and the caller
# has a stack of its own. Frames of CPython 3.11 live on the heap; only the limit is in the way.


def make_room() -> None:
    """Raise the interpreter's recursion limit, if it is lower, so that the tallest tree can be walked."""
    if sys.getrecursionlimit() < _FRAMES:
        sys.setrecursionlimit(_FRAMES)
