"""`/services`: the parts of this process and their states (http-api, section 3.5)."""

from __future__ import annotations

from datetime import UTC, datetime

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from mimir_ingest.api.pages import go_time, render_page, wants_json
from mimir_ingest.obs.services import ServiceRegistry


def services_router(services: ServiceRegistry) -> APIRouter:
    """Build `/services`, HTML or JSON by `Accept`."""
    router = APIRouter()

    @router.get("/services")
    def show(request: Request) -> Response:
        now = go_time(datetime.now(UTC))
        rows = [{"name": name, "status": str(state)} for name, state in services.states().items()]
        if wants_json(request):
            return JSONResponse({"now": now, "services": rows})
        return render_page("services.html", now=now, services=rows)

    return router
