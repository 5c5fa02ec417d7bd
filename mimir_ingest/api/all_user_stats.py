"""`/distributor/all_user_stats`: series and ingestion rates of all tenants (spec http-api.md 4.5)."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from mimir_ingest.api.pages import go_time, render_page
from mimir_ingest.errors import IngestError
from mimir_ingest.querier.all_ingesters import AllIngesters
from mimir_ingest.querier.cardinality import tenant_stats
from partitions.errors import PartitionError


def all_user_stats_router(ingesters: AllIngesters, *, now_ms: Callable[[], int]) -> APIRouter:
    """Build the page; `now_ms` is the wall clock (ms since the Unix epoch)."""
    router = APIRouter()

    @router.get("/distributor/all_user_stats")
    async def show(request: Request) -> Response:
        try:
            totals = await ingesters.tenant_totals()
        except (IngestError, PartitionError) as error:
            return PlainTextResponse(f"{error.message}\n", 500, headers={"X-Content-Type-Options": "nosniff"})
        rows: list[dict[str, Any]] = [{"userID": tenant, **tenant_stats(found)} for tenant, found in totals.items()]
        rows.sort(key=lambda row: (-row["numSeries"], row["userID"]))
        if "json" in request.headers.get("accept", ""):
            return JSONResponse(rows)
        now = go_time(datetime.fromtimestamp(now_ms() / 1000, UTC))
        return render_page("all_user_stats.html", root="../", now=now, rows=rows)

    return router
