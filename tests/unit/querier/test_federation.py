"""Tenants of one request: read a bounded number at a time, told apart, and failed together."""

import asyncio

import pytest

from mimir_ingest.errors import QueryError, StoreUnavailable
from mimir_ingest.model.samples import FetchLimits
from mimir_ingest.promql.parser import parse_expr
from mimir_ingest.promql.plan import plan_query
from mimir_ingest.querier.federation import FederatedSelects, each_tenant
from mimir_ingest.querier.reading import Reading
from tests.support.blocks import make_samples


class KnownSelects:
    """Gives one series of two samples for every select; fails for `bad`."""

    def __init__(self):
        self.asked = []

    async def each(self, tenant, reading, selects, *, max_samples, left_s, fetch, earliest_ms):
        self.asked.append((tenant, [[str(m) for m in s.matchers] for s in selects]))
        if tenant == "bad":
            raise QueryError("no such thing", error_type="bad_data")
        return [make_samples([({"__name__": "m"}, [(1000, 1.0), (2000, 2.0)])]) for _ in selects]


async def read(tenant, query, *, max_samples=100):
    plan = plan_query(parse_expr(query), start_ms=2000, end_ms=2000, step_ms=0, lookback_ms=5000)
    selects = KnownSelects()
    found = await FederatedSelects(selects, max_concurrent=2).each(
        tenant, Reading(), plan.selects, max_samples=max_samples, left_s=60, fetch=FetchLimits(), earliest_ms=None
    )
    return [samples.labels.to_dicts() for samples in found], selects.asked


async def test_each_tenant_is_asked_for_the_selects_that_name_it_without_the_matchers_that_do():
    found, asked = await read("a|b", 'm{__tenant_id__="b",job!="x"} + m')
    assert found == [
        [{"__name__": "m", "__tenant_id__": "b"}],
        [{"__name__": "m", "__tenant_id__": "a"}, {"__name__": "m", "__tenant_id__": "b"}],
    ]
    assert dict(asked) == {
        "a": [['__name__="m"']],
        "b": [['job!="x"', '__name__="m"'], ['__name__="m"']],
    }


async def test_what_all_of_them_read_counts_against_the_limit_on_samples():
    assert len((await read("a|b", "m", max_samples=4))[0][0]) == 2
    with pytest.raises(QueryError, match="too many samples"):
        await read("a|b", "m", max_samples=3)


async def test_one_tenant_that_fails_fails_the_request_by_its_name_and_the_same_kind():
    with pytest.raises(QueryError) as caught:
        await read("a|bad", "m")
    assert (caught.value.message, caught.value.http_status) == ("error querying tenant_id bad: no such thing", 400)


async def test_no_more_than_a_bounded_number_is_read_at_a_time_and_the_request_is_told_what_all_saw():
    running, most = 0, 0
    outer = Reading(partial=True)

    async def one(tenant, own):
        nonlocal running, most
        assert own.partial
        running += 1
        most = max(most, running)
        own.saw({0: 10 + int(tenant), int(tenant): 5})
        if tenant == "3":
            own.unread[3] = "nobody owns it"
        await asyncio.sleep(0)
        running -= 1
        return tenant

    tenants = [str(i) for i in range(1, 8)]
    assert await each_tenant(tenants, outer, one, max_concurrent=3) == tenants
    assert most == 3
    assert outer.seen == {0: 10, **{i: 4 for i in range(1, 8) if i != 3}}
    assert outer.warnings == ["partial response: partition 3 is missing: nobody owns it"]


async def test_failures_of_the_store_keep_their_class():
    async def one(tenant, own):
        raise StoreUnavailable("no bucket")

    with pytest.raises(StoreUnavailable) as caught:
        await each_tenant(["a"], Reading(), one, max_concurrent=1)
    assert caught.value.message == "error querying tenant_id a: no bucket"
