"""`POST <prometheus prefix>/api/v1/read` as a bare ASGI application: Prometheus remote read (spec: http api 6.9).

Queries are fetched ahead, a bounded number at a time, and answered in order. A streamed answer is encoded piece by
piece in a thread, the next one once the connection has taken the last. Where the data comes from is a `ReadSource`: the
querier for tenants, the heads of this process for its peers (`internal`).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Protocol

import structlog

from mimir_ingest.api.consistency import ReadingOpener, answer_headers, read_level
from mimir_ingest.api.disconnect import ClientGone, unless_gone
from mimir_ingest.api.errors import (
    CLIENT_CLOSED_REQUEST,
    Answer,
    Headers,
    Receive,
    Scope,
    Send,
    first_header,
    text_answer,
)
from mimir_ingest.api.params import MAX_TIME_MS, MIN_TIME_MS
from mimir_ingest.api.query_admission import admit_read, fetch_limits
from mimir_ingest.api.query_statistics import STATISTICS_HEADER, server_timing, wants_statistics
from mimir_ingest.api.render import failure
from mimir_ingest.api.tenant import TenantResolver
from mimir_ingest.config.limits import Limits
from mimir_ingest.errors import IngestError, QueryError, RequestTooLarge, TenantError
from mimir_ingest.model.matchers import Matcher
from mimir_ingest.model.samples import SampleBudget, SeriesSamples
from mimir_ingest.obs.query_metrics import QueryMetrics, TenantQueries
from mimir_ingest.querier.federation import SEPARATOR, FederatedQuerier
from mimir_ingest.querier.reading import Reading
from mimir_ingest.querier.service import Querier
from mimir_ingest.wire import snappy
from mimir_ingest.wire.read_request import ReadQuery, ReadRequest, ResponseType, decode_request, negotiate
from mimir_ingest.wire.read_response import SAMPLES_CONTENT_TYPE, STREAMED_CONTENT_TYPE, encode_frames, encode_samples
from partitions.errors import PartitionError

MAX_REQUEST_BYTES = 1 << 20
MAX_CONCURRENT_QUERIES = 2

_SAMPLES_HEADERS = ((b"content-type", SAMPLES_CONTENT_TYPE.encode()), (b"content-encoding", b"snappy"))
_STREAM_HEADERS: Headers = [(b"content-type", STREAMED_CONTENT_TYPE.encode())]
_log = structlog.get_logger()


def check_size(size: int) -> None:
    """Raise RequestTooLarge when a body, compressed or not, is over the limit."""
    if size > MAX_REQUEST_BYTES:
        raise RequestTooLarge(
            f"the request has been rejected because its size of {size} bytes exceeds the limit of "
            f"{MAX_REQUEST_BYTES} bytes",
            error_id="remote-read-max-request-size",
        )


def decode_body(body: bytes) -> ReadRequest:
    """Decompress and decode a body. Raises InvalidRequest, RequestTooLarge."""
    check_size(snappy.decoded_length(body))
    return decode_request(snappy.decompress(body, max_bytes=MAX_REQUEST_BYTES))


def read_status(error: IngestError | PartitionError) -> int:
    """Return the status of a failed request: limits and bad input 400, all else 500; tenant errors have their own."""
    if isinstance(error, TenantError):
        return error.http_status
    return 400 if error.blame == "client" and error.http_status < 500 else 500


class RefusedRead(QueryError):
    """One of a request's queries that the tenant's limits refuse; told in the query API's envelope (spec 6.9)."""


class ReadSession(Protocol):
    """The reads of one request."""

    max_samples: int
    """Bound of an answer that is held as a whole; 0 is none."""
    timeout_s: float
    headers_last: bool
    """Whether the answer's headers are known only when every query is read."""

    def admit(self, index: int, query: ReadQuery) -> tuple[int, int] | None:
        """Return the times (ms, both inclusive) of the query at `index` to be read, None: none. Raises QueryError."""

    async def select(self, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> SeriesSamples:
        """Return the distinct series with their samples in `[start_ms, end_ms)`."""

    def counted(self) -> AbstractContextManager[None]:
        """Return what is around the request from its body to its answer, to count what it costs."""

    def headers(self, size_bytes: int | None = None) -> dict[str, str]:
        """Return what the answer says besides the data; `size_bytes` of them, where that is known."""


class ReadSource(Protocol):
    """Where remote read gets its data."""

    def open(self, tenant: str, scope: Scope) -> ReadSession:
        """Begin a request. Raises ClientError for headers that cannot be read."""

    def error_answer(self, error: IngestError | PartitionError) -> Answer:
        """Return the answer of a request that failed."""


class QuerierSource:
    """Everything that a tenant has, from heads and bucket."""

    def __init__(
        self,
        querier: Querier,
        limits_for: Callable[[str], Limits],
        now_ms: Callable[[], int],
        metrics: QueryMetrics,
        federated: FederatedQuerier | None,
    ) -> None:
        self._querier, self._limits_for, self._now_ms = querier, limits_for, now_ms
        self._metrics = metrics
        self._federated = federated or querier
        self._readings = ReadingOpener(lambda tenant: read_level(limits_for(tenant)))

    def open(self, tenant: str, scope: Scope) -> ReadSession:
        """See `ReadSource`."""
        reading = self._readings.open(tenant, scope["headers"])
        querier = self._federated if SEPARATOR in tenant else self._querier
        extended = wants_statistics(first_header(scope["headers"], STATISTICS_HEADER))
        cost = _Cost(reading, self._metrics, self._metrics.asked(tenant, "remote_read"), extended)
        return _QuerierSession(querier, tenant, reading, self._limits_for(tenant), self._now_ms(), cost)

    def error_answer(self, error: IngestError | PartitionError) -> Answer:
        """Return the message as text."""
        if isinstance(error, RefusedRead):
            return failure(error)
        return text_answer(read_status(error), error.message)


class _Cost:
    """What one request cost its tenant; nothing waits for its turn or is evaluated here."""

    samples_processed, queue_s = 0, 0.0

    def __init__(self, reading: Reading, metrics: QueryMetrics, counts: TenantQueries, extended: bool) -> None:
        self.reading = reading
        self._metrics, self._counts, self._extended = metrics, counts, extended
        self._began = time.perf_counter()

    @contextlib.contextmanager
    def counted(self) -> Iterator[None]:
        """Add what was read to the tenant's counts at the end, whatever comes."""
        try:
            yield
        finally:
            read, seconds = self.reading, time.perf_counter() - self._began
            self._counts.add(seconds, read.fetched_series, read.fetched_chunks, read.fetched_chunk_bytes, 0)

    def headers(self, size_bytes: int | None) -> dict[str, str]:
        """Return the header that tells what it has cost until now."""
        seconds, brief = time.perf_counter() - self._began, self._metrics.statistics
        told = server_timing(self, seconds, brief=brief, extended=self._extended, size_bytes=size_bytes)
        return {"Server-Timing": told} if told else {}


class _QuerierSession:
    def __init__(
        self,
        querier: Querier | FederatedQuerier,
        tenant: str,
        reading: Reading,
        limits: Limits,
        now_ms: int,
        cost: _Cost,
    ) -> None:
        self._querier, self._tenant, self._reading = querier, tenant, reading
        self._cost = cost
        self._limits, self._now_ms, self._fetch = limits, now_ms, fetch_limits(limits)
        self.max_samples, self.timeout_s = querier.limits.max_samples, querier.limits.timeout_s
        self.headers_last = reading.consistency.report

    def admit(self, index: int, query: ReadQuery) -> tuple[int, int] | None:
        selector = f"{{{','.join(map(str, query.matchers))}}}"
        try:
            return admit_read(self._limits, selector, *query.time_range(), now_ms=self._now_ms)
        except QueryError as error:
            if error.error_type != "bad_data":
                raise
            text = f"remote read error (matchers_{index}: {selector}): {error.message}"
            raise RefusedRead(text, error_type="bad_data") from error

    async def select(self, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> SeriesSamples:
        if not matchers:  # nothing is selected, as by Prometheus
            return SeriesSamples.empty()
        return await self._querier.select(
            self._tenant, matchers, start_ms, end_ms, reading=self._reading, fetch=self._fetch
        )

    def counted(self) -> AbstractContextManager[None]:
        return self._cost.counted()

    def headers(self, size_bytes: int | None = None) -> dict[str, str]:
        return answer_headers(self._reading) | self._cost.headers(size_bytes)


class _Stream:
    """A response whose status is open until its first byte."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._started = False
        self.headers: Headers = []
        """Headers besides those of the content; may be changed until the first byte."""

    async def write(self, piece: bytes, *, more: bool = True) -> None:
        """Send a piece, once the connection has room for it."""
        if not self._started:
            self._started = True
            headers = [*_STREAM_HEADERS, *self.headers]
            await self._send({"type": "http.response.start", "status": 200, "headers": headers})
        await self._send({"type": "http.response.body", "body": piece, "more_body": more})

    async def answer(self, answer: Answer) -> None:
        """Answer as a whole; after the first piece only the text can follow, which breaks the framing."""
        if self._started:
            await self.write(answer.body, more=False)
        else:
            await answer.send(self._send)


class RemoteRead:
    """Answers remote read requests; routing and the method check are the caller's."""

    def __init__(self, source: ReadSource, *, tenants: TenantResolver) -> None:
        self._source, self._tenants = source, tenants

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request, whatever happens."""
        stream = _Stream(send)
        try:
            tenant = SEPARATOR.join(self._tenants.resolve(scope["headers"]))
            session = self._source.open(tenant, scope)
            with session.counted():
                body = await _read_body(receive)
                request = await asyncio.to_thread(decode_body, body)
                await unless_gone(receive, self._respond(session, request, stream))
        except ClientGone:
            await stream.answer(text_answer(CLIENT_CLOSED_REQUEST, "context canceled"))
        except (IngestError, PartitionError) as error:
            answer = self._source.error_answer(error)
            if answer.status >= 500:
                _log.warning("remote read failed", status=answer.status, id=error.error_id, err=error.message)
            await stream.answer(answer)
        except Exception as error:
            _log.exception("remote read failed", status=500, err=str(error))
            await stream.answer(text_answer(500, "internal error"))

    async def _respond(self, session: ReadSession, request: ReadRequest, stream: _Stream) -> None:
        streamed = negotiate(request.accepted_response_types) is ResponseType.STREAMED_XOR_CHUNKS
        windows = [session.admit(index, query) for index, query in enumerate(request.queries)]
        results: list[bytes] = []
        # The querier bounds each query; an answer that is held as a whole holds all of them at once.
        whole = SampleBudget(session.max_samples)
        asked = list(zip(request.queries, windows, strict=True))
        async with contextlib.aclosing(self._select_all(session, asked)) as selected:
            answers: AsyncIterator[SeriesSamples] = selected
            if streamed and session.headers_last:
                held = []
                async for samples in selected:
                    whole.take(samples.sample_count)
                    held.append(samples)
                answers = _again(held)
                stream.headers = _encoded(session.headers())
            index = 0
            async for samples in answers:
                if streamed:
                    pieces = encode_frames(samples, index)
                    while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
                        await stream.write(piece)
                else:
                    whole.take(samples.sample_count)
                    results.append(await asyncio.to_thread(encode_samples, [samples]))
                index += 1
        if streamed:
            await stream.write(b"", more=False)
        else:
            body = await asyncio.to_thread(lambda: snappy.compress(b"".join(results)))
            await stream.answer(Answer(200, body, (*_SAMPLES_HEADERS, *_encoded(session.headers(len(body))))))

    async def _select_all(
        self, session: ReadSession, asked: Sequence[tuple[ReadQuery, tuple[int, int] | None]]
    ) -> AsyncGenerator[SeriesSamples, None]:
        """Yield the data of each query, in order, while those after it are fetched."""
        deadline = asyncio.get_running_loop().time() + session.timeout_s
        running: deque[asyncio.Task[SeriesSamples]] = deque()
        try:
            for query, window in asked:
                running.append(asyncio.create_task(self._select(session, query, window, deadline)))
                if len(running) == MAX_CONCURRENT_QUERIES:
                    yield await running.popleft()
            while running:
                yield await running.popleft()
        finally:
            await _cancel(running)

    async def _select(
        self, session: ReadSession, query: ReadQuery, window: tuple[int, int] | None, deadline: float
    ) -> SeriesSamples:
        first_ms, last_ms = window or (0, -1)
        start_ms, end_ms = max(first_ms, MIN_TIME_MS), min(last_ms, MAX_TIME_MS) + 1
        if start_ms >= end_ms:
            return SeriesSamples.empty()
        try:
            async with asyncio.timeout_at(deadline):
                return await session.select(query.matchers, start_ms, end_ms)
        except TimeoutError as error:
            raise QueryError("query timed out in query execution", error_type="timeout") from error


class ReadApplication(RemoteRead):
    """Remote read for tenants."""

    def __init__(
        self,
        querier: Querier,
        *,
        tenants: TenantResolver,
        limits_for: Callable[[str], Limits],
        now_ms: Callable[[], int],
        metrics: QueryMetrics,
        federated: FederatedQuerier | None = None,
    ) -> None:
        """`limits_for` gives a tenant's limits, `now_ms` the wall clock (ms); `federated` reads for several tenants.

        `metrics` counts requests, and what they cost.
        """
        super().__init__(QuerierSource(querier, limits_for, now_ms, metrics, federated), tenants=tenants)


async def _again(answers: Sequence[SeriesSamples]) -> AsyncGenerator[SeriesSamples, None]:
    for samples in answers:
        yield samples


def _encoded(headers: dict[str, str]) -> Headers:
    return [(name.lower().encode(), value.encode()) for name, value in headers.items()]


async def _read_body(receive: Receive) -> bytes:
    """Return the request's body. Raises ClientGone, RequestTooLarge."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        body += message.get("body", b"")
        check_size(len(body))
        if not message.get("more_body", False):
            return bytes(body)


async def _cancel(tasks: Collection[asyncio.Task]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
