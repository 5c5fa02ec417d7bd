"""The query API's routes, as bare ASGI applications: what is the same around every handler (spec http-api.md 1, 6).

Tenant, parameters, what the reads have to see; the handler, stopped when its client goes away; errors in Prometheus's
envelope; headers for browsers.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import structlog

from mimir_ingest.api.consistency import answer_headers, consistency_headers, open_reading, read_level
from mimir_ingest.api.disconnect import ClientGone, unless_gone
from mimir_ingest.api.errors import Answer, Headers, Receive, Scope, Send, error_answer, first_header, text_answer
from mimir_ingest.api.middleware import Route, encoded
from mimir_ingest.api.negotiate import wants_arrow
from mimir_ingest.api.params import MAX_PARAMETERS, Params
from mimir_ingest.api.query import ApiRequest, QueryApi
from mimir_ingest.api.query_statistics import STATISTICS_HEADER, server_timing, wants_statistics
from mimir_ingest.api.render import failure
from mimir_ingest.api.repeated_head import facts_of
from mimir_ingest.api.tenant import TenantResolver
from mimir_ingest.config.limits import Limits
from mimir_ingest.errors import IngestError, QueryError, RequestTooLarge, TenantError
from mimir_ingest.obs.query_metrics import QueryMetrics
from mimir_ingest.querier.federation import SEPARATOR
from partitions.errors import PartitionError

MAX_BODY_BYTES = 10_485_760
"""Default of Mimir's `-query-frontend.max-body-size`."""

_INLINE_BYTES = 1 << 16
"""A form of this size is read on the event loop. why: it takes 10 ms at most; one of 10 MB takes a second."""

_CORS = (
    (b"access-control-allow-headers", b"Accept, Authorization, Content-Type, Origin"),
    (b"access-control-allow-methods", b"GET, POST, OPTIONS"),
    (b"access-control-expose-headers", b"Date"),
    (b"vary", b"Origin"),
)

_KINDS = {
    "/query": "query",
    "/query_range": "query_range",
    "/labels": "label_names_and_values",
    "/label/{name}/values": "label_names_and_values",
}
"""Values of the label `op`; every other path is `other`. Source: Mimir's `cortex_query_frontend_queries_total`."""

Handler = Callable[[ApiRequest], Awaitable[Answer]]

_FORM = "application/x-www-form-urlencoded"
_Result = TypeVar("_Result")
_log = structlog.get_logger()


async def read_params(scope: Scope, receive: Receive) -> Params:
    """Return the parameters of URL and form body. Raises RequestTooLarge (413), QueryError: they are too many."""
    body = b""
    if scope["method"] == "POST":
        body = await _read_body(receive)
        if first_header(scope["headers"], b"content-type").split(";")[0].strip().lower() != _FORM:
            body = b""
    query = scope["query_string"]
    if max(query.count(b"&"), body.count(b"&")) >= MAX_PARAMETERS:
        text = "error parsing form values: number of URL query parameters exceeded limit"
        raise QueryError(text, error_type="bad_data")
    if len(body) <= _INLINE_BYTES:
        return Params.parse(query, body)
    return await asyncio.to_thread(Params.parse, query, body)


async def _read_body(receive: Receive) -> bytes:
    chunks, size = [], 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _canceled()
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > MAX_BODY_BYTES:
            raise RequestTooLarge("http: request body too large", http_status=413)
        chunks.append(chunk)
        if not message.get("more_body", False):
            return b"".join(chunks)


def _canceled() -> QueryError:
    return QueryError("query was canceled in query execution", error_type="canceled")


async def unless_disconnected(receive: Receive, handling: Awaitable[_Result]) -> _Result:
    """Return what a request whose body was read is answered; stop working on it once the client has gone (499)."""
    try:
        return await unless_gone(receive, handling)
    except ClientGone:
        raise _canceled() from None


@dataclass(frozen=True, slots=True)
class _Sender:
    """What a request's headers say."""

    tenant: str
    consistency: dict[str, str]
    """Headers `X-Read-Consistency*`."""
    arrow: bool
    origin: str
    statistics: bool
    """Whether the answer has to tell all about what it cost."""


class QueryApplication:
    """One handler behind its routes; method checks are the router's."""

    def __init__(
        self,
        handler: Handler,
        *,
        kind: str,
        tenants: TenantResolver,
        limits_for: Callable[[str], Limits],
        metrics: QueryMetrics,
        federated: Handler | None = None,
    ) -> None:
        """`federated` handles requests of several tenants, which `tenants` allows only where there is such.

        `kind` is what requests are counted under.
        """
        self._kind, self._metrics = kind, metrics
        self._handler, self._tenants, self._limits_for = handler, tenants, limits_for
        self._federated = federated or handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request, whatever happens."""
        more: Headers = []
        try:
            answer = await self._respond(scope, receive, more)
        except Exception as error:
            _log.exception("query failed", path=scope["path"], err=repr(error))
            answer = text_answer(500, "internal error")
        await (await encoded(answer, scope, more)).send(send)

    def _sender(self, scope: Scope) -> _Sender:
        """Return what a request's headers say. Raises TenantError."""
        facts, headers = facts_of(scope), scope["headers"]
        found = facts.get(_Sender)
        if found is None:
            tenant, named = SEPARATOR.join(self._tenants.resolve(headers)), consistency_headers(headers)
            arrow, origin = wants_arrow(first_header(headers, b"accept")), first_header(headers, b"origin")
            statistics = wants_statistics(first_header(headers, STATISTICS_HEADER))
            found = facts[_Sender] = _Sender(tenant, named, arrow, origin, statistics)
        return found

    async def _respond(self, scope: Scope, receive: Receive, more: Headers) -> Answer:
        """Return the answer; `more` is told the headers that come with it."""
        try:
            sender = self._sender(scope)
        except TenantError as error:
            return error_answer(error)
        tenant = sender.tenant
        counts = self._metrics.asked(tenant, self._kind)
        try:
            params = await read_params(scope, receive)
            reading = open_reading(sender.consistency, read_level(self._limits_for(tenant)), params)
            asked = ApiRequest(tenant, params, reading, scope, sender.arrow)
            handler = self._federated if SEPARATOR in tenant else self._handler
            began = time.perf_counter()
            try:
                answer = await unless_disconnected(receive, handler(asked))
            finally:
                ended = time.perf_counter()
                counts.add(
                    ended - began - asked.queue_s,
                    reading.fetched_series,
                    reading.fetched_chunks,
                    reading.fetched_chunk_bytes,
                    asked.samples_processed,
                )
            if timing := self._timing(sender, asked, answer, ended - began, ended):
                more.append((b"server-timing", timing.encode()))
            if reading.consistency.report:
                more += [(name.lower().encode(), value.encode()) for name, value in answer_headers(reading).items()]
        except RequestTooLarge as error:
            return text_answer(413, error.message)
        except (IngestError, PartitionError) as error:
            answer = failure(error)
        if sender.origin:
            more += [(b"access-control-allow-origin", sender.origin.encode("latin-1")), *_CORS]
        return answer

    def _timing(self, sender: _Sender, asked: ApiRequest, answer: Answer, response_s: float, ended: float) -> str:
        """Return what `Server-Timing` says, empty if it is not told; `ended` is when the answer was there."""
        brief, extended = self._metrics.statistics, sender.statistics
        encode_s = ended - asked.evaluated_s if asked.evaluated_s else 0.0
        size = len(answer.body)
        return server_timing(asked, response_s, brief=brief, extended=extended, encode_s=encode_s, size_bytes=size)


def query_routes(
    api: QueryApi,
    *,
    prefix: str,
    tenants: TenantResolver,
    metrics: QueryMetrics,
    federated: QueryApi | None = None,
) -> list[Route]:
    """Return the routes under `prefix`, which is `-http.prometheus-http-prefix`.

    `federated` answers requests of several tenants, where `tenants` lets them pass.
    """
    many = federated or api
    either, get = frozenset({"GET", "POST"}), frozenset({"GET"})
    handlers: list[tuple[str, Handler, Handler, frozenset[str]]] = [
        ("/query", api.query, many.query, either),
        ("/query_range", api.query_range, many.query_range, either),
        ("/series", api.series, many.series, either),
        ("/series", api.delete_series, many.delete_series, frozenset({"DELETE"})),
        ("/labels", api.labels, many.labels, either),
        ("/label/{name}/values", api.label_values, many.label_values, get),
        ("/query_exemplars", api.query_exemplars, many.query_exemplars, either),
        ("/metadata", api.metadata, many.metadata, get),
        ("/format_query", api.format_query, many.format_query, either),
        ("/parse_query", api.parse_query, many.parse_query, either),
    ]
    base = f"{prefix.rstrip('/')}/api/v1"
    return [
        Route(
            base + path,
            methods,
            QueryApplication(
                handler,
                kind=_KINDS.get(path, "other"),
                tenants=tenants,
                limits_for=api.limits_for,
                metrics=metrics,
                federated=handler_of_many,
            ),
        )
        for path, handler, handler_of_many, methods in handlers
    ]
