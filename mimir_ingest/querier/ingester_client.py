"""Other processes' owners over HTTP: remote read with streamed chunks, and Prometheus's JSON for labels and metadata.

One session for all of them. Cancelling a call closes its request, and the owner then stops working on it. Large answers
are decoded in threads while they arrive. The caller bounds the time of a call.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import aiohttp
import orjson

from mimir_ingest.errors import AnswerCorrupt, IngestError, InvalidRequest, OwnerUnavailable
from mimir_ingest.ingester.census import CensusAsk, CensusPart, TenantTotals
from mimir_ingest.ingester.exemplars import SeriesExemplars
from mimir_ingest.ingester.lag import PartitionLag
from mimir_ingest.ingester.metadata import FamilyMetadata
from mimir_ingest.model.labels import LabelFrame
from mimir_ingest.model.matchers import Matcher
from mimir_ingest.model.samples import SampleBudget, SeriesSamples
from mimir_ingest.obs.querier_metrics import IngesterClientMetrics
from mimir_ingest.promql.printer import format_matcher
from mimir_ingest.querier.internal_protocol import (
    PREFIX,
    TENANT_HEADER,
    ask_headers,
    decode_census,
    decode_error,
    decode_exemplars,
    decode_tenants,
    read_answer_headers,
)
from mimir_ingest.querier.owner import HeadAsk, OwnerAnswer
from mimir_ingest.wire import snappy
from mimir_ingest.wire.offsets_header import MAX_HEADER_BYTES
from mimir_ingest.wire.read_frames import FrameReader
from mimir_ingest.wire.read_request import ReadQuery, ResponseType, encode_request

CONNECT_TIMEOUT_S = 2.0
"""why: processes of a cluster are near each other; one that does not even answer the connection is down."""

FEED_BYTES = 1 << 19
"""Bytes of a stream decoded at a time. why: 200,000 samples, 8 ms; a thread costs 0.1 ms."""

INLINE_BYTES = 1 << 14
"""An answer of this size is decoded on the event loop. why: it takes 0.3 ms."""

_MAX_TEXT_BYTES = 1 << 16
"""How much of an error's text is read."""

_Json = Any


class IngesterClient:
    """The session of all remote owners. Enter it on the event loop that uses it."""

    def __init__(
        self,
        metrics: IngesterClientMetrics,
        *,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        max_connections: int = 0,
        tls: ssl.SSLContext | None = None,
        server_name: str = "",
    ) -> None:
        """Make a client.

        Parameters
        ----------
        max_connections : bounds those that are open at a time; 0 is no bound
        tls : None for plain HTTP
        server_name : name expected in an owner's certificate; empty is the host of its address
        """
        self._metrics = metrics
        self._connect_timeout_s = connect_timeout_s
        self._max_connections = max_connections
        self._tls, self._server_name = tls, server_name
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Make the session; does nothing where there is one."""
        if self._session is not None:
            return
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._max_connections, keepalive_timeout=30.0, ssl=self._tls or True),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._connect_timeout_s),
            read_bufsize=FEED_BYTES,
            max_line_size=MAX_HEADER_BYTES,
            max_field_size=MAX_HEADER_BYTES,
            auto_decompress=True,
        )

    async def close(self) -> None:
        """Close every connection. Idempotent."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def owner(self, instance: str, address: str) -> RemoteOwner:
        """Return the owner that listens on `address` (`host:port`); `instance` names it in errors."""
        if self._session is None:
            raise OwnerUnavailable(f"{instance} cannot be asked: this process is stopping")
        scheme = "https" if self._tls else "http"
        return RemoteOwner(
            self._session, instance, f"{scheme}://{address}", self._metrics, server_name=self._server_name or None
        )


class RemoteOwner:
    """One other process; see `owner.Owner`."""

    def __init__(
        self,
        session: aiohttp.ClientSession,
        instance: str,
        url: str,
        metrics: IngesterClientMetrics,
        *,
        server_name: str | None,
    ) -> None:
        self._session, self._metrics, self._server_name = session, metrics, server_name
        self._name = f"{instance} ({url.partition('://')[2]})"
        self._base = url + PREFIX

    async def select(self, ask: HeadAsk, budget: SampleBudget) -> OwnerAnswer[SeriesSamples]:
        """See `Owner`."""
        query = ReadQuery(ask.start_ms, ask.end_ms - 1, tuple(m.in_utf8() for m in ask.matchers))
        body = snappy.compress(encode_request([query], [ResponseType.STREAMED_XOR_CHUNKS]))
        reader = FrameReader(budget=budget, start_ms=ask.start_ms, end_ms=ask.end_ms)

        async def take(response: aiohttp.ClientResponse) -> OwnerAnswer[SeriesSamples]:
            next_offsets, cut_offsets = self._headers(ask, response)
            samples = await _read_stream(response, reader)
            return OwnerAnswer([samples] if samples.series_count else [], next_offsets, cut_offsets=cut_offsets)

        return await self._request("POST", "/read", take, headers=ask_headers(ask), data=body)

    async def label_frame(self, ask: HeadAsk) -> OwnerAnswer[LabelFrame]:
        """See `Owner`."""
        return await self._json(ask, "/series", LabelFrame.from_dicts)

    async def label_names(self, ask: HeadAsk) -> OwnerAnswer[list[str]]:
        """See `Owner`."""
        return await self._json(ask, "/labels", list)

    async def label_values(self, ask: HeadAsk, name: str) -> OwnerAnswer[list[str]]:
        """See `Owner`."""
        return await self._json(ask, f"/label/{quote(name, safe='', errors='surrogateescape')}/values", list)

    async def metadata(self, ask: HeadAsk) -> OwnerAnswer[dict[str, list[FamilyMetadata]]]:
        """See `Owner`."""
        return await self._json(
            ask, "/metadata", lambda data: {f: [FamilyMetadata(**item) for item in items] for f, items in data.items()}
        )

    async def exemplars(self, ask: HeadAsk) -> OwnerAnswer[list[SeriesExemplars]]:
        """See `Owner`."""
        return await self._json(ask, "/exemplars", decode_exemplars)

    async def census(self, ask: HeadAsk, what: CensusAsk) -> OwnerAnswer[CensusPart]:
        """See `Owner`."""
        form = [("kind", what.kind), ("active", str(what.active).lower()), ("max_bytes", str(what.max_bytes))]
        form += [("label_names[]", name) for name in sorted(what.names or ())]
        form.append(("match[]", _selector(ask.matchers)))

        async def take(response: aiohttp.ClientResponse) -> OwnerAnswer[CensusPart]:
            next_offsets, cut_offsets = self._headers(ask, response)
            part = decode_census(await response.read(), what.kind)
            return OwnerAnswer([part], next_offsets, cut_offsets=cut_offsets)

        return await self._request("POST", "/census", take, headers=ask_headers(ask), data=form)

    async def tenant_totals(self) -> dict[str, TenantTotals]:
        """See `Owner`."""

        async def take(response: aiohttp.ClientResponse) -> dict[str, TenantTotals]:
            return self._parse(await response.read(), decode_tenants)

        return await self._request("GET", "/tenants", take)

    async def lags(self, tenant: str) -> list[PartitionLag]:
        """See `Owner`."""

        async def take(response: aiohttp.ClientResponse) -> list[PartitionLag]:
            return self._parse(await response.read(), lambda rows: [PartitionLag(**row) for row in rows])

        return await self._request("GET", "/ingestion_lag", take, headers={TENANT_HEADER: tenant})

    async def _json(self, ask: HeadAsk, path: str, read: Callable[[_Json], Any]) -> OwnerAnswer:
        form = [("start", f"{ask.start_ms}e-3"), ("end", f"{ask.end_ms - 1}e-3"), ("match[]", _selector(ask.matchers))]

        async def take(response: aiohttp.ClientResponse) -> OwnerAnswer:
            next_offsets, cut_offsets = self._headers(ask, response)
            body = await response.read()
            found = (
                self._parse(body, read)
                if len(body) <= INLINE_BYTES
                else await asyncio.to_thread(self._parse, body, read)
            )
            return OwnerAnswer([found], next_offsets, cut_offsets=cut_offsets)

        return await self._request("POST", path, take, headers=ask_headers(ask), data=form)

    async def _request(
        self, method: str, path: str, take: Callable[[aiohttp.ClientResponse], Any], **options: Any
    ) -> Any:
        """Send a request; return what `take` makes of its answer. Raises OwnerError, ClientError."""
        operation = "/label/values" if path.startswith("/label/") else path
        status = None
        began = time.monotonic()
        try:
            found = await self._send(method, path, take, **options)
            status = 200
            return found
        except IngestError as error:
            status = error.http_status
            raise
        finally:
            self._metrics.observe(operation, status, time.monotonic() - began)

    async def _send(self, method: str, path: str, take: Callable[[aiohttp.ClientResponse], Any], **options: Any) -> Any:
        for fresh in (False, True):
            begun = False
            try:
                async with self._session.request(
                    method, self._base + path, server_hostname=self._server_name, **options
                ) as response:
                    begun = True
                    if response.status != 200:
                        raise decode_error(response.status, await response.content.read(_MAX_TEXT_BYTES), self._name)
                    return await take(response)
            except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
                # The owner may have closed an idle connection just when it was used again; reads may be repeated.
                if fresh or begun or isinstance(error, aiohttp.ClientConnectorError):
                    raise self._unavailable(error) from error
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                raise self._unavailable(error) from error
            except AnswerCorrupt as error:
                raise AnswerCorrupt(f"{self._name}: {error.message}") from error
        raise OwnerUnavailable(f"{self._name} did not answer")

    def _unavailable(self, error: Exception) -> OwnerUnavailable:
        return OwnerUnavailable(f"{self._name} did not answer: {error or type(error).__name__}")

    def _headers(self, ask: HeadAsk, response: aiohttp.ClientResponse) -> tuple[dict[int, int], dict[int, int]]:
        """Return (next offsets, cut offsets). Raises AnswerCorrupt when they are not what was demanded."""
        try:
            next_offsets, cut_offsets = read_answer_headers(response.headers)
        except InvalidRequest as error:
            raise AnswerCorrupt(f"headers: {error.message}") from error
        for partition in sorted(ask.partitions):
            has, demanded = next_offsets.get(partition), ask.wait_offsets.get(partition, 0)
            if has is None or has < demanded:
                raise AnswerCorrupt(f"it has partition {partition} up to offset {has}, {demanded} was demanded")
        return next_offsets, cut_offsets

    def _parse(self, body: bytes, read: Callable[[_Json], Any]) -> Any:
        try:
            return read(orjson.loads(body)["data"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise AnswerCorrupt(f"JSON of an unexpected form: {error!r}") from error


async def _read_stream(response: aiohttp.ClientResponse, reader: FrameReader) -> SeriesSamples:
    waiting: list[bytes] = []
    size = 0
    async for piece in response.content.iter_any():
        waiting.append(piece)
        size += len(piece)
        if size >= FEED_BYTES:
            await asyncio.to_thread(reader.feed, b"".join(waiting))
            waiting, size = [], 0

    def end() -> SeriesSamples:
        reader.feed(b"".join(waiting))
        return reader.finish()

    return end() if size <= INLINE_BYTES else await asyncio.to_thread(end)


def _selector(matchers: Iterable[Matcher]) -> str:
    return "{" + ",".join(format_matcher(m.in_utf8()) for m in matchers) + "}"
