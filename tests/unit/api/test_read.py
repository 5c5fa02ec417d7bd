"""The remote read endpoint in front of known data: both forms, ranges, limits, failures, back-pressure."""

import asyncio
from dataclasses import replace

import cramjam
import httpx
import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from mimir_ingest.api.read import MAX_REQUEST_BYTES, ReadApplication
from mimir_ingest.api.tenant import TenantResolver
from mimir_ingest.config.durations import Duration
from mimir_ingest.config.settings import load
from mimir_ingest.errors import LimitExceeded, QueryError, StoreUnavailable
from mimir_ingest.model.batch import STALE_NAN_BITS
from mimir_ingest.obs.query_metrics import QueryMetrics
from mimir_ingest.querier.service import QueryLimits
from tests.support.blocks import make_samples, to_python
from tests.support.remote_read import (
    EQ,
    RE,
    SAMPLES,
    STREAMED_XOR_CHUNKS,
    compressed,
    read_chunks,
    read_frames,
    read_request,
    read_samples,
)

STALE = float(np.array([STALE_NAN_BITS], np.uint64).view(np.float64)[0])
DATA = make_samples(
    [
        ({"__name__": "up", "job": "b"}, [(1000, 1.0), (2000, STALE), (3000, -0.0)]),
        ({"__name__": "up", "job": "a"}, [(i * 15_000, i / 3) for i in range(300)]),
        ({"__name__": "up", "job": "a", "zone": "ü"}, [(0, 0.0)]),
    ]
)
UP = (EQ, "__name__", "up")
DEFAULTS = load([], {})[0].limits
NOW_MS = 1_700_000_000_000
LIMITS = QueryLimits(max_samples=10_000, timeout_s=30, lookback_ms=300_000, subquery_step_ms=60_000)


class KnownQuerier:
    """Gives the same series for every selector, after `gate` opens; an error for the second."""

    def __init__(self, data=DATA, limits=LIMITS, error=None):
        self.data, self.limits, self.error = data, limits, error
        self.asked, self.running, self.most_running = [], 0, 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def select(self, tenant, matchers, start_ms, end_ms, *, reading, fetch):
        self.asked.append((tenant, [str(m) for m in matchers], start_ms, end_ms))
        number = len(self.asked)
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await asyncio.sleep(0)
            await self.gate.wait()
            if self.error is not None and number == 2:
                raise self.error
            return self.data
        finally:
            self.running -= 1


def application_of(querier, *, registry=None, **overrides):
    limits = DEFAULTS.overridden(overrides)
    return ReadApplication(
        querier,
        tenants=TenantResolver(),
        limits_for=lambda t: limits,
        now_ms=lambda: NOW_MS,
        metrics=QueryMetrics.create(registry or CollectorRegistry()),
    )


async def post(querier, body, *, headers=None, **overrides):
    application = application_of(querier, **overrides)
    transport = httpx.ASGITransport(application)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        return await client.post("/", content=body, headers={"X-Scope-OrgID": "team-a"} if headers is None else headers)


async def test_samples_are_a_snappy_block_with_every_bit_of_every_query():
    querier = KnownQuerier()
    body = read_request((5, 10, [UP]), (7, 7, [UP, (RE, "job", "a|b")]), accepted=[SAMPLES, STREAMED_XOR_CHUNKS])
    response = await post(querier, compressed(body))
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/x-protobuf"
    assert response.headers["content-encoding"] == "snappy"
    content = bytes(cramjam.snappy.decompress_raw(response.content))
    assert read_samples(content) == [to_python(DATA)] * 2
    assert querier.asked == [
        ("team-a", ['__name__="up"'], 5, 11),
        ("team-a", ['__name__="up"', 'job=~"a|b"'], 7, 8),
    ]


async def test_streamed_chunks_are_frames_with_every_bit_of_every_query():
    body = read_request((0, 10, [UP]), (0, 20, [UP]), accepted=[7, STREAMED_XOR_CHUNKS, SAMPLES])
    response = await post(KnownQuerier(), compressed(body))
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/x-streamed-protobuf; proto=prometheus.ChunkedReadResponse"
    assert "content-encoding" not in response.headers
    assert read_chunks(response.content, 2) == [to_python(DATA)] * 2


async def test_no_query_and_an_empty_range_give_empty_answers():
    assert (await post(KnownQuerier(), compressed(b""))).status_code == 200
    querier = KnownQuerier()
    streamed = await post(querier, compressed(read_request((20, 10, [UP]), accepted=[1])))
    assert (streamed.status_code, streamed.content) == (200, b"")
    response = await post(querier, compressed(read_request((20, 10, [UP]))))
    assert read_samples(bytes(cramjam.snappy.decompress_raw(response.content))) == [[]]
    assert querier.asked == []


async def test_a_query_without_matchers_selects_nothing():
    querier = KnownQuerier()
    response = await post(querier, compressed(read_request((0, 10, []), (0, 10, [UP]))))
    assert read_samples(bytes(cramjam.snappy.decompress_raw(response.content))) == [[], to_python(DATA)]
    assert len(querier.asked) == 1


async def test_what_a_request_cost_is_told_by_a_whole_answer_and_counted_for_its_tenant():
    registry = CollectorRegistry()

    class Counting(KnownQuerier):
        async def select(self, tenant, matchers, start_ms, end_ms, *, reading, fetch):
            reading.fetched_series += 3
            return await super().select(tenant, matchers, start_ms, end_ms, reading=reading, fetch=fetch)

    querier = Counting()
    one = compressed(read_request((0, 10, [UP])))
    asked = {"X-Scope-OrgID": "team-a", "X-Mimir-Response-Query-Stats": "true"}
    whole = await post(querier, one, headers=asked, registry=registry)
    told = dict(item.split(";", 1) for item in whole.headers["server-timing"].split(", "))
    assert (told["fetched_series_count"], told["samples_processed"]) == ("val=3", "val=0")
    assert told["response_size_bytes"] == f"val={len(whole.content)}"
    assert "fetched_series_count" not in (await post(querier, one)).headers["server-timing"]
    labels = {"user": "team-a"}
    assert registry.get_sample_value("cortex_query_frontend_queries_total", labels | {"op": "remote_read"}) == 1
    assert registry.get_sample_value("cortex_query_fetched_series_total", labels) == 3
    assert registry.get_sample_value("cortex_query_seconds_total", labels | {"sharded": "false"}) > 0


async def test_the_widest_range_is_bounded_to_times_that_can_be():
    querier = KnownQuerier()
    await post(querier, compressed(read_request((-(2**63), 2**63 - 1, [UP]))))
    [(_, _, start, end)] = querier.asked
    assert -(2**63) < start < -(10**15)
    assert 10**15 < end < 2**63 - 1


@pytest.mark.parametrize("accepted", [SAMPLES, STREAMED_XOR_CHUNKS])
@pytest.mark.parametrize(
    ("limits", "cause"),
    [
        (
            {"blocked_queries": [{"pattern": '{__name__="up",job=~"a|b"}', "reason": "for good"}]},
            "the request has been blocked by the cluster administrator for good (err-mimir-query-blocked)",
        ),
        (
            {"blocked_queries": [{"pattern": ".*a.b.*", "regex": True}]},
            "the request has been blocked by the cluster administrator (err-mimir-query-blocked)",
        ),
        (
            {"max_total_query_length": Duration(1_000_000)},
            "the total query time range exceeds the limit (query length: 3ms, limit: 1ms) "
            "(err-mimir-max-total-query-length). To adjust the related per-tenant limit, configure "
            "-query-frontend.max-total-query-length, or contact your service administrator.",
        ),
    ],
)
async def test_one_query_that_the_front_end_refuses_refuses_the_request_in_an_envelope(limits, cause, accepted):
    querier = KnownQuerier()
    body = read_request((5, 6, [UP]), (7, 10, [UP, (RE, "job", "a|b")]), accepted=[accepted])
    response = await post(querier, compressed(body), **limits)
    assert (response.status_code, response.headers["content-type"]) == (400, "application/json")
    error = f'remote read error (matchers_1: {{__name__="up",job=~"a|b"}}): {cause}'
    assert response.json() == {"status": "error", "errorType": "bad_data", "error": error}
    assert querier.asked == []


async def test_a_time_range_that_the_querier_refuses_is_told_as_text_and_what_is_too_old_is_not_read():
    querier, hour = KnownQuerier(), Duration(3_600_000_000_000)
    response = await post(querier, compressed(read_request((0, 3_600_001, [UP]))), max_partial_query_length=hour)
    assert response.status_code == 400
    assert response.text == (
        "the query time range exceeds the limit (query length: 1h0m0.001s, limit: 1h0m0s) (err-mimir-max-query-length)."
        " To adjust the related per-tenant limit, configure -querier.max-partial-query-length, or contact your service"
        " administrator.\n"
    )
    assert querier.asked == []
    earliest = NOW_MS - hour.ms
    body = read_request((0, earliest - 1, [UP]), (0, earliest, [UP]), (NOW_MS, NOW_MS, [UP]))
    response = await post(querier, compressed(body), max_query_lookback=hour)
    content = bytes(cramjam.snappy.decompress_raw(response.content))
    assert read_samples(content) == [[], to_python(DATA), to_python(DATA)]
    assert [(start, end) for _, _, start, end in querier.asked] == [(earliest, earliest + 1), (NOW_MS, NOW_MS + 1)]


@pytest.mark.parametrize("accepted", [SAMPLES, STREAMED_XOR_CHUNKS])
async def test_no_more_than_two_queries_are_fetched_at_a_time_and_answers_keep_their_order(accepted):
    querier = KnownQuerier()
    body = read_request(*((i, i, [UP]) for i in range(7)), accepted=[accepted])
    response = await post(querier, compressed(body))
    assert response.status_code == 200
    assert querier.most_running == 2
    assert [start for _, _, start, _ in querier.asked] == list(range(7))


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "getting snappy decoded length: snappy: corrupt input\n"),
        (b"\x05abc", "decompress snappy: snappy: corrupt input\n"),
        (compressed(b"\x0a\x05"), "unexpected EOF\n"),
        (compressed(read_request((0, 1, [(RE, "a", "(")]))), "error parsing regexp: missing closing ): `(`\n"),
        (
            compressed(read_request(accepted=[5])),
            "server does not support any of the requested response types: [5]; "
            "supported: map[SAMPLES:{} STREAMED_XOR_CHUNKS:{}]\n",
        ),
        (
            compressed(bytes(MAX_REQUEST_BYTES + 1)),
            "the request has been rejected because its size of 1048577 bytes exceeds the limit of 1048576 bytes\n",
        ),
    ],
)
async def test_what_cannot_be_read_is_refused_with_400(body, text):
    querier = KnownQuerier()
    response = await post(querier, body)
    assert (response.status_code, response.text) == (400, text)
    assert response.headers["content-type"] == "text/plain; charset=utf-8"
    assert querier.asked == []


async def test_a_body_over_the_limit_is_not_read_to_its_end():
    sent = 0

    async def endless():
        nonlocal sent
        while sent < 100 * MAX_REQUEST_BYTES:
            sent += 1 << 16
            yield bytes(1 << 16)

    response = await post(KnownQuerier(), endless())
    assert response.status_code == 400
    assert sent <= MAX_REQUEST_BYTES + (1 << 17)


async def test_a_request_without_a_tenant_is_refused():
    response = await post(KnownQuerier(), compressed(b""), headers={})
    assert (response.status_code, response.text) == (401, "no org id\n")


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (LimitExceeded("the query exceeded the maximum"), 400, "the query exceeded the maximum\n"),
        (QueryError("too much", error_type="execution"), 400, "too much\n"),
        (QueryError("query timed out", error_type="timeout"), 500, "query timed out\n"),
        (StoreUnavailable("bucket does not answer"), 500, "bucket does not answer\n"),
        (RuntimeError("a bug"), 500, "internal error\n"),
    ],
)
async def test_errors_of_the_querier_are_text(error, status, text):
    querier = KnownQuerier(error=error)
    response = await post(querier, compressed(read_request((0, 1, [UP]), (0, 1, [UP]))))
    assert (response.status_code, response.text) == (status, text)
    assert querier.running == 0


async def test_an_error_after_the_first_frame_is_written_into_the_stream_and_breaks_the_framing():
    querier = KnownQuerier(error=StoreUnavailable("bucket does not answer"))
    frames = read_frames((await post(KnownQuerier(), compressed(read_request((0, 1, [UP]), accepted=[1])))).content)
    response = await post(querier, compressed(read_request((0, 1, [UP]), (0, 1, [UP]), accepted=[1])))
    assert response.status_code == 200
    text = b"bucket does not answer\n"
    assert response.content.endswith(text)
    assert len(read_frames(response.content.removesuffix(text))) == len(frames) == len(to_python(DATA))
    with pytest.raises(AssertionError):
        read_frames(response.content)


async def test_an_answer_in_one_piece_is_bounded_over_all_its_queries_and_a_stream_is_not():
    limits = replace(LIMITS, max_samples=DATA.sample_count * 3 - 1)
    queries = [(0, 1, [UP])] * 3
    response = await post(KnownQuerier(limits=limits), compressed(read_request(*queries, accepted=[SAMPLES])))
    too_many = "query processing would load too many samples into memory in query execution\n"
    assert (response.status_code, response.text) == (400, too_many)
    response = await post(KnownQuerier(limits=limits), compressed(read_request(*queries, accepted=[1])))
    assert read_chunks(response.content, 3) == [to_python(DATA)] * 3
    # Headers that tell what all queries saw hold a stream back until all are read.
    headers = {"X-Scope-OrgID": "team-a", "X-Read-Consistency": "strong"}
    response = await post(
        KnownQuerier(limits=limits), compressed(read_request(*queries, accepted=[1])), headers=headers
    )
    assert (response.status_code, response.text) == (400, too_many)
    response = await post(KnownQuerier(), compressed(read_request(*queries, accepted=[1])), headers=headers)
    assert response.headers["x-read-consistency-offsets"] == "v1="
    assert read_chunks(response.content, 3) == [to_python(DATA)] * 3


async def test_a_query_that_takes_too_long_is_given_up():
    querier = KnownQuerier(limits=replace(LIMITS, timeout_s=0.01))
    querier.gate.clear()
    response = await post(querier, compressed(read_request((0, 1, [UP]))))
    assert (response.status_code, response.text) == (500, "query timed out in query execution\n")
    assert querier.running == 0


async def call(querier, body, send, gone):
    """Run the application on one request whose client is there until `gone` is set."""
    pending = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive():
        if pending:
            return pending.pop()
        await gone.wait()
        return {"type": "http.disconnect"}

    scope = {"type": "http", "method": "POST", "path": "/", "headers": [(b"x-scope-orgid", b"t")]}
    await application_of(querier)(scope, receive, send)


async def test_a_client_that_goes_away_ends_its_queries():
    querier, gone, sent = KnownQuerier(), asyncio.Event(), []
    querier.gate.clear()

    async def send(message):
        sent.append(message)

    task = asyncio.create_task(call(querier, compressed(read_request((0, 1, [UP]), (0, 1, [UP]))), send, gone))
    while querier.running < 2:  # noqa: ASYNC110
        await asyncio.sleep(0)
    gone.set()
    await task
    assert querier.running == 0
    assert sent[0]["status"] == 499


async def test_nothing_is_encoded_or_fetched_ahead_of_a_connection_that_is_full():
    querier, gone, sent, room = KnownQuerier(), asyncio.Event(), [], asyncio.Semaphore(2)

    async def send(message):
        await room.acquire()
        sent.append(message)

    body = compressed(read_request(*[(0, 1, [UP])] * 20, accepted=[1]))
    task = asyncio.create_task(call(querier, body, send, gone))
    while len(sent) < 2:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    for _ in range(50):
        await asyncio.sleep(0.001)
    assert len(sent) == 2
    assert len(querier.asked) <= 4
    for _ in range(100):
        room.release()
    await task
    assert len(querier.asked) == 20
    stream = b"".join(m["body"] for m in sent[1:])
    assert read_chunks(stream, 20) == [to_python(DATA)] * 20
