"""OTLP bodies that nobody honest sends: 200 or 400, never anything else, and memory in proportion."""

from __future__ import annotations

import asyncio
import copy
import itertools
import json
import random
import tracemalloc

import pytest
from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st

from mimir_ingest.api.otlp import OtlpEdge
from mimir_ingest.distributor.limits import DistributorLimits
from mimir_ingest.wire import otlp
from mimir_ingest.wire.otlp_labels import OtlpSettings
from tests.support import otlp_corpus as corpus
from tests.support.push_target import PushTarget

EVERYTHING = OtlpSettings(
    strategy="NoUTF8EscapingWithSuffixes",
    promote_resource_attributes=frozenset({"host.name"}),
    promote_scope_metadata=True,
    convert_histograms_to_nhcb=True,
    accumulate_deltas=True,
    created_timestamp_zero_ingestion=True,
)
REQUESTS = [*corpus.types(), *itertools.islice(corpus.labels(), 6), *corpus.unusable()]
JSON = {"Content_Type": "application/json"}


async def answers(bodies, *, translation: OtlpSettings = EVERYTHING, **headers: str) -> set[int]:
    """Send all bodies to one program; check each answer, and that what was stored can be read. Return the statuses."""
    limits = DistributorLimits(ingestion_rate=1e12, ingestion_burst_size=1 << 40, max_global_exemplars_per_user=100)
    edge = OtlpEdge(max_bytes=1 << 20, settings_for=lambda _: translation)
    statuses = set()
    async with PushTarget(limits, edge=edge) as target:
        for body in bodies:
            answer = await target.post(body, **headers)
            assert answer.status_code in (200, 400), (body, answer.content)
            statuses.add(answer.status_code)
        assert target.counters("cortex_distributor_inflight") == {}
        target.batches()
    return statuses


def test_flipped_bits_and_cut_bodies_are_survived():
    chance = random.Random(5)
    bodies = []
    for request in REQUESTS:
        whole = request.SerializeToString()
        for _ in range(40):
            damaged = bytearray(whole)
            for _ in range(chance.choice((1, 1, 3))):
                damaged[chance.randrange(len(whole))] ^= 1 << chance.randrange(8)
            bodies += [bytes(damaged), whole[: chance.randrange(len(whole))]]
    assert asyncio.run(answers(bodies)) == {200, 400}
    assert asyncio.run(answers(bodies[::5], translation=OtlpSettings())) == {200, 400}


@settings(max_examples=100)
@given(st.binary(max_size=200), st.sampled_from(["", "gzip", "zstd", "lz4"]), st.booleans())
def test_any_bytes_are_answered(body, encoding, as_json):
    headers = {"Content_Encoding": encoding} if encoding else {}
    asyncio.run(answers([body], **headers, **(JSON if as_json else {})))


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(1 << 70), 1 << 70)
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["NaN", "-Infinity", "1e400", "9223372036854775808", "\ud800", "AGGREGATION_TEMPORALITY_DELTA"])
)
TREES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner))


def _paths(tree, path=()):
    yield path
    if isinstance(tree, dict | list):
        for key in tree if isinstance(tree, dict) else range(len(tree)):
            yield from _paths(tree[key], (*path, key))


@settings(max_examples=200)
@given(st.sampled_from(REQUESTS), st.lists(st.tuples(st.integers(0, 1 << 16), TREES), min_size=1, max_size=3))
def test_any_value_anywhere_in_a_document_is_survived(request, changes):
    tree = copy.deepcopy(json_format.MessageToDict(request))
    for number, value in changes:
        *path, last = list(_paths(tree))[1:][number % (len(list(_paths(tree))) - 1)]
        holder = tree
        for key in path:
            holder = holder[key]
        holder[last] = value
        if len(list(_paths(tree))) < 2:
            break
    asyncio.run(answers([json.dumps(tree).encode("utf-8", "surrogatepass")], **JSON))


@pytest.mark.parametrize("as_json", [False, True])
def test_values_nested_without_end_are_refused(as_json):
    depth = 5000
    if as_json:
        value = '{"arrayValue": {"values": [' * depth + "]}}" * depth
        body = f'{{"resourceMetrics": [{{"resource": {{"attributes": [{{"key": "k", "value": {value}}}]}}}}]}}'.encode()
    else:
        body = b""
        for _ in range(depth):
            for tag in (b"\x0a", b"\x2a"):  # ArrayValue.values, AnyValue.array_value
                body = tag + _varint(len(body)) + body
        for tag in (b"\x12", b"\x0a", b"\x0a", b"\x0a"):  # KeyValue.value, attributes, resource, resource_metrics
            body = tag + _varint(len(body)) + body
    assert asyncio.run(answers([body], **(JSON if as_json else {}))) == {400}


def _varint(number: int) -> bytes:
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def test_points_that_lie_ages_apart_do_not_ask_for_a_target_info_at_every_moment():
    points = [corpus.point(asDouble=1, at_ms=0), corpus.point({"b": 1}, asDouble=1)]
    one = corpus.request(corpus.gauge("up", *points), resource={**corpus.SERVICE, "x": 1}).SerializeToString()
    # Requests of protobuf can be written one after another: all repeated fields.
    write = otlp.decode(one * 300, OtlpSettings(), json=False)
    infos = write.batch.sample_count - 600
    assert infos == otlp.MAX_INFO_SAMPLES + 300
    newest = write.batch.timestamps[write.batch.sample_offsets[2] : write.batch.sample_offsets[3]]
    assert newest[-1] == corpus.NOW_MS
    assert (newest[1:] - newest[:-1]).max() == otlp.INFO_INTERVAL_NS // 1_000_000


def test_memory_is_a_small_multiple_of_the_body():
    one = corpus.request(corpus.gauge("up", corpus.point({"a": "b"}, asDouble=1))).SerializeToString()
    body = one * 5_000
    tracemalloc.start()
    try:
        otlp.decode(body, OtlpSettings(), json=False)
        assert tracemalloc.get_traced_memory()[1] < 40 * len(body)
    finally:
        tracemalloc.stop()
