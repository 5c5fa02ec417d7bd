"""Reads of several ingesters behind real listeners: choice, fail-over, hand-over, partitions that are gone."""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace

import numpy as np
import pytest

from mimir_ingest.bucket.layout import block_folder
from mimir_ingest.errors import AnswerCorrupt, OwnerUnavailable, QueryError, StorageError
from mimir_ingest.kernels.histogram_cuts import RANGE_MS
from mimir_ingest.model.histograms import HistogramSamples
from mimir_ingest.model.matchers import Matcher, MatchType
from mimir_ingest.model.samples import TOO_MANY_SAMPLES
from mimir_ingest.promql.parser import parse_expr
from mimir_ingest.querier.consistency import Level, ReadConsistency
from mimir_ingest.querier.reading import Reading
from mimir_ingest.wire.record import VERSION_COLUMNAR, encode_columnar
from partitions.errors import EmptyRing, TooManyUnhealthyInstances
from partitions.model import InstanceState, OwnerState, PartitionState
from tests.support.batches import exemplar_batch, write_batch
from tests.support.blocks import to_python
from tests.support.histograms import as_rows, of_rows
from tests.support.native_series import make_series
from tests.support.read_cluster import LIMITS, NOW_MS, QUERY_LIMITS, Cluster, until

M = (Matcher(MatchType.EQUAL, "__name__", "m"),)
EVER = (0, 1 << 50)
EVEN_HOUR_MS = NOW_MS // RANGE_MS * RANGE_MS


def rows(partition: int, count: int = 3, start_ms: int = NOW_MS):
    """Return one series a partition."""
    labels = {"__name__": "m", "p": str(partition)}
    return [(labels, [(start_ms + 1000 * i, float(i)) for i in range(count)])]


async def two_zones(cluster: Cluster, *, partitions: int = 3, push: bool = True, **options) -> None:
    """Start an ingester in each of two zones that owns every partition; each holds a series a partition."""
    for p in range(partitions):
        await cluster.set_partition(p)
    for zone in ("a", "b"):
        await cluster.add_node(f"ingester-{zone}", range(partitions), zone=zone, **options)
    if push:
        for p in range(partitions):
            await cluster.consumed(p, await cluster.push(rows(p), partition=p))


@pytest.fixture
async def cluster(tmp_path):
    async with Cluster(tmp_path) as cluster:
        yield cluster


async def times(querier, **options) -> dict[str, list[int]]:
    """Return the times of each series, in seconds since NOW_MS."""
    samples = await querier.select("a", M, *EVER, **options)
    return {labels["p"]: [(t - NOW_MS) // 1000 for t, _ in points] for labels, points in to_python(samples)}


WHOLE = {str(p): [0, 1, 2] for p in range(3)}


async def test_everything_is_read_alike_over_http_and_in_this_process(cluster):
    await two_zones(cluster)
    local = cluster.nodes["ingester-a"]
    remote, near = await cluster.querier(), await cluster.querier(local=local)
    for querier in (remote, near):
        assert await times(querier) == WHOLE
        assert await querier.label_names("a", [M], *EVER) == ["__name__", "p"]
        assert await querier.label_names("a", [()], *EVER) == ["__name__", "p"]
        assert await querier.label_values("a", "p", [M], *EVER) == ["0", "1", "2"]
        assert (await querier.label_frame("a", [M], *EVER)).to_dicts() == [
            {"__name__": "m", "p": str(p)} for p in range(3)
        ]
        assert await querier.metadata("a") == {}
        assert await querier.select("b", M, *EVER) is not None
    assert local.listener.requests + cluster.nodes["ingester-b"].listener.requests == 7
    first, second = [to_python(await q.select("a", M, *EVER)) for q in (remote, near)]
    assert first == second


async def test_a_partition_that_changes_hands_during_a_read_is_read_from_its_new_owner(cluster):
    await cluster.set_partition(0)
    old = await cluster.add_node("ingester-a", [0])
    new = await cluster.add_node("ingester-b", [1])
    await cluster.consumed(0, await cluster.push(rows(0)))
    querier = await cluster.querier()

    async def hand_over() -> None:
        await new.ingester.own({0})
        await until(lambda: 0 in new.ingester.next_offsets())
        await cluster.own("ingester-b", [0])
        await cluster.own("ingester-b", [1], OwnerState.DELETED)
        await cluster.own("ingester-a", [0], OwnerState.DELETED)
        await old.ingester.own({1})

    await cluster.own("ingester-b", [1], OwnerState.DELETED)
    old.listener.before = hand_over
    assert await times(querier) == {"0": [0, 1, 2]}
    assert (old.listener.requests, new.listener.requests) == (1, 1)


async def test_odd_label_names_and_matchers_reach_another_process_as_they_are(cluster):
    await two_zones(cluster, partitions=1, push=False)
    labels = {"__name__": "m", "ä b": 'x"\\\n', "p": "0"}
    await cluster.consumed(0, await cluster.push([(labels, [(NOW_MS, 1.0)])]))
    querier = await cluster.querier()
    matchers = (
        Matcher(MatchType.EQUAL, "ä b", 'x"\\\n'),
        Matcher(MatchType.NOT_EQUAL, "p", "\udcff"),
        Matcher(MatchType.REGEXP, "p", "0|1"),
    )
    assert (await querier.label_frame("a", [matchers], *EVER)).to_dicts() == [labels]
    assert (await querier.select("a", matchers, *EVER)).sample_count == 1
    assert await querier.label_values("a", "ä b", [matchers], *EVER) == ['x"\\\n']
    assert (await querier.select("a", (Matcher(MatchType.EQUAL, "p", "\udcff"),), *EVER)).sample_count == 0


def batch_of(series):
    """Return a write batch of series with floats and native histograms."""
    floats = [(labels, [(t, v) for t, v in samples if isinstance(v, float)]) for labels, samples in series]
    native = [[(t, v) for t, v in samples if not isinstance(v, float)] for _, samples in series]
    flat = [sample for samples in native for sample in samples]
    offsets = np.cumsum([0, *map(len, native)], dtype=np.int64)
    columns = HistogramSamples(offsets, np.array([t for t, _ in flat], np.int64), of_rows([row for _, row in flat]))
    return replace(write_batch(floats), histograms=columns)


@pytest.mark.parametrize("first_ms", [NOW_MS, EVEN_HOUR_MS - 75_000])
async def test_native_histograms_reach_another_process_as_they_are(cluster, first_ms):
    await two_zones(cluster, partitions=1, push=False)
    series = make_series(first_ms, 150, 1000)
    value = encode_columnar(batch_of(series), LIMITS)
    await cluster.consumed(0, await cluster.log.append(0, b"a", value, VERSION_COLUMNAR, timeout_s=60))
    remote, near = await cluster.querier(), await cluster.querier(local=cluster.nodes["ingester-a"])
    matchers = (Matcher(MatchType.REGEXP, "__name__", "latency.*"),)
    for start_ms, end_ms in (EVER, (first_ms + 10_000, first_ms + 20_000), (first_ms + 70_000, first_ms + 80_000)):
        one, other = [await q.select("a", matchers, start_ms, end_ms) for q in (remote, near)]
        assert to_python(one) == to_python(other)
        assert one.histograms.sample_count > 100
        assert one.histograms.offsets.tolist() == other.histograms.offsets.tolist()
        assert one.histograms.timestamps.tolist() == other.histograms.timestamps.tolist()
        assert as_rows(one.histograms.values) == as_rows(other.histograms.values)


async def test_exemplars_of_all_partitions_are_found_and_come_from_one_owner_each(cluster):
    await two_zones(cluster, push=False, max_exemplars=lambda tenant: 10 if tenant == "a" else 0)
    for p in range(3):
        labels = {"__name__": "m", "p": str(p)}
        batch = exemplar_batch((labels, [(NOW_MS + p, float("nan"), {"trace ä": f'"{p}'})]))
        value = encode_columnar(batch, LIMITS)
        for tenant in ("a", "b"):
            await cluster.push([(labels, [(NOW_MS, 1.0)])], partition=p, tenant=tenant)
            offset = await cluster.log.append(p, tenant.encode(), value, VERSION_COLUMNAR, timeout_s=60)
            await cluster.consumed(p, offset)
    remote, near = await cluster.querier(), await cluster.querier(local=cluster.nodes["ingester-a"])
    for querier in (remote, near):
        found = await querier.exemplars("a", [M, ()], *EVER)
        assert [(s.labels["p"], [(e.timestamp_ms, e.labels) for e in s.exemplars]) for s in found] == [
            (str(p), [(NOW_MS + p, {"trace ä": f'"{p}'})]) for p in range(3)
        ]
        assert all(np.isnan(e.value) for s in found for e in s.exemplars)
        assert [s.labels["p"] for s in await querier.exemplars("a", [M], NOW_MS + 1, NOW_MS + 2)] == ["1"]
        assert await querier.exemplars("b", [M], *EVER) == []


async def test_one_zone_is_asked_and_the_preferred_one_first(cluster):
    await two_zones(cluster)
    querier = await cluster.querier(zones=["b"])
    for _ in range(5):
        assert await times(querier) == WHOLE
    assert [cluster.nodes[n].listener.requests for n in ("ingester-a", "ingester-b")] == [0, 5]


async def test_partitions_are_grouped_by_owner_and_each_is_read_once(cluster):
    for p in range(3):
        await cluster.set_partition(p)
    await cluster.add_node("ingester-0", [0, 1])
    await cluster.add_node("ingester-1", [1, 2])
    for p in range(3):
        await cluster.consumed(p, await cluster.push(rows(p), partition=p))
    querier = await cluster.querier()
    assert await times(querier) == WHOLE
    assert [node.listener.requests for node in cluster.nodes.values()] == [1, 1]


@pytest.mark.parametrize("fault", ["cut", "garble", "lie"])
async def test_an_owner_whose_answer_is_broken_or_wrong_is_replaced_and_its_samples_count_once(cluster, fault):
    await two_zones(cluster)
    cluster.nodes["ingester-a"].listener.fault = fault
    querier = await cluster.querier(zones=["a"], limits=replace(QUERY_LIMITS, max_samples=9))
    assert await times(querier) == WHOLE
    assert await querier.label_values("a", "p", [M], *EVER) == ["0", "1", "2"]
    assert [node.listener.requests for node in cluster.nodes.values()] == [2, 2]


async def test_an_owner_that_was_killed_is_replaced_and_a_restarted_connection_is_made_anew(cluster):
    await two_zones(cluster)
    querier = await cluster.querier(zones=["a"])
    assert await times(querier) == WHOLE
    await cluster.nodes["ingester-a"].listener.stop()
    assert await times(querier) == WHOLE
    assert cluster.nodes["ingester-b"].listener.requests == 1


async def test_an_owner_that_hangs_is_asked_besides_another_and_then_dropped(cluster):
    await two_zones(cluster)
    slow = cluster.nodes["ingester-a"].listener
    slow.fault = "hang"
    querier = await cluster.querier(zones=["a"], hedge_s=0.05, limits=replace(QUERY_LIMITS, max_samples=9))
    assert await times(querier) == WHOLE
    await until(lambda: slow.abandoned == 1)


async def test_a_query_that_is_given_up_closes_its_requests(cluster):
    await two_zones(cluster, partitions=1)
    for node in cluster.nodes.values():
        node.listener.fault = "hang"
    querier = await cluster.querier(hedge_s=0.02, limits=replace(QUERY_LIMITS, timeout_s=4.0))
    with pytest.raises(QueryError, match="timed out"):
        await querier.query("a", parse_expr("m"), start_ms=NOW_MS, end_ms_incl=NOW_MS, step_ms=0)
    with pytest.raises(QueryError, match="timed out"):
        await querier.label_names("a", [M], *EVER)
    await until(lambda: sum(node.listener.abandoned for node in cluster.nodes.values()) == 4)


async def test_an_error_of_the_client_is_not_tried_elsewhere(cluster):
    await two_zones(cluster)
    querier = await cluster.querier(zones=["a"], limits=replace(QUERY_LIMITS, max_samples=8))
    with pytest.raises(QueryError, match=TOO_MANY_SAMPLES):
        await times(querier)
    assert cluster.nodes["ingester-b"].listener.requests == 0


async def test_without_any_owner_that_answers_the_query_fails_with_the_reason(cluster):
    await two_zones(cluster)
    querier = await cluster.querier(zones=["a"])
    cluster.nodes["ingester-a"].listener.fault = "garble"
    await cluster.nodes["ingester-b"].listener.stop()
    with pytest.raises(OwnerUnavailable, match=r"ingester-b \(127.0.0.1:\d+\) did not answer"):
        await times(querier)
    cluster.nodes["ingester-a"].listener.fault = None
    assert await times(querier) == WHOLE


async def test_a_partition_without_healthy_owners_fails_the_query_in_mimirs_words(cluster):
    await two_zones(cluster)
    cluster.now_ms += 61_000
    querier = await cluster.querier()
    with pytest.raises(TooManyUnhealthyInstances, match="partition 0: too many unhealthy instances in the ring"):
        await times(querier)
    near = await cluster.querier(local=cluster.nodes["ingester-a"])
    assert await times(near) == WHOLE


async def test_what_this_process_has_is_read_before_the_ring_says_so(cluster):
    await two_zones(cluster)
    near = await cluster.querier(local=cluster.nodes["ingester-a"])
    for name in cluster.nodes:
        await cluster.own(name, range(3), OwnerState.DELETED)
    await until(lambda: not near._heads._ring.desc.owners)
    assert await times(near) == WHOLE
    with pytest.raises(TooManyUnhealthyInstances):
        await times(await cluster.querier())


async def test_an_empty_ring_is_an_error_and_no_empty_answer(cluster):
    with pytest.raises(EmptyRing):
        await times(await cluster.querier())


async def test_a_ring_store_that_does_not_answer_makes_nobody_unhealthy(cluster):
    await two_zones(cluster)
    querier = await cluster.querier()
    view = querier._heads._ring
    confirmed_s = view._watcher.confirmed_s
    cluster.now_ms += 120_000
    view._monotonic_s = lambda: confirmed_s + 120
    assert await times(querier) == WHOLE


async def test_a_partial_answer_is_given_only_to_those_who_asked_and_says_what_it_lacks(cluster):
    await two_zones(cluster)
    offset = await cluster.push(rows(1, start_ms=NOW_MS + 60_000), partition=1)
    await cluster.consumed(1, offset)
    for node in cluster.nodes:
        await cluster.own(node, [1], OwnerState.DELETED)
    querier = await cluster.querier()
    with pytest.raises(TooManyUnhealthyInstances, match="partition 1:"):
        await times(querier)
    reading = Reading(partial=True)
    assert await times(querier, reading=reading) == {"0": [0, 1, 2], "2": [0, 1, 2]}
    assert reading.seen == {0: 0, 2: 0}
    answer = await querier.query(
        "a", parse_expr("m"), start_ms=NOW_MS, end_ms_incl=NOW_MS, step_ms=0, reading=Reading(partial=True)
    )
    missing = "partial response: partition 1 is missing: partition 1: too many unhealthy instances in the ring"
    assert answer.warnings == (missing,)


async def test_a_hedged_read_does_not_settle_for_a_part(cluster):
    await two_zones(cluster)
    cluster.nodes["ingester-b"].listener.fault = "garble"
    slow = cluster.nodes["ingester-a"].listener
    slow.fault = "hang"
    querier = await cluster.querier(zones=["a"], hedge_s=0.02, limits=replace(QUERY_LIMITS, timeout_s=2.0))
    with pytest.raises(QueryError, match="timed out"):
        await querier.query(
            "a", parse_expr("m"), start_ms=NOW_MS, end_ms_incl=NOW_MS, step_ms=0, reading=Reading(partial=True)
        )


# --- hand-over ------------------------------------------------------------------------------------------------------


async def test_a_cut_after_the_list_of_blocks_was_made_leaves_no_gap_and_no_double(cluster):
    await two_zones(cluster)
    querier = await cluster.querier(zones=["a"])
    assert await times(querier) == WHOLE
    for node in cluster.nodes.values():
        await node.ingester.flush(None, wait=True)
    await until(lambda: all(not held(node) for node in cluster.nodes.values()))
    assert await times(querier) == WHOLE
    assert await querier.label_values("a", "p", [M], *EVER) == ["0", "1", "2"]
    assert (await querier.label_frame("a", [M], *EVER)).n == 3


def held(node) -> int:
    """Return the samples that an ingester serves from memory."""
    states = [node.ingester.consumer(p).state for p in node.ingester.owned]
    return sum(state.held_count + state.retained_count for state in states)


async def test_a_cut_between_the_heads_answer_and_the_list_of_blocks_leaves_no_double(cluster, monkeypatch):
    await two_zones(cluster)
    querier = await cluster.querier()
    plain = querier._blocks.read

    async def cut_first(*args):
        for node in cluster.nodes.values():
            await node.ingester.flush(None, wait=True)
        return await plain(*args)

    monkeypatch.setattr(querier._blocks, "read", cut_first)
    assert await times(querier) == WHOLE


async def test_a_block_that_an_owner_let_go_of_and_the_bucket_lacks_fails_the_query(cluster):
    await two_zones(cluster, partitions=1)
    querier = await cluster.querier()
    for node in cluster.nodes.values():
        await node.ingester.flush(None, wait=True)
    await until(lambda: all(not held(node) for node in cluster.nodes.values()))
    [ulid] = [name for name in cluster.bucket.list("a") if name != "markers/"]
    cluster.bucket.delete(f"{block_folder('a', ulid.rstrip('/'))}/meta.json")
    with pytest.raises(StorageError, match=f"The failed blocks are: {ulid.rstrip('/')}"):
        await times(querier)
    later = (NOW_MS + 60_000, NOW_MS + 61_000)
    assert (await querier.select("a", M, *later)).sample_count == 0


async def test_a_partition_that_was_removed_from_the_ring_leaves_no_gap(cluster):
    await two_zones(cluster)
    querier = await cluster.querier()
    assert await times(querier) == WHOLE
    for node in cluster.nodes.values():
        await node.ingester.flush(None, wait=True, partitions=[2])
    for node in cluster.nodes:
        await cluster.own(node, [2], OwnerState.DELETED)
    await cluster.set_partition(2, PartitionState.DELETED)
    await until(lambda: 2 not in querier._heads._ring.desc.partitions)
    assert await times(querier) == WHOLE


async def test_a_partition_without_owners_is_read_from_the_bucket_if_it_has_all_of_it(cluster):
    await two_zones(cluster)
    querier = await cluster.querier()
    assert await times(querier) == WHOLE
    await cluster.set_partition(2, PartitionState.INACTIVE)
    for node in cluster.nodes.values():
        await node.ingester.flush(None, wait=True, partitions=[2])
    for node in cluster.nodes:
        await cluster.own(node, [2], OwnerState.DELETED)
    await until(lambda: not querier._heads._ring.desc.owners_of(2))
    reading = Reading()
    assert await times(querier, reading=reading) == WHOLE
    assert reading.seen[2] == await cluster.log.end_offset(2) - 1
    await cluster.push(rows(2, start_ms=NOW_MS + 9000), partition=2)
    with pytest.raises(TooManyUnhealthyInstances, match="partition 2:"):
        await times(querier)


async def test_a_tenants_shard_decides_who_is_asked(cluster):
    for p in range(3):
        await cluster.set_partition(p)
        await cluster.add_node(f"ingester-{p}", [p])
    cluster.now_ms += 7_200_000
    for name in cluster.nodes:
        known = cluster.watcher.desc.instances("ingester")[name]
        await cluster.change(replace(known, heartbeat_ms=cluster.now_ms))
    querier = await cluster.querier(shard_size=1)
    await times(querier)
    assert sorted(node.listener.requests for node in cluster.nodes.values()) == [0, 0, 1]
    [shard] = querier._heads._ring.partitions_of("a")
    other = (shard + 1) % 3
    await cluster.set_partition(other, PartitionState.INACTIVE)
    await until(lambda: querier._heads._ring.desc.partitions[other].state is PartitionState.INACTIVE)
    extended = querier._heads._ring.partitions_of("a")
    assert shard in extended


# --- everything at once ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
async def test_while_owners_come_go_and_cut_every_answer_is_exactly_what_was_acknowledged(tmp_path, seed):
    source = random.Random(seed)
    async with Cluster(tmp_path) as cluster:
        await two_zones(cluster, push=False)
        queriers = [
            await cluster.querier(local=cluster.nodes["ingester-a"], hedge_s=0.5),
            await cluster.querier(hedge_s=0.5),
        ]
        acknowledged: dict[str, list[int]] = {}
        owned = {name: set(range(3)) for name in cluster.nodes}
        for step in range(40):
            cluster.now_ms += 5000
            for name in cluster.nodes:
                known = cluster.watcher.desc.instances("ingester")[name]
                await cluster.change(replace(known, heartbeat_ms=cluster.now_ms))
            name = source.choice(sorted(cluster.nodes))
            node = cluster.nodes[name]
            other = next(n for n in cluster.nodes if n != name)
            match source.randrange(6):
                case 0:
                    await node.ingester.flush(None, wait=source.random() < 0.5)
                case 1 if owned[other] == {0, 1, 2}:
                    p = source.randrange(3)
                    if p in owned[name]:
                        cluster.nodes[other].listener.fault = None
                        owned[name].discard(p)
                        await cluster.own(name, [p], OwnerState.DELETED)
                        await node.ingester.own(owned[name])
                case 2:
                    missing = {0, 1, 2} - owned[name]
                    if missing:
                        owned[name] |= missing
                        await node.ingester.own(owned[name])
                        await until(lambda node=node: node.ingester.next_offsets().keys() == {0, 1, 2})
                        await cluster.own(name, missing)
                case 3 if owned[other] == {0, 1, 2}:
                    node.listener.fault = source.choice(["cut", "garble", None])
                    cluster.nodes[other].listener.fault = None
            offsets = {}
            for p in range(3):
                if source.random() < 0.7:
                    offsets[p] = await cluster.push(rows(p, 1, cluster.now_ms), partition=p)
                    acknowledged.setdefault(str(p), []).append((cluster.now_ms - NOW_MS) // 1000)
            consistency = ReadConsistency(Level.STRONG) if step % 2 else ReadConsistency(offsets=offsets)
            found = await asyncio.gather(*(times(q, reading=Reading(consistency)) for q in queriers))
            for answer in found:
                if consistency.level is Level.STRONG:
                    assert answer == acknowledged
                for p in offsets:
                    assert answer[str(p)] == acknowledged[str(p)]
            assert InstanceState.ACTIVE in {i.state for i in cluster.watcher.desc.instances("ingester").values()}


async def test_an_answer_that_lacks_a_partition_is_no_answer(cluster):
    await two_zones(cluster, partitions=1)
    for node in cluster.nodes.values():
        node.listener.fault = "lie"
    with pytest.raises(AnswerCorrupt, match="it has partition 0 up to offset None"):
        await times(await cluster.querier())
