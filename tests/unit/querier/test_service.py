"""The querier's shell: blocks that vanish, histograms that are left out, budgets, tenants that do not exist."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

import pytest

from mimir_ingest.bucket.discover import IDLE_S, BlockCatalog
from mimir_ingest.bucket.layout import block_folder
from mimir_ingest.bucket.publish import publish_block
from mimir_ingest.bucket.store import Bucket
from mimir_ingest.errors import BlockNotFound, QueryError
from mimir_ingest.model.matchers import Matcher, MatchType
from mimir_ingest.model.samples import TOO_MANY_SAMPLES, FetchLimits, SampleBudget
from mimir_ingest.promql.parser import parse_expr
from mimir_ingest.promql.values import QueryResult, Scalar
from mimir_ingest.querier import service
from mimir_ingest.querier.heads import HeadsAnswer
from mimir_ingest.querier.listings import BlockListings
from mimir_ingest.querier.query_limits import TenantQueryLimits
from mimir_ingest.querier.service import Querier, QueryLimits
from tests.support.blocks import build, make_samples

ALL = (Matcher(MatchType.REGEXP, "__name__", ".+"),)
EVER = (0, 1 << 50)


class NoHeads:
    """Heads that hold nothing; what they demand of the bucket is set by tests."""

    listed_since_s = float("-inf")

    async def prepare(self, *_: object) -> None:
        return None

    def select_now(self, *_: object) -> None:
        return None

    async def select(self, *_: object, **also: object) -> HeadsAnswer:
        return HeadsAnswer([], [], self.listed_since_s)

    label_frame = label_names = label_values = select


def make_querier(catalog: BlockCatalog, *, max_samples: int = 1000, **options) -> Querier:
    limits = QueryLimits(max_samples=max_samples, timeout_s=10, lookback_ms=300_000, subquery_step_ms=60_000)
    given = {"heads": NoHeads(), "max_concurrent": 2, "block_list_max_age_s": 60, **options}
    return Querier(catalog=catalog, limits=limits, **given)


@pytest.fixture
def bucket(tmp_path) -> Bucket:
    return Bucket(str(tmp_path))


def publish(bucket: Bucket, value: float, name: str = "a", cut_offset: int = 42) -> str:
    samples = make_samples([({"__name__": name}, [(1000 * i, value) for i in range(200)])])
    built = build(samples, cut_offset=cut_offset)
    publish_block(bucket, "team-a", built)
    return built.ulid


def remove(bucket: Bucket, ulid: str) -> None:
    folder = block_folder("team-a", ulid)
    for path in ("meta.json", "index", "chunks/000001"):
        bucket.delete(f"{folder}/{path}")


async def test_a_block_that_was_merged_and_deleted_after_the_listing_is_looked_for_again(bucket):
    first = publish(bucket, 1.0)
    querier = make_querier(BlockCatalog(bucket))
    assert (await querier.label_frame("team-a", [()], *EVER)).n == 1
    publish(bucket, 2.0, cut_offset=43)
    remove(bucket, first)
    # The old list and the open index are still at hand; the chunks are not.
    samples = await querier.select("team-a", ALL, *EVER)
    assert set(samples.values.tolist()) == {2.0}


async def test_a_block_that_cannot_be_found_at_all_is_an_error(bucket):
    class Broken(BlockCatalog):
        def open(self, block):
            raise BlockNotFound("gone")

    publish(bucket, 1.0)
    with pytest.raises(BlockNotFound):
        await make_querier(Broken(bucket)).select("team-a", ALL, *EVER)


@pytest.mark.parametrize("expression", ["a[10m]", "sum(rate(a[10m]))", "a[10m] offset -1s"])
async def test_a_query_for_more_samples_than_allowed_is_refused_by_the_reading(bucket, expression):
    publish(bucket, 1.0)
    querier = make_querier(BlockCatalog(bucket), max_samples=150)
    at = {"start_ms": 250_000, "end_ms_incl": 250_000, "step_ms": 0}
    with pytest.raises(QueryError, match=TOO_MANY_SAMPLES):
        await querier.query("team-a", parse_expr(expression), **at)


async def test_the_samples_of_equal_selectors_are_read_and_counted_once(bucket):
    publish(bucket, 1.0)
    querier = make_querier(BlockCatalog(bucket), max_samples=250)
    at = {"start_ms": 250_000, "end_ms_incl": 250_000, "step_ms": 0}
    answer = await querier.query("team-a", parse_expr("count_over_time(a[10m]) + count_over_time(a[10m])"), **at)
    assert answer.result.value.values.tolist() == [400.0]
    with pytest.raises(QueryError, match=TOO_MANY_SAMPLES):
        await querier.query("team-a", parse_expr("count_over_time(a[10m]) + count_over_time(a[11m])"), **at)


async def test_what_is_held_of_tenants_that_do_not_exist_is_bounded(bucket):
    publish(bucket, 1.0)
    catalog = BlockCatalog(bucket)
    listings = BlockListings(catalog, clock=asyncio.get_running_loop().time, max_tenants=3)
    await listings.refresh("team-a", oldest_s=0.0)
    for i in range(20):
        await listings.refresh(f"nobody-{i}", oldest_s=0.0)
    assert len(listings._tenants) == 3
    assert set(catalog._listings) == {"team-a", "nobody-17", "nobody-18", "nobody-19"}
    assert len(catalog.blocks("team-a", *EVER)) == 1


async def test_a_list_that_the_catalog_let_go_is_made_anew_however_new_it_was(bucket):
    publish(bucket, 1.0)
    now = [0.0]
    catalog = BlockCatalog(bucket, clock=lambda: now[0])
    listings = BlockListings(catalog, clock=lambda: 0.0)
    await listings.refresh("team-a", oldest_s=0.0)
    now[0] = 2 * IDLE_S
    await listings.refresh("team-b", oldest_s=0.0)
    assert not catalog.is_listed("team-a")
    assert not listings.is_newer("team-a", 0.0)
    assert list(listings._tenants) == ["team-b"]
    await listings.refresh("team-a", oldest_s=0.0)
    assert len(catalog.blocks("team-a", *EVER)) == 1


AT = {"start_ms": 250_000, "end_ms_incl": 250_000, "step_ms": 0}


@pytest.mark.parametrize(
    ("expression", "series"), [("a", 1), ("a + a offset 1s", 1), ("a + on() b", 2), ('{__name__=~"a|b"} + on() a', 2)]
)
async def test_distinct_series_of_all_selectors_are_counted(bucket, expression, series):
    publish(bucket, 1.0)
    publish(bucket, 1.0, name="b", cut_offset=43)
    publish(bucket, 2.0, cut_offset=44)
    querier = make_querier(BlockCatalog(bucket))

    async def ask(most: int) -> None:
        limits = TenantQueryLimits(fetch=FetchLimits(max_series=most))
        await querier.query("team-a", parse_expr(expression), **AT, tenant_limits=limits)

    if series == 1 or "{" not in expression:
        await ask(series)
    if series > 1:
        with pytest.raises(QueryError, match=r"err-mimir-max-series-per-query"):
            await ask(series - 1)


async def test_chunks_of_all_blocks_are_counted(bucket):
    for i in range(3):
        publish(bucket, 1.0, cut_offset=42 + i)
    querier = make_querier(BlockCatalog(bucket))
    fetch = FetchLimits(max_chunks=5)
    with pytest.raises(QueryError, match=r"err-mimir-max-chunks-per-query"):
        await querier.select("team-a", ALL, *EVER, fetch=fetch)
    assert (await querier.select("team-a", ALL, *EVER, fetch=FetchLimits(max_chunks=6))).series_count == 1


async def test_no_sample_before_the_earliest_time_is_read(bucket):
    publish(bucket, 1.0)
    querier = make_querier(BlockCatalog(bucket))

    async def count(earliest_ms: int | None) -> list[float]:
        answer = await querier.query("team-a", parse_expr("count_over_time(a[10m])"), **AT, earliest_ms=earliest_ms)
        return answer.result.value.values.tolist()

    assert [await count(t) for t in (None, 100_000, 199_000, 300_000)] == [[200.0], [100.0], [1.0], []]


async def test_a_selector_over_the_partial_length_is_refused_before_anything_is_read(bucket):
    querier = make_querier(BlockCatalog(bucket))
    limits = TenantQueryLimits(max_partial_length_ms=600_000)
    await querier.query("team-a", parse_expr("rate(a[10m])"), **AT, tenant_limits=limits)
    with pytest.raises(QueryError, match=r"err-mimir-max-query-length"):
        await querier.query("team-a", parse_expr("rate(a[11m])"), **AT, tenant_limits=limits)


async def test_a_tenant_may_have_names_dropped_at_the_end_of_a_query(bucket):
    publish(bucket, 1.0)
    querier = make_querier(BlockCatalog(bucket))
    expression = parse_expr('label_replace(last_over_time(a[5m]) * 2, "kept", "$1", "__name__", "(.*)")')

    async def labels(**limits: bool) -> list[dict[str, str]]:
        answer = await querier.query("team-a", expression, **AT, tenant_limits=TenantQueryLimits(**limits))
        return answer.result.value.labels.to_dicts()

    assert [row.get("kept") for row in await labels()] == [None]
    assert [row.get("kept") for row in await labels(delayed_name_removal=True)] == ["a"]


async def test_a_cancelled_query_gives_its_slot_back_when_its_evaluation_has_stopped(bucket, monkeypatch):
    began, stopped = threading.Event(), threading.Event()

    def endless(*_: object, cancelled: Callable[[], bool], **__: object) -> None:
        began.set()
        while not cancelled():
            time.sleep(0.001)
        time.sleep(0.05)
        stopped.set()
        raise QueryError("query was canceled in query execution", error_type="canceled")

    monkeypatch.setattr(service, "evaluate", endless)
    querier = make_querier(BlockCatalog(bucket))
    asked = parse_expr("max_over_time(a[10m:1m])")
    query = asyncio.create_task(querier.query("team-a", asked, start_ms=0, end_ms_incl=0, step_ms=0))
    await asyncio.to_thread(began.wait, 30)
    query.cancel()
    with pytest.raises(asyncio.CancelledError):
        await query
    assert stopped.is_set()


async def test_a_query_that_waits_for_its_turn_fails_in_time_and_keeps_nobody_else_waiting(bucket, monkeypatch):
    begun, turn = threading.Semaphore(0), threading.Event()

    def wait(*_: object, **__: object) -> QueryResult:
        begun.release()
        assert turn.wait(60)
        return QueryResult(Scalar(0, 1.0))

    monkeypatch.setattr(service, "evaluate", wait)
    querier = make_querier(BlockCatalog(bucket))
    at = {"start_ms": 0, "end_ms_incl": 0, "step_ms": 0}
    asked = parse_expr("max_over_time(a[10m:1m])")
    busy = [asyncio.create_task(querier.query("team-a", asked, **at)) for _ in range(2)]
    for _ in busy:
        await asyncio.to_thread(begun.acquire)
    with pytest.raises(QueryError, match="query timed out in queue") as error:
        await querier.query("team-a", asked, **at, timeout_s=0.05)
    assert error.value.error_type == "timeout"
    turn.set()
    assert [(await query).result.value for query in busy] == [Scalar(0, 1.0)] * 2
    assert (await querier.query("team-a", asked, **at)).result.value == Scalar(0, 1.0)


async def test_a_read_for_a_query_whose_time_is_over_stops_at_its_next_samples(bucket):
    """The answer does not wait for it."""
    stopped, turn, outcome = threading.Event(), threading.Event(), []

    class SlowHeads(NoHeads):
        async def select(self, *asked: object, **also: object) -> HeadsAnswer:
            return await asyncio.to_thread(self.read, asked[-1])

        def read(self, budget: SampleBudget) -> HeadsAnswer:
            budget.take(1)
            assert turn.wait(60)
            try:
                budget.take(1)
            except QueryError as error:
                outcome.append(error.error_type)
            stopped.set()
            return HeadsAnswer([], [], self.listed_since_s)

    querier = make_querier(BlockCatalog(bucket), heads=SlowHeads())
    at = {"start_ms": 0, "end_ms_incl": 0, "step_ms": 0}
    with pytest.raises(QueryError, match=r"^query timed out in query execution$") as raised:
        await querier.query("team-a", parse_expr("sum(a)"), **at, timeout_s=2.0)
    assert (raised.value.error_type, raised.value.http_status) == ("timeout", 503)
    turn.set()
    assert await asyncio.to_thread(stopped.wait, 60)
    assert outcome == ["canceled"]


async def test_the_evaluation_gets_what_is_left_of_the_time(bucket, monkeypatch):
    """The time in the queue and of reading counts: the deadline is that of the whole query."""
    publish(bucket, 1.0)
    times = iter((1000.0, 1001.0))
    querier = make_querier(BlockCatalog(bucket), clock=lambda: next(times, 1003.0))
    seen = []

    def evaluate_late(*_: object, deadline: float, **__: object) -> QueryResult:
        seen.append(deadline)
        raise QueryError("query timed out in expression evaluation", error_type="timeout")

    at = {"start_ms": 0, "end_ms_incl": 0, "step_ms": 0}
    monkeypatch.setattr(service, "evaluate", evaluate_late)
    with pytest.raises(QueryError, match="in expression evaluation"):
        await querier.query("team-a", parse_expr("sum(a)"), **at, timeout_s=5)
    assert seen == [1005.0]
