"""Counts of a head's series, against plain Python over the same label sets."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from mimir_ingest.model.batch import SOURCE_OTLP
from mimir_ingest.model.labels import decode_label_bytes
from mimir_ingest.model.matchers import Matcher, MatchType
from mimir_ingest.tsdb import tally
from mimir_ingest.tsdb.census import SeriesTotals
from mimir_ingest.tsdb.head import Head
from mimir_ingest.tsdb.segment import Segment
from mimir_ingest.tsdb.series_limits import SeriesLimits
from mimir_ingest.tsdb.tally import Counted, Tally
from tests.support.batches import write_batch
from tests.support.histograms import Row, bits

RANGE_MS = 7_200_000
T0 = 1_700_000_000_000


def append(head, rows, at_ms, *, otlp=False):
    batch = write_batch(rows)
    head.activity.begin(at_ms, otlp=otlp)
    if otlp:
        batch = replace(batch, source=SOURCE_OTLP)
    return head.append(batch, offset=0, newest_ms=1 << 60, range_ms=RANGE_MS, limits=SeriesLimits(), window_ms=0)


def histogram(buckets):
    counts = tuple((i, 1.0) for i in range(buckets))
    return Row(3, 0, False, 2.0**-128, 0.0, float(buckets), bits(1.0), (), counts, ())


def labels(i):
    found = {"__name__": f"m{i % 3}", "i": str(i), "job": "a" if i % 2 else "b"}
    return found if i % 5 else {**found, "rare": "x"}


def pairs_of(counted):
    text = counted.labels.tobytes()
    spans = zip(counted.offsets, counted.offsets[1:], strict=False)
    names = [decode_label_bytes(text[a:b]) for a, b in spans]
    return dict(zip(map(tuple, names), counted.counts.tolist(), strict=True))


def test_pairs_are_counted_over_known_series_with_a_sample_since():
    head = Head("a")
    append(head, [(labels(i), [(T0, 1.0)]) for i in range(20)], T0)
    append(head, [(labels(i), [(T0 + 1, 1.0)]) for i in range(10, 30)], T0 + 60_000)
    matchers = [Matcher(MatchType.EQUAL, "job", "a")]
    census = head.census(matchers)
    for since, names, wanted in (
        (None, None, [labels(i) for i in range(1, 30, 2)]),
        (T0 + 60_000, None, [labels(i) for i in range(11, 30, 2)]),
        (T0 + 60_001, None, []),
        (None, {"rare", "i", "nosuch"}, [labels(i) for i in range(1, 30, 2)]),
    ):
        refs = census.select(matchers, since)
        counts = Counter(((n, v),) for own in wanted for n, v in own.items() if names is None or n in names)
        assert pairs_of(census.pairs(refs, names)) == {pair: [count] for pair, count in counts.items()}
        assert set(pairs_of(census.series(refs))) == {tuple(sorted(own.items())) for own in wanted}


def test_series_that_a_cut_forgets_are_not_counted_also_when_the_table_is_built_anew():
    head = Head("a")
    append(head, [(labels(i), [(T0, 1.0)]) for i in range(3000)], T0)
    append(head, [(labels(i), [(T0 + RANGE_MS, 1.0)]) for i in range(100)], T0 + RANGE_MS)
    assert len(head.census(()).select(())) == 3000
    head.freeze(T0 + RANGE_MS, RANGE_MS)
    census = head.census(())
    assert len(census.select(())) == len(census.select((), T0)) == 100
    before = head.table
    head.thaw(Segment.empty(), T0 + RANGE_MS, 1)
    assert head.table is not before
    census = head.census(())
    assert len(census.select((), T0 + RANGE_MS)) == 100
    assert census.select((), T0 + RANGE_MS + 1).tolist() == []
    # One that comes again is active again.
    append(head, [(labels(2000), [(T0 + RANGE_MS + 5, 1.0)])], T0 + RANGE_MS + 5)
    census = head.census(())
    assert set(pairs_of(census.series(census.select((), T0 + RANGE_MS + 1)))) == {tuple(sorted(labels(2000).items()))}


def test_a_sample_that_is_refused_does_not_make_its_series_active():
    head = Head("a")
    append(head, [(labels(1), [(T0, 1.0)])], T0)
    append(head, [(labels(1), [(T0 - 1, 1.0)])], T0 + 60_000)
    assert len(head.census(()).select((), T0)) == 1
    assert len(head.census(()).select((), T0 + 1)) == 0


def test_a_restored_series_counts_as_seen_at_its_last_sample():
    head = Head("a")
    append(head, [(labels(i), [(T0 + i, 1.0)]) for i in range(5)], T0 + 60_000)
    last_ts, last_value = head.series_state()
    text = head.table.view().label_bytes(np.arange(5, dtype=np.int32))
    again = Head.restore(
        "a", text, last_ts, last_value, max_ts=head.max_ts, window_ms=0, held={}, segments=(Segment.empty(),)
    )
    assert len(again.census(()).select((), T0 + 3)) == 2


def test_native_histograms_and_otlp_series_are_told_by_their_last_sample():
    head = Head("a")
    append(head, [(labels(i), [(T0, 1.0)]) for i in range(4)], T0)
    append(head, [(labels(i), [(T0 + 1, histogram(3 + i))]) for i in range(6)], T0, otlp=True)
    append(head, [(labels(i), [(T0 + 2, 1.0)]) for i in (1, 5)], T0)
    census = head.census(())
    refs = census.select(())
    # 0, 2, 3 and 4 are left, with 3, 5, 6 and 7 buckets.
    assert census.totals(refs) == SeriesTotals(series=6, otlp=4, histograms=4, buckets=21)
    assert pairs_of(census.histograms(refs)) == {
        (("__name__", "m0"),): [2, 9, -3, 6],
        (("__name__", "m1"),): [1, 7, -7, 7],
        (("__name__", "m2"),): [1, 5, -5, 5],
    }
    assert len(Head("b").census(()).histograms(np.empty(0, np.int32))) == 0


@pytest.mark.parametrize("parts", [1, 3])
def test_what_several_heads_counted_is_joined_exactly(parts):
    heads = [Head("a") for _ in range(parts)]
    for number, head in enumerate(heads):
        append(head, [(labels(i), [(T0, histogram(i % 4 + 1))]) for i in range(number, 30 + number)], T0)
    censuses = [head.census(()) for head in heads]
    refs = [census.select(()) for census in censuses]
    tally = Tally.of([c.pairs(r) for c, r in zip(censuses, refs, strict=True)], columns=1, sums=1)
    everything = [labels(i) for n in range(parts) for i in range(n, 30 + n)]
    wanted = Counter(((n, v),) for own in everything for n, v in own.items())
    text, offsets, _ = tally.table.label_bytes(np.arange(tally.table.series_count, dtype=np.int32))
    assert pairs_of(Counted(text, offsets, tally.counts)) == {pair: [count] for pair, count in wanted.items()}
    assert tally.nbytes == len(text)

    tally = Tally.of([c.histograms(r) for c, r in zip(censuses, refs, strict=True)], columns=4, sums=2)
    named = {tally.table.value(i): row for i, row in enumerate(tally.counts.tolist())}
    for name in ("m0", "m1", "m2"):
        sizes = [i % 4 + 1 for n in range(parts) for i in range(n, 30 + n) if f"m{i % 3}" == name]
        assert named[name] == [len(sizes), sum(sizes), -min(sizes), max(sizes)]


class GivenUp(Exception):
    """Raised by a check."""


def test_counting_can_be_given_up_in_between():
    head = Head("a")
    append(head, [(labels(i), [(T0, 1.0)]) for i in range(100)], T0)
    matchers = [Matcher(MatchType.REGEXP, "i", ".*7.*")]
    census = head.census(matchers)

    def check():
        raise GivenUp

    refs = census.select(matchers)
    for work in (
        lambda: census.select(matchers, check=check),
        lambda: census.pairs(refs, check=check),
        lambda: Tally.of([census.series(refs)], columns=0, sums=0, check=check),
    ):
        with pytest.raises(GivenUp):
            work()


def test_entries_are_joined_in_parts_as_at_once(monkeypatch):
    head = Head("a")
    append(head, [(labels(i), [(T0, 1.0)]) for i in range(100)], T0)
    census = head.census(())
    counted = census.pairs(census.select(()))
    whole = Tally.of([counted, counted], columns=1, sums=1)
    monkeypatch.setattr(tally, "_PART_ENTRIES", 7)
    parts = Tally.of([counted, counted], columns=1, sums=1)
    assert parts.counts.tolist() == whole.counts.tolist()
    assert parts.nbytes == whole.nbytes
