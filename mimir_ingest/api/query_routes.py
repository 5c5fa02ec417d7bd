"""The query API's routes, as bare ASGI applications: what is the same around every handler (spec http-api.md 1, 6).

Tenant, parameters, what the reads have to see; the handler, stopped when its client goes away; errors in Prometheus's
envelope; headers for browsers.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog
from fastapi import Request, Response
from fastapi.responses import PlainTextResponse

from mimir_ingest.api.consistency import ReadingOpener, answer_headers, read_level
from mimir_ingest.api.disconnect import ClientGone, unless_gone
from mimir_ingest.api.errors import Receive, Scope, Send
from mimir_ingest.api.middleware import Gzip, Route
from mimir_ingest.api.params import MAX_PARAMETERS, Params
from mimir_ingest.api.query import ApiRequest, QueryApi
from mimir_ingest.api.render import failure
from mimir_ingest.api.tenant import TenantResolver
from mimir_ingest.errors import IngestError, QueryError, RequestTooLarge, TenantError
from partitions.errors import PartitionError

MAX_BODY_BYTES = 10_485_760
"""Default of Mimir's `-query-frontend.max-body-size`."""

_INLINE_BYTES = 1 << 16
"""A form of this size is read on the event loop. why: it takes 10 ms at most; one of 10 MB takes a second."""

_CORS = {
    "Access-Control-Allow-Headers": "Accept, Authorization, Content-Type, Origin",
    "Access-Control-Allow-Methods": "GET, POST, OPTIONS",
    "Access-Control-Expose-Headers": "Date",
    "Vary": "Origin",
}

Handler = Callable[[ApiRequest], Awaitable[Response]]

_Result = TypeVar("_Result")
_log = structlog.get_logger()


async def read_params(request: Request) -> Params:
    """Return the parameters of URL and form body. Raises RequestTooLarge (413), QueryError: they are too many."""
    body = b""
    if request.method == "POST":
        chunks, size = [], 0
        async for chunk in request.stream():
            size += len(chunk)
            if size > MAX_BODY_BYTES:
                raise RequestTooLarge("http: request body too large", http_status=413)
            chunks.append(chunk)
        if request.headers.get("content-type", "").split(";")[0].strip() == "application/x-www-form-urlencoded":
            body = b"".join(chunks)
    query = request.scope["query_string"]
    if max(query.count(b"&"), body.count(b"&")) >= MAX_PARAMETERS:
        text = "error parsing form values: number of URL query parameters exceeded limit"
        raise QueryError(text, error_type="bad_data")
    if len(body) <= _INLINE_BYTES:
        return Params.parse(query, body)
    return await asyncio.to_thread(Params.parse, query, body)


async def unless_disconnected(request: Request, handling: Awaitable[_Result]) -> _Result:
    """Return what a request whose body was read is answered; stop working on it once the client has gone (499)."""
    try:
        return await unless_gone(request.receive, handling)
    except ClientGone:
        raise QueryError("query was canceled in query execution", error_type="canceled") from None


class QueryApplication:
    """One handler behind its routes; method checks are the router's."""

    def __init__(self, handler: Handler, *, tenants: TenantResolver, readings: ReadingOpener) -> None:
        self._handler, self._tenants, self._readings = handler, tenants, readings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request, whatever happens."""
        request = Request(scope, receive)
        try:
            response = await self._respond(request)
        except Exception as error:
            _log.exception("query failed", path=scope["path"], err=repr(error))
            response = _plain("internal error", 500)
        await response(scope, receive, send)

    async def _respond(self, request: Request) -> Response:
        try:
            tenant = self._tenants.tenant_of(request)
        except TenantError as error:
            return _plain(str(error), error.http_status)
        try:
            params = await read_params(request)
            reading = self._readings.open(tenant, request.scope["headers"], params)
            asked = ApiRequest(tenant, params, reading, request)
            response = await unless_disconnected(request, self._handler(asked))
            response.headers.update(answer_headers(reading))
        except RequestTooLarge as error:
            return _plain(str(error), 413)
        except (IngestError, PartitionError) as error:
            response = failure(error)
        origin = request.headers.get("origin")
        if origin:
            response.headers.update({"Access-Control-Allow-Origin": origin, **_CORS})
        return response


def _plain(text: str, status: int) -> Response:
    return PlainTextResponse(f"{text}\n", status, headers={"X-Content-Type-Options": "nosniff"})


def query_routes(api: QueryApi, *, prefix: str, tenants: TenantResolver) -> list[Route]:
    """Return the routes under `prefix`, which is `-http.prometheus-http-prefix`."""
    readings = ReadingOpener(lambda tenant: read_level(api.limits_for(tenant)))
    either, get = frozenset({"GET", "POST"}), frozenset({"GET"})
    handlers: list[tuple[str, Handler, frozenset[str]]] = [
        ("/query", api.query, either),
        ("/query_range", api.query_range, either),
        ("/series", api.series, either),
        ("/series", api.delete_series, frozenset({"DELETE"})),
        ("/labels", api.labels, either),
        ("/label/{name}/values", api.label_values, get),
        ("/query_exemplars", api.query_exemplars, either),
        ("/metadata", api.metadata, get),
        ("/format_query", api.format_query, either),
        ("/parse_query", api.parse_query, either),
    ]
    base = f"{prefix.rstrip('/')}/api/v1"
    return [
        Route(base + path, methods, Gzip(QueryApplication(handler, tenants=tenants, readings=readings)))
        for path, handler, methods in handlers
    ]
