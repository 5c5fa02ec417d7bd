"""Exemplars at the push: what is kept, what is dropped and counted, and that nobody is told."""

import cramjam
import pytest

from mimir_ingest.distributor.limits import DistributorLimits
from tests.support.protobuf_schema import WriteRequest
from tests.support.push_target import NOW_MS, PushTarget
from tests.unit.wire.test_exemplars import exemplars_of

KEEPING = DistributorLimits(max_global_exemplars_per_user=100)
GOOD = ([(b"trace_id", b"9f2c")], 6.0, NOW_MS)


def request(*exemplars, samples=1) -> bytes:
    return requests((samples, exemplars))


def requests(*rows) -> bytes:
    """A push of one series, each row (number of samples, exemplars) a message of its own."""
    body = WriteRequest()
    for samples, exemplars in rows:
        row = body.timeseries.add()
        row.labels.add(name=b"__name__", value=b"up")
        for i in range(samples):
            row.samples.add(timestamp=NOW_MS + i, value=1.0)
        for labels, value, timestamp in exemplars:
            one = row.exemplars.add(value=value, timestamp=timestamp)
            for name, text in labels:
                one.labels.add(name=name, value=text)
    return bytes(cramjam.snappy.compress_raw(body.SerializeToString()))


def stored(target):
    return [one for _, batch in target.batches() for rows in exemplars_of(batch) for one in rows]


DROPPED = {
    "exemplar_labels_missing": ([], 1.0, NOW_MS),
    "exemplar_timestamp_invalid": ([(b"a", b"b")], 1.0, 0),
    "exemplar_labels_too_long": ([(b"a", "ü".encode() * 128)], 1.0, NOW_MS),
    "exemplar_labels_blank": ([(b"", b"b")], 1.0, NOW_MS),
    "exemplar_too_old": ([(b"a", b"b")], 1.0, NOW_MS - 300_001),
    "exemplar_too_far_in_future": ([(b"a", b"b")], 1.0, NOW_MS + 600_001),
}


@pytest.mark.parametrize("reason", DROPPED)
async def test_a_bad_exemplar_is_dropped_and_counted_and_the_answer_is_200(reason):
    async with PushTarget(KEEPING) as target:
        answer = await target.post(request(GOOD, DROPPED[reason]))
        assert answer.status_code == 200, answer.text
        assert stored(target) == [(NOW_MS, 6.0, GOOD[0])]
        counters = target.counters("cortex_discarded_exemplars", "cortex_distributor_received_exemplars")
        assert counters == {
            f"cortex_discarded_exemplars_total{{reason={reason}}}": 1,
            "cortex_distributor_received_exemplars_total": 1,
        }


async def test_the_longest_labels_and_the_oldest_and_newest_times_are_kept_by_time():
    edges = [
        ([(b"a", "ü".encode() * 127)], 1.0, NOW_MS + 600_000),
        ([(b"a", b"b"), (b"b", b"c")], 2.0, NOW_MS - 300_000),
    ]
    async with PushTarget(KEEPING) as target:
        assert (await target.post(request(*edges))).status_code == 200
        assert [t for t, _, _ in stored(target)] == [NOW_MS - 300_000, NOW_MS + 600_000]


async def test_a_tenant_without_exemplars_has_them_dropped_silently():
    async with PushTarget() as target:
        assert (await target.post(request(GOOD))).status_code == 200
        assert stored(target) == []
        assert target.counters("cortex_discarded_exemplars") == {}
        assert target.counters("cortex_distributor_exemplars_in") == {"cortex_distributor_exemplars_in_total": 1}


async def test_more_exemplars_of_a_series_than_allowed_are_dropped():
    limits = DistributorLimits(max_global_exemplars_per_user=100, max_exemplars_per_series_per_request=2)
    more = [([(b"i", b"%d" % i)], float(i), NOW_MS + i) for i in range(5)]
    async with PushTarget(limits) as target:
        assert (await target.post(request(*more))).status_code == 200
        assert [v for _, v, _ in stored(target)] == [0.0, 1.0]
        reason = "too_many_exemplars_per_series_per_request"
        assert target.counters("cortex_discarded_exemplars") == {
            f"cortex_discarded_exemplars_total{{reason={reason}}}": 3
        }


async def test_exemplars_come_as_series_of_their_own_beside_the_sample_or_in_another_request():
    async with PushTarget(KEEPING) as target:
        for body in (requests((1, ()), (0, [GOOD])), request(GOOD, samples=0)):
            assert (await target.post(body)).status_code == 200
        one = (NOW_MS, 6.0, GOOD[0])
        assert [exemplars_of(batch) for _, batch in target.batches()] == [[[], [one]], [[one]]]


async def test_of_a_tenant_without_exemplars_a_request_of_them_only_stores_nothing_and_is_fine():
    async with PushTarget(DistributorLimits()) as target:
        assert (await target.post(request(GOOD, samples=0))).status_code == 200
        assert list(target.batches()) == []
