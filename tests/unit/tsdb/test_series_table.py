"""What readers of a series table remember."""

from __future__ import annotations

import numpy as np

from mimir_ingest.model.matchers import Matcher, MatchType
from mimir_ingest.tsdb.head import Head
from mimir_ingest.tsdb.series_limits import SeriesLimits
from tests.support.batches import write_batch


def test_label_sets_that_small_reads_are_told_again_are_still_those_of_the_series():
    head = Head("t")
    rows = [({"__name__": "m", "i": str(i)}, [(1, float(i))]) for i in range(300)]
    for part in (rows[:150], rows[150:]):
        head.append(write_batch(part), offset=0, newest_ms=10, range_ms=1000, limits=SeriesLimits(), window_ms=0)
        table = head.table.view()
        for _ in range(2):
            for i in range(head.table.count - 2):
                assert table.frame(np.array([i], np.int32)).to_dicts() == [rows[i][0]]
                assert table.frame(np.array([i + 2, i], np.int32)).to_dicts() == [rows[i + 2][0], rows[i][0]]
        assert table.frame(np.arange(6, dtype=np.int32)).to_dicts() == [labels for labels, _ in rows[:6]]
        assert table.frame(np.empty(0, np.int32)).n == 0


def take(head: Head, rows: list) -> None:
    head.append(write_batch(rows), offset=0, newest_ms=10, range_ms=1000, limits=SeriesLimits(), window_ms=0)


def test_a_view_that_is_shared_does_not_outlive_a_new_series():
    head = Head("t")
    take(head, [({"__name__": "m", "i": "0"}, [(1, 0.0)])])
    matchers = (Matcher(MatchType.EQUAL, "__name__", "m"), Matcher(MatchType.EQUAL, "i", "1"))
    before = head.table.view(matchers)
    assert head.table.view(list(matchers)) is before
    assert before.find_few(32).tolist() == []
    take(head, [({"__name__": "m", "i": "0"}, [(2, 0.0)])])
    assert head.table.view(matchers) is before
    take(head, [({"__name__": "m", "i": "1"}, [(3, 0.0)])])
    assert head.table.view(matchers).find_few(32).tolist() == [1]
    assert before.find_few(32).tolist() == before.select(matchers).tolist() == []
    for i in range(1000):
        head.table.view([Matcher(MatchType.EQUAL, "i", str(i))])
    assert len(head.table._views) <= 128


def test_a_small_read_is_at_hand_again_once_any_read_has_indexed_the_series_that_came():
    head = Head("t")
    rows = [({"__name__": "m", "i": str(i)}, [(1, 0.0)]) for i in range(9000)]
    matchers = (Matcher(MatchType.EQUAL, "i", "7"),)
    for first, last in ((0, 3000), (3000, 4500), (4500, 9000)):
        take(head, rows[first:last])
        view = head.table.view(matchers)
        assert view.find_few(32) is None
        assert view.select(matchers).tolist() == [7]
        assert view.find_few(32).tolist() == [7]
    take(head, [({"__name__": "m", "i": "x"}, [(1, 0.0)])])
    newest = (Matcher(MatchType.EQUAL, "i", "x"),)
    assert head.table.view(newest).find_few(32).tolist() == [9000]


def test_what_matchers_select_is_remembered_with_its_label_sets_until_a_series_comes():
    head = Head("t")
    rows = [({"__name__": "m", "i": str(i)}, [(1, 0.0)]) for i in range(100)]
    matchers = (Matcher(MatchType.REGEXP, "i", ".*[02468]"),)
    take(head, rows)
    before = head.table.view(matchers)
    refs = before.select(matchers)
    assert before.select(list(matchers)) is refs
    every, most, few = np.arange(50), np.arange(0, 40), np.arange(0, 50, 7)
    for _ in range(2):
        for filled in (every, most, few):
            assert before.frame_of(refs, filled).to_dicts() == [rows[2 * i][0] for i in filled.tolist()]
    assert before.frame_of(refs, every).codes is before.frame_of(refs, every).codes
    take(head, [({"__name__": "m", "i": "100"}, [(1, 0.0)])])
    after = head.table.view(matchers)
    assert after.select(matchers).tolist() == [*range(0, 100, 2), 100]
    assert before.select(matchers).tolist() == refs.tolist()
    assert after.frame_of(after.select(matchers), np.arange(51)).to_dicts()[-1] == {"__name__": "m", "i": "100"}


def test_what_is_remembered_of_selections_is_bounded_by_the_table():
    head = Head("t")
    take(head, [({"__name__": "m", "i": str(i)}, [(1, 0.0)]) for i in range(100)])
    for number in range(60):
        matchers = (Matcher(MatchType.REGEXP, "i", f".*|{number}"),)
        view = head.table.view(matchers)
        assert len(view.frame_of(view.select(matchers), np.arange(100))) == 100
        kept = head.table._cache.selections.values()
        assert sum(len(selection.refs) for selection in kept) <= 200
    # Label sets with hardly a name in common are no table of codes to keep.
    head = Head("t")
    take(head, [({f"n{i}": "1"}, [(1, 0.0)]) for i in range(100)])
    view = head.table.view(())
    assert len(view.frame_of(view.select(()), np.arange(100))) == 100
    assert [selection.frame for selection in head.table._cache.selections.values()] == [None]
