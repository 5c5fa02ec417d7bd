"""Frames of one table are joined by references; strings are made when somebody reads them."""

from __future__ import annotations

import numpy as np
import pytest

from mimir_ingest.model.labels import LabelFrame

_NAMES, _VALUES = ["a", "b"], list("uvwxyz")
_NAME_OF_PAIR = [0, 1, 1, 0, 1, 0]


def _frame(series: list[list[int]], known: int, origin: object, read: list[int]) -> LabelFrame:
    """A frame of pairs, as a table with `known` pairs gives it."""

    def value(pair: int) -> str:
        assert pair < known
        read.append(pair)
        return _VALUES[pair]

    pairs = np.array([p for one in series for p in one])
    used, at = np.unique(pairs, return_inverse=True)
    offsets = np.cumsum([0, *map(len, series)])
    names = np.array(_NAME_OF_PAIR)[used]
    return LabelFrame.from_pairs(offsets, at, names, used, _NAMES.__getitem__, value, origin)


@pytest.mark.parametrize("shared", [True, False])
def test_joined_frames_have_the_same_series_whether_or_not_one_table_numbers_their_strings(shared):
    table, read = object(), []
    older = _frame([[0, 1], [0, 2]], 3, table if shared else None, read)
    newer = _frame([[0, 2], [5], [3, 4]], 6, table if shared else None, read)
    joined = LabelFrame.concat([older, newer, older])
    ids, first = joined.group_ids()
    assert (read == []) == shared
    assert joined.to_dicts() == [*older.to_dicts(), *newer.to_dicts(), *older.to_dicts()]
    assert ids.tolist() == [0, 1, 1, 2, 3, 0, 1]
    assert first.tolist() == [0, 1, 3, 4]


def test_frames_of_different_tables_are_joined_by_their_strings():
    read: list[int] = []
    frames = [_frame([[0, 1]], 3, object(), read), _frame([[0, 2]], 3, object(), read)]
    joined = LabelFrame.concat(frames)
    assert joined.to_dicts() == [{"a": "u", "b": "v"}, {"a": "u", "b": "w"}]
    assert joined.codes.tolist() == [[0, 0], [0, 1]]


def test_a_label_that_some_frames_lack_stays_absent_there():
    table, read = object(), []
    joined = LabelFrame.concat([_frame([[5]], 6, table, read), _frame([[1]], 6, table, read)])
    assert joined.to_dicts() == [{"a": "z"}, {"b": "v"}]
