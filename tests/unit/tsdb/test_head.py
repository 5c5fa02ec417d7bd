"""The head against a plain-Python oracle, whatever seals, merges, cuts and restores happen in between."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mimir_ingest.errors import RecordCorrupt
from mimir_ingest.ingester.cut import stays
from mimir_ingest.kernels.head import ACCEPTED_LATE, BEHIND_BUCKETS, BEHIND_MS, METRIC_SERIES_LIMIT, REPEATED
from mimir_ingest.model.batch import STALE_NAN_BITS, WriteBatch
from mimir_ingest.model.matchers import Matcher, MatchType
from mimir_ingest.tsdb.head import Head
from mimir_ingest.tsdb.segment import Staged, _pick_staged
from mimir_ingest.tsdb.series_limits import SeriesLimits
from tests.reference.head import REASONS, PlainHead, bits
from tests.support.batches import write_batch
from tests.support.blocks import both_kinds
from tests.support.head_restart import restarted
from tests.support.histograms import Row

RANGE_MS = 1000
STALE = np.array([STALE_NAN_BITS], np.uint64).view(np.float64)[0]
FOREVER = (-(1 << 62), 1 << 62)

LABELS = st.fixed_dictionaries(
    {"__name__": st.sampled_from(["up", "http_requests_total", "q"])},
    optional={"job": st.sampled_from(["a", "b", "c" * 40]), "zone": st.sampled_from(["x", "ü"])},
)
# Few times, so that they meet one another, floors and bounds.
TIMES = st.integers(0, 24).map(lambda n: n * 250)
HISTOGRAMS = [
    Row(3, 0, False, 0.0, 1.0, 3.0, 0, (), ((0, 2.0), (1, 0.0))),
    Row(3, 0, False, 0.0, 1.0, 9.0, 0, ((2, 3.0),), ((0, 2.0), (1, 3.0))),
    Row(3, 1, False, 0.0, 0.0, 1.0, 0, (), ((7, 1.0),)),
    Row(-53, 0, True, 0.0, 0.0, 1.5, 0, (), ((1, 1.5),), (0.5, 2.0)),
    Row(3, 3, True, 0.25, 0.0, 1.5, 0, (), ((1, 1.5),)),
    Row(0, 0, False, 0.0, 0.0, 0.0, STALE_NAN_BITS, (), ()),
    Row(3, 0, False, 0.0, 0.0, 8.0, 0, (), ((7, 1.0),)),
]
"""The last one contradicts itself."""
VALUES = st.sampled_from([0.0, -0.0, 1.5, float("nan"), STALE, 1e300]) | st.sampled_from(HISTOGRAMS)
SAMPLES = st.lists(st.tuples(TIMES, VALUES) | st.tuples(TIMES, VALUES, st.just(0) | TIMES), max_size=4)
DELTAS = st.sampled_from([False, False, True])
ROWS = st.lists(st.tuples(LABELS, SAMPLES) | st.tuples(LABELS, SAMPLES, DELTAS), max_size=6)
LIMITS = st.builds(SeriesLimits, st.sampled_from([0, 2, 5]), st.sampled_from([0, 1, 2]), st.sampled_from([(), (b"q",)]))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), ROWS, st.sampled_from([6000, 3000, 1250]), LIMITS),
        st.sampled_from([("seal",), ("merge",), ("restart",)]),
        st.tuples(st.just("cut"), st.integers(0, 7)),
    ),
    max_size=25,
)


def contents(head: Head, matchers=(), start=FOREVER[0], end=FOREVER[1]) -> dict[tuple, dict[int, int]]:
    """Series → timestamp → bits, of equal timestamps the one in the first answer."""
    found: dict[tuple, dict[int, int]] = {}
    for answer in head.view(list(matchers)).select(list(matchers), start, end):
        series = both_kinds(answer)
        assert len({tuple(sorted(labels.items())) for labels, _ in series}) == len(series)
        for labels, points in series:
            assert points
            known = found.setdefault(tuple(sorted(labels.items())), {})
            for t, value in points.items():
                if isinstance(known.get(t), Row) and not isinstance(value, Row):
                    known[t] = value
                known.setdefault(t, value)
    return found


def expected(samples, start=FOREVER[0], end=FOREVER[1]) -> dict[tuple, dict[int, int]]:
    kept = {k: {t: bits(v) for t, v in s.items() if start <= t < end} for k, s in samples.items()}
    return {k: s for k, s in kept.items() if s}


@settings(max_examples=300, deadline=None)
@given(steps=STEPS, window=st.sampled_from([0, 250, 1000, 5000]))
def test_a_head_holds_and_rejects_what_the_plain_one_does(steps, window):
    head, plain = Head("t", seal_samples=4), PlainHead(RANGE_MS)
    for offset, step in enumerate(steps):
        if step[0] == "append":
            _, rows, newest, limits = step
            counts = head.append(
                write_batch(rows),
                offset=offset,
                newest_ms=newest,
                range_ms=RANGE_MS,
                limits=limits,
                window_ms=window,
            )
            wanted = plain.append(rows, newest_ms=newest, limits=limits, window_ms=window)
            found = dict(zip(REASONS, counts[: METRIC_SERIES_LIMIT + 1].tolist(), strict=True))
            assert found | {"accepted-late": counts[ACCEPTED_LATE]} == wanted
            assert counts[BEHIND_MS] == sum(plain.behind_ms)
            assert counts[BEHIND_BUCKETS:].sum() == len(plain.behind_ms)
        elif step[0] == "seal":
            head.seal(force=True)
        elif step[0] == "merge":
            head.merge()
        elif step[0] == "restart":
            head = restarted(head, seal_samples=4)
        else:
            before = step[1] * RANGE_MS
            frozen = head.freeze(before, RANGE_MS)
            head.thaw(stays(frozen), before, offset)
            taken = plain.cut(before)
            plain.shipped = taken
            both = {k: {**plain.samples.get(k, {}), **taken.get(k, {})} for k in {*plain.samples, *taken}}
            assert contents(head) == expected(both)
            head.release(offset)
            plain.shipped = {}
        assert contents(head) == expected(plain.samples)
        assert head.live_count == len(plain.last)
    for start, end in ((0, 1000), (500, 501), (2500, 6000)):
        assert contents(head, start=start, end=end) == expected(plain.samples, start, end)


MATCHERS = st.lists(
    st.builds(
        Matcher,
        st.sampled_from(list(MatchType)),
        st.sampled_from(["__name__", "job", "zone", "missing"]),
        st.sampled_from(["", "up", "a", "b|c+", ".*", ".+", "x", "ü", "http.*"]),
    ),
    max_size=4,
)


@settings(max_examples=300, deadline=None)
@given(rows=st.lists(st.tuples(LABELS, st.just([(1, 1.0)])), min_size=1, max_size=20), matchers=MATCHERS)
def test_matchers_select_what_they_match_one_by_one(rows, matchers):
    head = Head("t")
    head.append(write_batch(rows), offset=0, newest_ms=10, range_ms=RANGE_MS, limits=SeriesLimits(), window_ms=0)
    wanted = {
        tuple(sorted(labels.items())) for labels, _ in rows if all(m.matches(labels.get(m.name, "")) for m in matchers)
    }
    assert set(contents(head, matchers)) == wanted
    frames = head.view(matchers).label_frames(matchers, 0, 10)
    assert {tuple(sorted(d.items())) for f in frames for d in f.to_dicts()} == wanted
    assert not head.view(matchers).label_frames(matchers, 2, 10)
    few = head.view(matchers).find_few(1)
    if few is not None:
        assert len(wanted) <= 1
        answers = head.view(matchers).select(matchers, *FOREVER, found=few)
        assert {tuple(sorted(d.items())) for a in answers for d in a.labels.to_dicts()} == wanted


def test_postings_answer_like_the_scan_of_what_they_do_not_cover():
    head = Head("t")
    rows = [({"__name__": "m", "i": str(i), "mod": str(i % 7)}, [(1, float(i))]) for i in range(9000)]
    for part in (rows[:5000], rows[5000:]):
        head.append(write_batch(part), offset=0, newest_ms=10, range_ms=RANGE_MS, limits=SeriesLimits(), window_ms=0)
        for matchers in (
            [Matcher(MatchType.EQUAL, "mod", "3")],
            [Matcher(MatchType.REGEXP, "i", "[0-9]*5"), Matcher(MatchType.NOT_EQUAL, "mod", "3")],
        ):
            known = rows[: head.table.count]
            wanted = {r[0]["i"] for r in known if all(m.matches(r[0][m.name]) for m in matchers)}
            assert {dict(k)["i"] for k in contents(head, matchers)} == wanted
        for i in (7, 4000, head.table.count - 1):
            matchers = [Matcher(MatchType.EQUAL, "i", str(i)), Matcher(MatchType.EQUAL, "__name__", "m")]
            (found,) = head.view(matchers).find_few(32)
            assert found.tolist() == [i]
        matchers.append(Matcher(MatchType.EQUAL, "mod", str((i + 1) % 7)))
        assert [len(found) for found in head.view(matchers).find_few(32)] == [0]
        assert head.view(matchers[1:]).find_few(32) is None


@pytest.mark.parametrize("refs", [[3], [0, 2], [1, 2, 3, 5], [0, 1, 2, 3, 4, 5], [6]])
def test_staged_samples_of_few_series_are_picked_as_of_many(refs):
    rng = np.random.default_rng(1)
    staged = Staged(rng.integers(0, 7, 500).astype(np.int32), rng.integers(0, 100, 500), rng.random(500))
    picked = _pick_staged(staged, np.array(refs, np.int32), 7, 20, 80)
    wanted = [
        (refs.index(ref), at, value)
        for ref, at, value in zip(staged.refs.tolist(), staged.timestamps.tolist(), staged.values.tolist(), strict=True)
        if ref in refs and 20 <= at < 80
    ]
    columns = (picked.series.tolist(), picked.timestamps.tolist(), picked.values.tolist())
    assert list(zip(*columns, strict=True)) == wanted


def test_a_table_of_mostly_forgotten_series_is_rebuilt_and_answers_the_same():
    head = Head("t")
    churn = [({"__name__": "churn", "i": str(i)}, [(1, 1.0)]) for i in range(3000)]
    head.append(write_batch(churn), offset=0, newest_ms=1 << 40, range_ms=RANGE_MS, limits=SeriesLimits(), window_ms=0)
    stay = [({"__name__": "stay", "i": str(i)}, [(9000 + i, float(i))]) for i in range(5)]
    head.append(write_batch(stay), offset=1, newest_ms=1 << 40, range_ms=RANGE_MS, limits=SeriesLimits(), window_ms=0)
    frozen = head.freeze(9000, RANGE_MS)
    assert head.live_count == 5
    head.thaw(stays(frozen), 9000, 2)
    assert head.table.count == 5
    assert len(contents(head)) == 3005
    head.release(2)
    assert contents(head) == {tuple(sorted(k.items())): {t: bits(v)} for k, [(t, v)] in stay}
    again = head.append(
        write_batch(stay), offset=3, newest_ms=1 << 40, range_ms=RANGE_MS, limits=SeriesLimits(), window_ms=0
    )
    assert again[REPEATED] == 5


def test_a_series_above_its_floor_is_remembered_over_a_cut_so_that_a_retry_is_not_stored_twice():
    head = Head("t")
    push = write_batch([({"__name__": "m"}, [(5000, 1.0)])])
    head.append(push, offset=0, newest_ms=1 << 40, range_ms=RANGE_MS, limits=SeriesLimits(), window_ms=0)
    frozen = head.freeze(1 << 50, RANGE_MS)
    head.thaw(stays(frozen), 1 << 50, 1)
    head.release(1)
    counts = head.append(push, offset=1, newest_ms=1 << 40, range_ms=RANGE_MS, limits=SeriesLimits(), window_ms=0)
    assert counts[REPEATED] == 1
    assert head.held_count == 0
    assert contents(head) == {}


def test_label_bytes_that_are_none_are_refused_and_change_nothing():
    good = write_batch([({"a": "b"}, [(1, 1.0)])])
    for key in (b"\x05ab", b"\x01a", b"\xff\xff\xff\xff\xff\xff", b"\x01a\x80"):
        head = Head("t")
        bad = WriteBatch(
            np.frombuffer(key, np.uint8),
            np.array([0, len(key)], np.int64),
            np.array([7], np.uint64),
            good.sample_offsets,
            good.timestamps,
            good.values,
        )
        with pytest.raises(RecordCorrupt):
            head.append(bad, offset=0, newest_ms=10, range_ms=RANGE_MS, limits=SeriesLimits(), window_ms=0)
        assert (head.table.count, head.live_count, head.held_count) == (0, 0, 0)


def test_label_sets_with_one_hash_live_apart_through_rebuilds_cuts_and_restarts(monkeypatch):
    monkeypatch.setattr(WriteBatch, "check_hashes", lambda _: None)  # nobody can make label sets that truly collide
    rows = [({"__name__": "m", "i": str(i)}, [(9000 + i, float(i))]) for i in range(50)]
    batch = write_batch([*rows, ({"__name__": "old"}, [(1, 1.0)])])
    batch = dataclasses.replace(batch, hashes=np.full(51, 0xABCDEF0123456789, np.uint64))
    head = Head("t")
    bounds = {"newest_ms": 1 << 40, "range_ms": RANGE_MS, "limits": SeriesLimits(), "window_ms": 1 << 40}
    head.append(batch, offset=0, **bounds)
    assert (head.table.count, head.live_count) == (51, 51)
    wanted = {tuple(sorted(k.items())): {t: bits(v)} for k, [(t, v)] in rows}
    assert contents(head) == {**wanted, (("__name__", "old"),): {1: bits(1.0)}}
    assert contents(head, [Matcher(MatchType.EQUAL, "i", "7")]) == {(("__name__", "m"), ("i", "7")): {9007: bits(7.0)}}
    again = restarted(head)
    assert contents(again) == contents(head)
    assert again.append(batch, offset=1, **bounds)[REPEATED] == 51
    frozen = again.freeze(9000, RANGE_MS)
    again.thaw(stays(frozen), 9000, 2)
    again.release(2)
    again._rebuild_table()
    assert contents(again) == wanted
    assert again.append(batch.take(np.arange(50)), offset=3, **bounds)[REPEATED] == 50
