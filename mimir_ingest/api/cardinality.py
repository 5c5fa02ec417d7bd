"""`<prom>/api/v1/cardinality/…` and `/api/v1/user_stats`: who sends what (spec http-api.md 6.10 to 6.14, texts in 15).

What Mimir's front end checks (selector, limit, method of counting, label names) is answered as a JSON envelope, what
its querier checks (tenant, gate, the tenant's own limits, failures) as text.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

import cramjam
import orjson
from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse, StreamingResponse

from mimir_ingest.api.consistency import ReadingOpener, answer_headers, read_level
from mimir_ingest.api.params import Params, parse_limit
from mimir_ingest.api.query_routes import read_params, unless_disconnected
from mimir_ingest.api.query_statistics import STATISTICS_HEADER, server_timing, wants_statistics
from mimir_ingest.api.render import JSON, clean, failure, page
from mimir_ingest.api.tenant import TenantResolver
from mimir_ingest.config.limits import Limits
from mimir_ingest.errors import IngestError, QueryError
from mimir_ingest.ingester.census import CensusAsk, CensusKind, CensusPart
from mimir_ingest.model.matchers import Matcher
from mimir_ingest.model.spans import Check
from mimir_ingest.obs.query_metrics import QueryMetrics
from mimir_ingest.promql.parser import parse_metric_selector
from mimir_ingest.querier.cardinality import (
    active_histograms,
    active_series,
    label_names,
    label_values,
    tenant_stats,
    total,
)
from mimir_ingest.querier.concurrency import run_until
from mimir_ingest.querier.reading import Reading
from mimir_ingest.querier.service import Querier
from partitions.errors import PartitionError

DEFAULT_LIMIT = 20
MAX_LIMIT = 500
"""Items that an answer may list, whatever a tenant's own limit says."""

SNAPPY_FRAMED = "x-snappy-framed"
SHARDING_CONTROL = "sharding-control"
_Joined = TypeVar("_Joined")
_LEGACY_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def _refused(text: str) -> QueryError:
    return QueryError(text, error_type="bad_data")


def _one(params: Params, name: str) -> str | None:
    """Return a parameter's only value, None without one. Raises QueryError for several."""
    values = params.all(name)
    if len(values) > 1:
        raise _refused(f"multiple '{name}' params are not allowed")
    return values[0] if values else None


def read_selector(params: Params) -> tuple[Matcher, ...] | None:
    """Return the matchers of `selector`, None without one. Raises QueryError."""
    text = _one(params, "selector")
    if text is None:
        return None
    try:
        return parse_metric_selector(text)
    except QueryError as error:
        raise _refused(f"failed to parse selector: {error.message}") from error


def read_limit(params: Params, most: int) -> int:
    """Return `limit`, by default 20. Raises QueryError for one that is not in 0..`most`."""
    text = _one(params, "limit")
    if text is None:
        return DEFAULT_LIMIT
    try:
        limit = parse_limit(text)
    except ValueError as error:
        raise _refused(str(error)) from error
    if limit < 0:
        raise _refused("'limit' param cannot be less than '0'")
    if limit > most:
        raise _refused(f"'limit' param cannot be greater than '{most}'")
    return limit


def read_active(params: Params) -> bool:
    """Return whether `count_method` is `active`; `inmemory` is the default. Raises QueryError."""
    method = _one(params, "count_method")
    if method not in (None, "active", "inmemory"):
        raise _refused(f"invalid 'count_method' param '{method}'. valid options are: [active,inmemory]")
    return method == "active"


def _is_text(name: str) -> bool:
    """Whether a name is not empty and has no lone surrogates, which stand for bytes that are no UTF-8."""
    return bool(name) and not any("\ud800" <= char <= "\udfff" for char in name)


def read_label_names(params: Params, scheme: str) -> frozenset[str]:
    """Return `label_names[]`. Raises QueryError for none, or a name that the tenant's `scheme` of names refuses."""
    names = params.all("label_names[]")
    if not names:
        raise _refused("'label_names[]' param is required")
    for name in names:
        if not (_is_text(name) if scheme == "utf8" else _LEGACY_NAME.fullmatch(name)):
            raise _refused(f"invalid 'label_names' param '{name}'")
    return frozenset(names)


def read_shards(headers: Mapping[str, str], default: int) -> int:
    """Return the shards that `Sharding-Control` asks for, `default` without a count of at least 0; 0 and 1 are none."""
    try:
        shards = parse_limit(headers.get(SHARDING_CONTROL, ""))
    except ValueError:
        return default
    return shards if shards >= 0 else default


def read_sharded(params: Params, shards: int, limits: Limits) -> tuple[Matcher, ...]:
    """Return the matchers of a request in `shards` shards. Raises QueryError for too many, and for no selector."""
    most = limits.query_sharding_max_sharded_queries
    if shards > most:
        raise _refused(f"shard count {shards} exceeds allowed maximum ({most})")
    text = _one(params, "selector")
    if not text:
        raise _refused("selector parameter is required")
    try:
        return parse_metric_selector(text)
    except QueryError as error:
        raise _refused(f"invalid selector: {error.message}") from error


@dataclass(frozen=True, slots=True)
class _Asked:
    """One tenant's request."""

    tenant: str
    limits: Limits
    params: Params
    reading: Reading
    headers: dict[str, str]
    came_s: float
    """When it came (monotonic clock)."""
    samples_processed: int = 0
    """Nothing is evaluated here."""
    queue_s: float = 0.0
    """Nothing waits for its turn here."""


class CardinalityApi:
    """Handlers of the endpoints. What they raise is answered as text; `_front_end`'s errors as an envelope."""

    def __init__(self, querier: Querier, *, sharding: bool) -> None:
        """`sharding`: whether requests for active series are counted in shards."""
        self._querier = querier
        self._sharding = sharding

    async def label_names(self, asked: _Asked) -> Response:
        """Return label names with their numbers of values."""

        def read() -> tuple[tuple[Matcher, ...] | None, int, bool]:
            return read_selector(asked.params), read_limit(asked.params, MAX_LIMIT), read_active(asked.params)

        matchers, limit, active = _front_end(read)
        _check_gate(asked)
        read_limit(asked.params, asked.limits.cardinality_analysis_max_results)
        most = asked.limits.label_names_and_values_results_max_size_bytes
        ask = CensusAsk(CensusKind.PAIRS, active, None, most)
        parts = await self._count(asked, matchers, ask)
        return _json(await self._join(asked, lambda check: label_names(parts, ask, limit, check)))

    async def label_values(self, asked: _Asked) -> Response:
        """Return the values of some labels with their numbers of series."""
        scheme = asked.limits.name_validation_scheme

        def read() -> tuple[frozenset[str], tuple[Matcher, ...] | None, int, bool]:
            params = asked.params
            names = read_label_names(params, scheme)
            return names, read_selector(params), read_limit(params, MAX_LIMIT), read_active(params)

        names, matchers, limit, active = _front_end(read)
        _check_gate(asked)
        read_limit(asked.params, asked.limits.cardinality_analysis_max_results)
        most = asked.limits.label_values_max_cardinality_label_names_per_request
        if 0 < most < len(names):
            raise _refused(
                f"label values cardinality request label names limit (limit: {most} actual: {len(names)}) exceeded"
            )
        ask = CensusAsk(CensusKind.PAIRS, active, names)
        parts = await self._count(asked, matchers, ask)
        return _json(await self._join(asked, lambda check: label_values(parts, ask, limit, check)))

    async def active_series(self, asked: _Asked) -> Response:
        """Return the label sets of active series, as they are rendered; framed snappy for those who take it."""
        ask, parts = await self._count_active(asked, CensusKind.SERIES)
        batches = await self._join(asked, lambda check: active_series(parts, ask, check))
        pieces = _pieces(batches)
        headers = {}
        if SNAPPY_FRAMED in asked.headers.get("accept-encoding", ""):
            pieces, headers = _framed(pieces), {"Content-Encoding": SNAPPY_FRAMED}
        return StreamingResponse(_in_threads(pieces), media_type=JSON, headers=headers)

    async def active_native_histogram_metrics(self, asked: _Asked) -> Response:
        """Return the metrics with active native histograms, and their buckets."""
        ask, parts = await self._count_active(asked, CensusKind.HISTOGRAMS)
        return _json({"data": await self._join(asked, lambda check: active_histograms(parts, ask, check))})

    async def user_stats(self, asked: _Asked) -> Response:
        """Return the tenant's series in memory and its ingestion rates."""
        parts = await self._count(asked, None, CensusAsk(CensusKind.TOTALS))
        return _json(tenant_stats(total(parts)))

    async def _count_active(self, asked: _Asked, kind: CensusKind) -> tuple[CensusAsk, list[CensusPart]]:
        """Count what is active; in shards every one of which may give as many bytes as an answer without."""
        most = asked.limits.active_series_results_max_size_bytes
        shards = read_shards(asked.headers, asked.limits.query_sharding_total_shards) if self._sharding else 0
        if shards > 1:
            matchers = _front_end(lambda: read_sharded(asked.params, shards, asked.limits))
            ask = CensusAsk(kind, active=True, max_bytes=shards * most)
            try:
                _check_gate(asked)
                return ask, await self._count(asked, matchers, ask)
            except (IngestError, PartitionError) as error:
                raise _FrontEndError(_of_a_shard(error)) from error
        _check_gate(asked)
        matchers = read_selector(asked.params)
        if matchers is None:
            raise _refused("missing 'selector' parameter")
        ask = CensusAsk(kind, active=True, max_bytes=most)
        return ask, await self._count(asked, matchers, ask)

    async def _join(self, asked: _Asked, join: Callable[[Check], _Joined]) -> _Joined:
        """Join what was counted, in a thread that ends with the request and with its time."""
        return await run_until(asked.came_s + self._querier.limits.timeout_s, join)

    async def _count(self, asked: _Asked, matchers: tuple[Matcher, ...] | None, ask: CensusAsk) -> list[CensusPart]:
        return await self._querier.census(asked.tenant, matchers or (), ask, reading=asked.reading)


class _FrontEndError(Exception):
    """A parameter that Mimir's front end refuses."""

    def __init__(self, error: QueryError) -> None:
        super().__init__(error.message)
        self.error = error


def _front_end(read: Callable[[], tuple]) -> tuple:
    try:
        return read()
    except QueryError as error:
        raise _FrontEndError(error) from error


def _check_gate(asked: _Asked) -> None:
    if not asked.limits.cardinality_analysis_enabled:
        raise _refused(f"cardinality analysis is disabled for the tenant: {asked.tenant}")


def _of_a_shard(error: IngestError | PartitionError) -> QueryError:
    """Return what Mimir's front end makes of its querier's answer to a request for one shard."""
    status = _status(error)
    if status == 413:
        text = "shard count too low: try increasing the requested shard count"
        return QueryError(text, error_type="too_large_entry", http_status=413)
    text = f"received unexpected response from upstream: status {status}, body: {clean(error.message)}"
    return QueryError(text, error_type="internal", http_status=500)


def _json(body: dict) -> Response:
    return Response(orjson.dumps(body), media_type=JSON)


def _pieces(batches: Iterator[list[dict[str, str]]]) -> Iterator[bytes]:
    yield b'{"data":['
    for number, batch in enumerate(batches):
        yield (b"," if number else b"") + orjson.dumps(batch)[1:-1]
    yield b"]}"


def _framed(pieces: Iterator[bytes]) -> Iterator[bytes]:
    compressor = cramjam.snappy.Compressor()
    for piece in pieces:
        compressor.compress(piece)
        yield bytes(compressor.flush())
    yield bytes(compressor.finish())


async def _in_threads(pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
        yield piece


def _status(error: IngestError | PartitionError) -> int:
    return error.http_status if error.blame == "client" else 500


def _text(error: IngestError | PartitionError) -> Response:
    headers = {"X-Content-Type-Options": "nosniff"}
    return PlainTextResponse(f"{clean(error.message)}\n", _status(error), headers=headers)


def cardinality_router(
    querier: Querier,
    *,
    prefix: str,
    tenants: TenantResolver,
    limits_for: Callable[[str], Limits],
    metrics: QueryMetrics,
    sharding: bool = False,
) -> APIRouter:
    """Build the routes; `prefix` is `-http.prometheus-http-prefix`, `sharding` `shard_active_series_queries`.

    `metrics` counts what Mimir's front end counts: all but `user_stats`.
    """
    api = CardinalityApi(querier, sharding=sharding)
    readings = ReadingOpener(lambda tenant: read_level(limits_for(tenant)))
    router = APIRouter()

    async def counted(asked: _Asked, kind: str, handling: Awaitable[Response]) -> Response:
        counts, began = metrics.asked(asked.tenant, kind), time.perf_counter()
        try:
            response = await handling
        finally:
            response_s, reading = time.perf_counter() - began, asked.reading
            counts.add(response_s, reading.fetched_series, reading.fetched_chunks, reading.fetched_chunk_bytes, 0)
        extended = wants_statistics(asked.headers.get(STATISTICS_HEADER.decode(), ""))
        size = None if isinstance(response, StreamingResponse) else len(response.body)
        told = server_timing(asked, response_s, brief=metrics.statistics, extended=extended, size_bytes=size)
        if told:
            response.headers["Server-Timing"] = told
        return response

    def route(
        path: str,
        handler: Callable[[_Asked], Awaitable[Response]],
        methods: list[str],
        *,
        kind: str | None = None,
        several_status: int = 400,
    ) -> None:
        async def endpoint(request: Request) -> Response:
            came_s = time.monotonic()
            try:
                tenant = tenants.single(request.scope["headers"], several_status=several_status)
                params = await read_params(request.scope, request.receive)
                reading = readings.open(tenant, request.scope["headers"])
                headers = {name.lower(): value for name, value in request.headers.items()}
                asked = _Asked(tenant, limits_for(tenant), params, reading, headers, came_s)
                handling = unless_disconnected(request.receive, handler(asked))
                response = await (handling if kind is None else counted(asked, kind, handling))
                response.headers.update(answer_headers(reading))
                return response
            except _FrontEndError as refused:
                return page(failure(refused.error))
            except (IngestError, PartitionError) as error:
                return _text(error)

        router.add_api_route(path, endpoint, methods=methods, name=path)

    base = f"{prefix.rstrip('/')}/api/v1/cardinality"
    both = ["GET", "POST"]
    route(f"{base}/label_names", api.label_names, both, kind="cardinality")
    route(f"{base}/label_values", api.label_values, both, kind="cardinality")
    for path, handler in (
        ("active_series", api.active_series),
        ("active_native_histogram_metrics", api.active_native_histogram_metrics),
    ):
        route(f"{base}/{path}", handler, both, kind=path)
    route("/api/v1/user_stats", api.user_stats, ["GET"], several_status=500)
    return router
