"""The circle of exemplars: newest kept, repeats refused, partitions apart."""

from dataclasses import replace

import numpy as np
import pytest
import xxhash

from mimir_ingest.api.exemplars import exemplars_json
from mimir_ingest.ingester.exemplars import PART_SERIES, Exemplar, ExemplarStore, SeriesExemplars, merge_exemplars
from mimir_ingest.ingester.partition import PartitionState, ReceivedExemplars
from mimir_ingest.ingester.settings import PartitionSettings
from mimir_ingest.log.contract import Record
from mimir_ingest.model.exemplars import Exemplars
from mimir_ingest.model.matchers import Matcher, MatchType
from mimir_ingest.wire.record import VERSION_COLUMNAR, RecordSettings, encode_columnar
from tests.support.batches import exemplar_batch, write_batch

T = 1_700_000_040_000
SETTINGS = RecordSettings(max_series=0, out_of_order_window_ms=7, creation_grace_ms=600_000)
EVER = (-(1 << 62), 1 << 62)
UP = Matcher(MatchType.EQUAL, "__name__", "up")


def one(t, v=1.0, **labels):
    return (t, v, labels or {"trace_id": str(t)})


def received(tenant, *series, known=True, window_ms=0):
    """Exemplars of a record; `series` as `exemplar_batch` takes them."""
    return ReceivedExemplars(tenant, exemplar_batch(*series), np.full(len(series), known), window_ms)


def test_exemplars_are_found_by_series_and_time():
    store = ExemplarStore(lambda _: 10)
    labels = {"__name__": "up", "pod": "a"}
    assert store.add(0, received("t", (labels, [one(1), one(5)]), ({"__name__": "down"}, [one(2)]))) == 3
    found = store.select("t", [UP], 2, 6, {0})
    assert found == [SeriesExemplars(labels, [Exemplar({"trace_id": "5"}, 1.0, 5)])]
    assert store.select("t", [UP], 6, 7, {0}) == []
    assert store.select("other", [UP], *EVER, {0}) == []
    assert len(store.select("t", [], *EVER, {0})) == 2


def test_repeated_and_older_exemplars_of_a_series_are_refused():
    store = ExemplarStore(lambda _: 10)
    series = {"__name__": "up"}
    assert store.add(0, received("t", (series, [one(5, 2.0)]))) == 1
    assert store.add(0, received("t", (series, [one(5, 2.0), one(4), one(5, 1.0)]))) == 0
    assert store.add(0, received("t", (series, [one(5, 3.0), one(6)]))) == 2
    assert [e.timestamp_ms for e in store.select("t", [UP], *EVER, {0})[0].exemplars] == [5, 5, 6]


def test_the_oldest_received_go_when_the_circle_is_full():
    store = ExemplarStore(lambda tenant: 3 if tenant == "t" else 0)
    for t in range(10):
        store.add(0, received("t", ({"__name__": "up", "i": str(t % 4)}, [one(t)])))
    assert store.held() == {"t": (3, 3, 9)}
    assert sorted(e.timestamp_ms for s in store.select("t", [], *EVER, {0}) for e in s.exemplars) == [7, 8, 9]
    assert store.add(0, received("none", ({"__name__": "up"}, [one(1)]))) == 0
    # A series whose exemplars are gone begins anew.
    assert store.add(0, received("t", ({"__name__": "up", "i": "2"}, [one(6)]))) == 1


def times(store):
    return [e.timestamp_ms for s in store.select("t", [UP], *EVER, {0}) for e in s.exemplars]


def test_late_exemplars_are_taken_within_the_window_and_lie_by_time():
    store = ExemplarStore(lambda _: 10)
    series = {"__name__": "up"}
    assert store.add(0, received("t", (series, [one(100), one(80), one(90)]), window_ms=20)) == 2
    assert times(store) == [90, 100]
    # Of a time that is there already nothing is taken late; the oldest of a series bounds nothing.
    assert store.add(0, received("t", (series, [one(90, 5.0), one(85), one(120)]), window_ms=20)) == 2
    assert times(store) == [85, 90, 100, 120]


def test_exemplars_of_one_time_ascend_by_value_and_then_by_hash():
    store = ExemplarStore(lambda _: 10)
    series = {"__name__": "up"}
    a, b = sorted(
        ({"id": "a"}, {"id": "b"}), key=lambda one: xxhash.xxh64_intdigest(b"\x02id\x01" + one["id"].encode())
    )
    assert store.add(0, received("t", (series, [(5, 1.0, b), (5, 1.0, a), (5, 0.5, b), (5, 2.0, a)]))) == 2
    found = store.select("t", [UP], *EVER, {0})[0].exemplars
    assert [(e.value, e.labels) for e in found] == [(1.0, b), (2.0, a)]
    assert store.add(0, received("t", (series, [(5, 2.0, b), (5, 2.0, b)]))) == 1


def test_a_limit_that_shrinks_holds_at_once():
    limit = 10
    store = ExemplarStore(lambda _: limit)
    store.add(0, received("t", ({"__name__": "up"}, [one(t) for t in range(6)])))
    limit = 2
    assert times(store) == [4, 5]
    limit = 10
    assert times(store) == [4, 5]
    limit = 0
    assert times(store) == []
    assert store.held() == {}


def test_exemplars_of_series_that_do_not_exist_are_refused():
    store = ExemplarStore(lambda _: 10)
    assert store.add(0, received("t", ({"__name__": "up"}, [one(1)]), known=False)) == 0
    assert store.held() == {}


def test_partitions_are_asked_for_and_forgotten_one_by_one():
    store = ExemplarStore(lambda _: 10)
    for partition in (0, 1):
        store.add(partition, received("t", ({"__name__": "up", "p": str(partition)}, [one(1)])))
    assert [s.labels["p"] for s in store.select("t", [UP], *EVER, {1})] == ["1"]
    store.forget(1)
    assert [s.labels["p"] for s in store.select("t", [UP], *EVER, {0, 1})] == ["0"]


def test_tenants_that_a_partition_does_not_know_are_dropped():
    store = ExemplarStore(lambda _: 10)
    for partition, tenant in ((0, "a"), (0, "b"), (1, "a"), (2, "a")):
        store.add(partition, received(tenant, ({"__name__": "up"}, [one(1)])))
    store.keep({0: {"a"}, 1: {"b"}})
    assert sum(count for count, _, _ in store.held().values()) == 2
    assert store.select("a", [UP], *EVER, {0, 2})
    assert not store.select("b", [UP], *EVER, {0})


def test_label_bytes_that_are_none_do_no_harm():
    store = ExemplarStore(lambda _: 10)
    good = exemplar_batch(({"__name__": "up"}, [one(1)]))
    bad = Exemplars(
        np.array([0, 1]), np.array([1]), np.array([1.0]), np.frombuffer(b"\x05ab", np.uint8), np.array([0, 3])
    )
    store.add(0, ReceivedExemplars("t", replace(good, exemplars=bad), np.array([True]), 0))
    assert store.select("t", [UP], *EVER, {0}) == [SeriesExemplars({"__name__": "up"}, [Exemplar({}, 1.0, 1)])]


def test_parts_from_several_places_become_distinct_series_in_label_order():
    a, b = Exemplar({"x": "1"}, 1.0, 5), Exemplar({"x": "2"}, float("nan"), 4)
    merged = merge_exemplars(
        [SeriesExemplars({"j": "b"}, [a]), SeriesExemplars({"j": "a"}, [a]), SeriesExemplars({"j": "b"}, [a, b])]
    )
    assert [(s.labels["j"], [e.timestamp_ms for e in s.exemplars]) for s in merged] == [("a", [5]), ("b", [4, 5])]


def test_of_a_record_the_exemplars_count_whose_series_exist_once_its_samples_are_taken():
    state = PartitionState("topic", 0, settings=PartitionSettings(), default_record_settings=lambda _: SETTINGS)

    def taken(offset, samples, *series):
        exemplars = exemplar_batch(*series)
        held = write_batch([(labels, [(T, 1.0)] if labels in samples else []) for labels, _ in series])
        value = encode_columnar(replace(held, exemplars=exemplars.exemplars), SETTINGS)
        applied = state.apply([Record(0, offset, T, b"t", value, VERSION_COLUMNAR)])
        return [(one.tenant, one.known.tolist(), one.window_ms) for one in applied.exemplars]

    up, down = {"__name__": "up"}, {"__name__": "down"}
    assert taken(0, [], (up, [one(T)])) == [("t", [False], 7)]
    assert not state.heads
    assert taken(1, [up], (up, [one(T)]), (down, [one(T)]), (up, [one(T)])) == [("t", [True, False, True], 7)]
    assert taken(2, [], (up, [one(T)])) == [("t", [True], 7)]


class GivenUp(Exception):
    """Raised by a check."""


def after(pieces):
    """A check that raises when asked for the second time and more pieces were to come."""

    def check():
        check.asked += 1
        if check.asked > pieces:
            raise GivenUp

    check.asked = 0
    return check


def test_many_series_are_read_merged_and_written_in_pieces_that_can_be_given_up():
    store = ExemplarStore(lambda _: 10_000)
    count = 3 * PART_SERIES
    store.add(0, received("t", *[({"__name__": "up", "i": str(i)}, [one(5)]) for i in range(count)]))
    found = store.select("t", [UP], *EVER, {0}, after(3))
    assert len(merge_exemplars(found, after(3))) == count
    assert exemplars_json(found, after(3)) == exemplars_json(found)
    for work in (
        lambda check: store.select("t", [UP], *EVER, {0}, check),
        lambda check: merge_exemplars(found, check),
        lambda check: exemplars_json(found, check),
    ):
        with pytest.raises(GivenUp):
            work(after(1))


def test_exemplars_are_taken_between_the_pieces_of_a_read():
    store = ExemplarStore(lambda _: 10_000)
    store.add(0, received("t", *[({"__name__": "up", "i": str(i)}, [one(5)]) for i in range(2 * PART_SERIES)]))
    taken = []
    found = store.select(
        "t",
        [],
        *EVER,
        {0},
        lambda: taken.append(store.add(0, received("t", ({"__name__": "new"}, [one(9 + len(taken))])))),
    )
    assert taken == [1, 1]
    assert len(found) == 2 * PART_SERIES
