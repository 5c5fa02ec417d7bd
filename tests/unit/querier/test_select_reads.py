"""What is at hand is read where the request is; what is not, is waited for: the same answer, counted once."""

from __future__ import annotations

import asyncio
import time

import pytest

from mimir_ingest.bucket.discover import BlockCatalog
from mimir_ingest.bucket.publish import publish_block
from mimir_ingest.bucket.store import Bucket
from mimir_ingest.errors import QueryError
from mimir_ingest.ingester.cut import BlockRef
from mimir_ingest.ingester.head_answer import PartitionCut
from mimir_ingest.model.matchers import Matcher, MatchType
from mimir_ingest.model.samples import FetchLimits, SampleBudget
from mimir_ingest.promql.parser import parse_expr
from mimir_ingest.promql.plan import plan_query
from mimir_ingest.querier.block_reads import BlockReads, BlocksMissing
from mimir_ingest.querier.consistency import Level, ReadConsistency
from mimir_ingest.querier.heads import HeadsAnswer
from mimir_ingest.querier.reading import Reading
from mimir_ingest.querier.select_reads import SelectReads
from tests.support.blocks import build, make_samples

SAMPLES = {name: make_samples([({"__name__": name}, [(1000 * i, 1.0) for i in range(200)])]) for name in "ab"}


class OneHead:
    """Holds `a` and `b`; `at_hand` names those that need no waiting."""

    def __init__(self, at_hand: str = "ab", cuts: list[PartitionCut] | None = None) -> None:
        self.at_hand, self.cuts = at_hand, cuts or []
        self.asked: list[tuple[str, bool]] = []

    async def prepare(self, tenant: str, reading: Reading) -> None:
        reading.prepared = True

    def select_now(self, tenant, reading, matchers, start_ms, end_ms, budget) -> HeadsAnswer | None:
        name = matchers[0].value
        return self.answer(name, budget, now=True) if name in self.at_hand else None

    async def select(self, tenant, reading, matchers, start_ms, end_ms, budget, *, newest_only=False) -> HeadsAnswer:
        await asyncio.sleep(0)
        return self.answer(matchers[0].value, budget, now=False)

    def answer(self, name: str, budget: SampleBudget, *, now: bool) -> HeadsAnswer:
        self.asked.append((name, now))
        budget.take(SAMPLES[name].sample_count)
        return HeadsAnswer([SAMPLES[name]], self.cuts)


@pytest.fixture
def bucket(tmp_path) -> Bucket:
    return Bucket(str(tmp_path))


async def read(heads: OneHead, bucket: Bucket, expression: str, *, reading: Reading | None = None, **limits):
    blocks = BlockReads(BlockCatalog(bucket), max_age_s=60, clock=time.monotonic)
    plan = plan_query(parse_expr(expression), start_ms=0, end_ms=200_000, step_ms=1000, lookback_ms=300_000)
    options = {"max_samples": 1000, "fetch": FetchLimits(), "earliest_ms": None, "left_s": 60.0, **limits}
    reads = SelectReads(heads, blocks)
    # The first read lists the blocks.
    await reads.one(
        "team-a", Reading(), ((Matcher(MatchType.EQUAL, "__name__", "a"),), 0, 1), max_samples=0, fetch=None
    )
    heads.asked.clear()
    return await reads.each("team-a", reading or Reading(), plan.selects, **options)


@pytest.mark.parametrize("at_hand", ["", "a", "b", "ab"])
async def test_each_selector_is_read_once_at_hand_or_not(bucket, at_hand):
    heads = OneHead(at_hand)
    found = await read(heads, bucket, "a + b + a")
    assert [s.labels.strings("__name__") for s in found] == [["a"], ["b"], ["a"]]
    assert sorted(heads.asked) == [("a", "a" in at_hand), ("b", "b" in at_hand)]


async def test_blocks_join_what_was_at_hand_and_it_is_not_asked_for_nor_counted_again(bucket):
    publish_block(bucket, "team-a", build(make_samples([({"__name__": "a"}, [(-5000, 7.0), (0, 8.0)])]), cut_offset=1))
    heads = OneHead()
    (found,) = await read(heads, bucket, "a", max_samples=202)
    assert heads.asked == [("a", True)]
    assert found.values.tolist()[:3] == [7.0, 8.0, 1.0]
    with pytest.raises(QueryError, match="too many samples"):
        await read(heads, bucket, "a", max_samples=201)


async def test_a_block_that_a_head_has_handed_over_is_demanded_also_of_what_is_at_hand(bucket):
    gone = BlockRef("team-a", "01ARZ3NDEKTSV4RRFFQ69G5FAV", 0, 100)
    others = [
        BlockRef("team-b", "01ARZ3NDEKTSV4RRFFQ69G5FAW", 0, 100),
        BlockRef("team-a", "01ARZ3NDEKTSV4RRFFQ69G5FAX", 1 << 40, 1 << 41),
    ]
    (found,) = await read(OneHead(cuts=[PartitionCut(0, 5, tuple(others))]), bucket, "a")
    assert found.sample_count == 200
    with pytest.raises(BlocksMissing, match=gone.ulid):
        await read(OneHead(cuts=[PartitionCut(0, 5, (gone, *others))]), bucket, "a")


async def test_a_strong_read_is_prepared_before_anything_is_read(bucket):
    heads = OneHead()
    await read(heads, bucket, "a", reading=Reading(ReadConsistency(Level.STRONG)))
    assert heads.asked == [("a", False)]


async def test_what_is_not_at_hand_is_waited_for_as_long_as_there_is_time(bucket):
    class Silent(OneHead):
        async def select(self, *asked: object, **also: object) -> HeadsAnswer:
            if asked[2][0].value == "b":
                await asyncio.sleep(3600)
            return await super().select(*asked)

    with pytest.raises(TimeoutError):
        await read(Silent("a"), bucket, "a + b", left_s=0.05)


@pytest.mark.parametrize(("expression", "most"), [("a", 1), ("a + b", 2), ("a + a", 1)])
async def test_the_limit_on_series_counts_those_of_all_selectors_that_are_distinct(bucket, expression, most):
    await read(OneHead(), bucket, expression, fetch=FetchLimits(max_series=most))
    if most > 1:
        with pytest.raises(QueryError, match="maximum number of series"):
            await read(OneHead(), bucket, expression, fetch=FetchLimits(max_series=most - 1))


@pytest.mark.parametrize("at_hand", ["", "ab"])
async def test_a_reading_is_told_how_many_series_its_selectors_have(bucket, at_hand):
    reading = Reading()
    await read(OneHead(at_hand), bucket, "a + b + a", reading=reading)
    assert reading.fetched_series == 2
    whole = Reading()
    whole.join(reading)
    assert whole.fetched_series == 2
