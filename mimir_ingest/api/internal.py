"""What a cluster's processes ask each other: the routes of the internal listener (never of the tenants' one).

    POST /api/v1/read                  Prometheus remote read of the heads owned here
    POST /api/v1/series, labels        label sets, label names; as Prometheus's query API, also GET
    GET  /api/v1/label/{name}/values   also POST
    POST /api/v1/metadata              metric families, also GET
    POST /api/v1/exemplars             exemplars of a selector, also GET
    POST /api/v1/census                counts of series, as columns, also GET
    GET  /api/v1/tenants               series and rates of every tenant here
    GET  /api/v1/ingestion_lag         how far each partition owned here is behind the log

Headers choose partitions and say what an answer has to contain, and an answer's headers say what it does contain
(`querier.internal_protocol`). Without them a request is answered from everything owned here, so that any Prometheus can
be pointed at an ingester.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, replace

import orjson
import structlog
from fastapi import FastAPI, Request, Response

from mimir_ingest.api.consistency import parse_max_delay
from mimir_ingest.api.errors import Answer, Application, Scope
from mimir_ingest.api.middleware import CleanPath, Route, Router, plain_routing
from mimir_ingest.api.params import Params, series_range
from mimir_ingest.api.query import path_label_name
from mimir_ingest.api.query_routes import read_params, unless_disconnected
from mimir_ingest.api.read import RemoteRead
from mimir_ingest.api.render import JSON, page, success
from mimir_ingest.api.tenant import TenantResolver
from mimir_ingest.errors import IngestError, InvalidRequest
from mimir_ingest.ingester.census import CensusAsk, CensusKind
from mimir_ingest.ingester.head_answer import PartitionCut
from mimir_ingest.ingester.service import Ingester
from mimir_ingest.model.matchers import Matcher
from mimir_ingest.model.samples import SampleBudget, SeriesSamples
from mimir_ingest.promql.parser import parse_metric_selector
from mimir_ingest.querier.internal_protocol import (
    MAX_DELAY_HEADER,
    PARTITIONS_HEADER,
    PREFIX,
    answer_headers,
    encode_census,
    encode_error,
    encode_exemplars,
    encode_tenants,
)
from mimir_ingest.querier.merge import merge_frames, merge_samples
from mimir_ingest.querier.owner import HeadAsk, LocalOwner, OwnerAnswer
from mimir_ingest.wire.offsets_header import READ_CONSISTENCY_OFFSETS, decode_offsets
from mimir_ingest.wire.read_request import ReadQuery
from partitions.errors import PartitionError

_PARTITIONS = re.compile(r"[0-9]{1,10}(,[0-9]{1,10})*")
_TENANTS = TenantResolver(multitenancy_enabled=True)
"""A querier always names the tenant, whether or not its own clients do."""

_log = structlog.get_logger()

_Handler = Callable[[HeadAsk, Params, Request], Awaitable[tuple[bytes, OwnerAnswer]]]


def decode_ask(tenant: str, headers: Mapping[str, str], owned: frozenset[int]) -> HeadAsk:
    """Return what the headers (by lower-case name) of a request demand. Raises InvalidRequest."""
    named = headers.get(PARTITIONS_HEADER.lower())
    if named is not None and not _PARTITIONS.fullmatch(named):
        raise InvalidRequest(f"{PARTITIONS_HEADER} is {named[:60]!r}, and not partitions such as 0,3")
    partitions = owned if named is None else frozenset(map(int, named.split(",")))
    waited = decode_offsets(headers.get(READ_CONSISTENCY_OFFSETS.lower(), "v1=")) or {}
    return HeadAsk(
        tenant,
        partitions,
        wait_offsets={p: offset + 1 for p, offset in waited.items()},
        max_delay_s=parse_max_delay(headers.get(MAX_DELAY_HEADER.lower(), "")),
    )


def _ask_of(scope: Scope, tenant: str, ingester: Ingester) -> HeadAsk:
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in reversed(scope["headers"])}
    return decode_ask(tenant, headers, ingester.owned)


def _cut_offsets(cuts: Sequence[PartitionCut]) -> dict[int, int]:
    return {cut.partition: cut.cut_offset for cut in cuts}


class _HeadSession:
    """Remote read of the heads: what several queries saw of a partition is what all of them saw."""

    headers_last = True

    def __init__(self, owner: LocalOwner, ask: HeadAsk, *, max_samples: int, timeout_s: float) -> None:
        self._owner, self._ask = owner, ask
        self.max_samples, self.timeout_s = max_samples, timeout_s
        self._next_offsets: dict[int, int] = {}
        self._cut_offsets: dict[int, int] = {}

    def admit(self, index: int, query: ReadQuery) -> tuple[int, int] | None:
        return query.time_range()

    async def select(self, matchers: Sequence[Matcher], start_ms: int, end_ms: int) -> SeriesSamples:
        ask = replace(self._ask, matchers=tuple(matchers), start_ms=start_ms, end_ms=end_ms)
        budget = SampleBudget(self.max_samples)
        try:
            return await self._select(ask, budget)
        finally:  # a thread that still reads, for a request whose time is over, stops
            budget.end()

    async def _select(self, ask: HeadAsk, budget: SampleBudget) -> SeriesSamples:
        answer = await self._owner.select(ask, budget)
        for partition, offset in answer.next_offsets.items():
            self._next_offsets[partition] = min(offset, self._next_offsets.get(partition, offset))
        for partition, offset in _cut_offsets(answer.cuts).items():
            self._cut_offsets[partition] = max(offset, self._cut_offsets.get(partition, offset))
        found = [samples for samples in answer.found if samples.series_count]
        return found[0] if len(found) == 1 else await asyncio.to_thread(merge_samples, found, budget)

    def counted(self) -> AbstractContextManager[None]:
        return contextlib.nullcontext()

    def headers(self, size_bytes: int | None = None) -> dict[str, str]:
        return answer_headers(self._next_offsets, self._cut_offsets)


class _HeadSource:
    def __init__(self, ingester: Ingester, *, max_samples: int, timeout_s: float) -> None:
        self._ingester, self._max_samples, self._timeout_s = ingester, max_samples, timeout_s
        self._owner = LocalOwner(ingester)

    def open(self, tenant: str, scope: Scope) -> _HeadSession:
        ask = _ask_of(scope, tenant, self._ingester)
        return _HeadSession(self._owner, ask, max_samples=self._max_samples, timeout_s=self._timeout_s)

    def error_answer(self, error: IngestError | PartitionError) -> Answer:
        return Answer(error.http_status, encode_error(error), ((b"content-type", JSON.encode()),))


class _LabelApi:
    """Labels and metadata of the heads, as Prometheus's JSON."""

    def __init__(self, ingester: Ingester) -> None:
        self._owner = LocalOwner(ingester)

    async def series(self, ask: HeadAsk, params: Params, request: Request) -> tuple[bytes, OwnerAnswer]:
        answer = await self._owner.label_frame(_selected(ask, params))

        def render() -> bytes:
            return orjson.dumps(merge_frames(answer.found).to_dicts())

        return await asyncio.to_thread(render), answer

    async def labels(self, ask: HeadAsk, params: Params, request: Request) -> tuple[bytes, OwnerAnswer]:
        answer = await self._owner.label_names(_selected(ask, params))
        return orjson.dumps(sorted({name for names in answer.found for name in names})), answer

    async def label_values(self, ask: HeadAsk, params: Params, request: Request) -> tuple[bytes, OwnerAnswer]:
        answer = await self._owner.label_values(_selected(ask, params), path_label_name(request.scope))
        return orjson.dumps(sorted({value for values in answer.found for value in values})), answer

    async def metadata(self, ask: HeadAsk, params: Params, request: Request) -> tuple[bytes, OwnerAnswer]:
        answer = await self._owner.metadata(ask)
        families = {family: [asdict(item) for item in items] for family, items in answer.found[0].items()}
        return orjson.dumps(families), answer

    async def exemplars(self, ask: HeadAsk, params: Params, request: Request) -> tuple[bytes, OwnerAnswer]:
        answer = await self._owner.exemplars(_selected(ask, params))
        return encode_exemplars(answer.found[0]), answer

    async def census(self, ask: HeadAsk, params: Params, request: Request) -> tuple[bytes, OwnerAnswer]:
        answer = await self._owner.census(_selected(ask, params), _census_ask(params))
        return await asyncio.to_thread(encode_census, answer.found[0]), answer


def _census_ask(params: Params) -> CensusAsk:
    """Return what a census is to count. Raises InvalidRequest."""
    names = params.all("label_names[]")
    try:
        return CensusAsk(
            CensusKind(params.get("kind")),
            params.get("active") == "true",
            frozenset(names) if names else None,
            int(params.get("max_bytes") or "0"),
        )
    except ValueError as error:
        raise InvalidRequest(str(error)) from error


def _selected(ask: HeadAsk, params: Params) -> HeadAsk:
    """Add selector and range. Raises QueryError, and InvalidRequest for several selectors."""
    selectors = params.all("match[]")
    if len(selectors) > 1:
        raise InvalidRequest("ask for one selector at a time")
    matchers = parse_metric_selector(selectors[0]) if selectors else ()
    start_ms, end_ms_incl = series_range(params)
    return replace(ask, matchers=matchers, start_ms=start_ms, end_ms=end_ms_incl + 1)


def build_internal_application(ingester: Ingester, *, max_samples: int, timeout_s: float) -> Application:
    """Return the ASGI application of the internal listener.

    Parameters
    ----------
    ingester
    max_samples
        Samples that one query may hold here; 0 is no bound.
    timeout_s
        Time (s) that a request may take, waiting for offsets included.
    """
    read = RemoteRead(_HeadSource(ingester, max_samples=max_samples, timeout_s=timeout_s), tenants=_TENANTS)
    pages = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    plain_routing(pages)
    api = _LabelApi(ingester)

    def route(path: str, handler: _Handler, render: Callable[[bytes], Response] = _json) -> None:
        async def endpoint(request: Request) -> Response:
            try:
                ask = _ask_of(request.scope, _TENANTS.tenant_of(request), ingester)
                params = await read_params(request.scope, request.receive)
                async with asyncio.timeout(timeout_s):
                    data, answer = await unless_disconnected(request.receive, handler(ask, params, request))
            except (IngestError, PartitionError) as error:
                return _failed(request, error)
            except TimeoutError:
                return _failed(request, IngestError("timed out", error_id="owner-unavailable"))
            response = render(data)
            response.headers.update(answer_headers(answer.next_offsets, _cut_offsets(answer.cuts)))
            return response

        pages.add_api_route(PREFIX + path, endpoint, methods=["GET", "POST"], name=path)

    async def ingestion_lag(request: Request) -> Response:
        try:
            lags = await ingester.lags(_TENANTS.tenant_of(request))
        except (IngestError, PartitionError) as error:
            return _failed(request, error)
        return _json(orjson.dumps([asdict(lag) for lag in lags]))

    async def tenants() -> Response:
        return _json(encode_tenants(ingester.tenant_totals()))

    route("/series", api.series)
    route("/labels", api.labels)
    route("/label/{name}/values", api.label_values)
    route("/metadata", api.metadata)
    route("/exemplars", api.exemplars)
    route("/census", api.census, lambda data: Response(data, media_type="application/octet-stream"))
    pages.add_api_route(PREFIX + "/tenants", tenants, methods=["GET"])
    pages.add_api_route(PREFIX + "/ingestion_lag", ingestion_lag, methods=["GET"])
    return CleanPath(Router([Route(PREFIX + "/read", frozenset({"POST"}), read)], fallback=pages))


def _json(data: bytes) -> Response:
    return page(success(data))


def _failed(request: Request, error: IngestError | PartitionError) -> Response:
    if error.http_status >= 500:
        _log.warning("internal request failed", path=request.url.path, id=error.error_id, err=error.message)
    return Response(encode_error(error), error.http_status, media_type=JSON)
