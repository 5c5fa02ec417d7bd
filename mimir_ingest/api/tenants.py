"""The ingester's pages about tenants: `/ingester/tenants`, `/ingester/tsdb/{tenant}` and `/ingester/tsdb_metrics`.

Source: spec http-api.md 5.7 to 5.9. The heads of the partitions consumed here stand for Mimir's local TSDB, and the
blocks of their recent cuts for its local blocks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, unquote

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from mimir_ingest.api.errors import Application, Receive, Scope, Send
from mimir_ingest.api.pages import go_time, render_page, wants_json
from mimir_ingest.api.tenant import TenantResolver
from mimir_ingest.config.durations import format_duration
from mimir_ingest.config.limits import Limits
from mimir_ingest.errors import TenantError
from mimir_ingest.ingester.service import Ingester
from mimir_ingest.ingester.tenant_facts import TenantFacts
from mimir_ingest.obs.tsdb_metrics import TenantTsdb, render_tsdb
from mimir_ingest.tsdb.block_meta import MetaFile
from mimir_ingest.tsdb.segment import MAX_MS, MIN_MS

METRICS_PATH = "/ingester/tsdb_metrics"
_EARLIEST_MS, _LATEST_MS = -62_135_596_800_000, 253_402_300_799_999
"""Years 1 to 9999; times outside are shown as numbers."""


def format_time(time_ms: int) -> str:
    """Return `<RFC 3339> (<ms>)`, in UTC, and the names of the sentinels of an empty head."""
    if time_ms == MAX_MS:
        return "math.MaxInt64"
    if time_ms == MIN_MS:
        return "math.MinInt64"
    if time_ms == 0 or not _EARLIEST_MS <= time_ms <= _LATEST_MS:
        return str(time_ms)
    moment = datetime.fromtimestamp(time_ms // 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%SZ} ({time_ms})"


def _now(now_ms: int) -> str:
    return go_time(datetime.fromtimestamp(now_ms / 1000, UTC))


def _tenant_row(facts: TenantFacts, limits: Limits, now_ms: int) -> dict[str, Any]:
    past_ns = int(limits.past_grace_period) + int(limits.out_of_order_time_window)
    future_ns = int(limits.creation_grace_period)
    warnings = []
    if facts.max_ms > now_ms + future_ns // 1_000_000:
        ahead = format_duration((facts.max_ms - now_ms) // 1000 * 1_000_000_000)
        warnings.append(f"head max time is too far in the future ({ahead})")
    if int(limits.past_grace_period) and facts.min_ms < now_ms - past_ns // 1_000_000:
        warnings.append("head min time is too far in the past")
    return {
        "Tenant": facts.tenant,
        "Blocks": len(facts.blocks),
        "MinTime": format_time(facts.min_ms),
        "MaxTime": format_time(facts.max_ms),
        "PastGracePeriod": past_ns,
        "FutureGracePeriod": future_ns,
        "Warning": ", ".join(warnings),
    }


def _block_row(block: MetaFile, uploaded_ms: int) -> dict[str, Any]:
    document = block.document
    return {
        "ID": block.ulid,
        "MinTime": format_time(block.min_time_ms),
        "MaxTime": format_time(block.max_time_ms),
        "OutOfOrder": block.external_labels.get("__out_of_order__") == "true",
        "Compaction": document.get("compaction", {}),
        "Stats": document.get("stats", {}),
        "UploadedOn": format_time(uploaded_ms),
    }


def tenants_router(ingester: Ingester, *, limits_for: Callable[[str], Limits], now_ms: Callable[[], int]) -> APIRouter:
    """Build the two pages; `now_ms` is the wall clock (ms since the Unix epoch)."""
    router = APIRouter(prefix="/ingester")

    async def tenants(request: Request) -> Response:
        now = now_ms()
        rows = [_tenant_row(facts, limits_for(facts.tenant), now) for facts in await ingester.tenant_facts()]
        if wants_json(request):
            return JSONResponse({"Now": _now(now), "Tenants": rows or None})
        for row in rows:
            row["href"] = "tsdb/" + quote(row["Tenant"], safe="")
            row["grace"] = f"-{format_duration(row['PastGracePeriod'])}, +{format_duration(row['FutureGracePeriod'])}"
        return render_page("ingester_tenants.html", root="../", now=_now(now), tenants=rows)

    async def tsdb(request: Request) -> Response:
        tenant = unquote(request.path_params["tenant"])
        facts = await ingester.facts_of(tenant)
        if facts is None:
            text = f"TSDB not found for tenant {tenant}\n"
            return PlainTextResponse(text, 404, headers={"X-Content-Type-Options": "nosniff"})
        blocks = await ingester.published(facts)
        floor = facts.appendable_from_ms
        body = {
            "Now": _now(now_ms()),
            "Tenant": tenant,
            "Head": {
                "MinTime": format_time(facts.min_ms),
                "MaxTime": format_time(facts.max_ms),
                "NumSeries": facts.series,
                "AppendableMinValidTime": "" if floor is None else format_time(floor),
                # Samples that came out of order are in the same head as all others.
                "MinOOOTime": format_time(MAX_MS),
                "MaxOOOTime": format_time(MIN_MS),
            },
            "Blocks": [_block_row(block, uploaded_ms) for block, uploaded_ms in blocks] or None,
        }
        if wants_json(request):
            return JSONResponse(body)
        return render_page("ingester_tsdb.html", root="../../", page=body)

    router.add_api_route("/tenants", tenants, methods=["GET"])
    router.add_api_route("/tsdb/{tenant}", tsdb, methods=["GET"])
    return router


def tsdb_metrics(ingester: Ingester, *, tenants: TenantResolver) -> Application:
    """Return the ASGI application of METRICS_PATH, whose answers are never compressed."""

    async def respond(scope: Scope) -> Response:
        nosniff = {"X-Content-Type-Options": "nosniff"}
        try:
            tenant = tenants.single(scope["headers"], several_status=401)
        except TenantError as error:
            return PlainTextResponse(f"{error.message}\n", error.http_status, headers=nosniff)
        facts = await ingester.facts_of(tenant)
        if facts is None:
            return PlainTextResponse("user registry not found\n", 404, headers=nosniff)
        tsdb = TenantTsdb(
            facts.series, facts.series_created, facts.chunks, facts.min_ms, facts.max_ms, len(facts.blocks)
        )
        text = await asyncio.to_thread(render_tsdb, tsdb)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        response = await respond(scope)
        await response(scope, receive, send)

    return application
