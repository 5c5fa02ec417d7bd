"""`/ready` (http-api, section 3.6). Matches any method."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse, Response

from mimir_ingest.obs.services import ServiceRegistry, readiness

ANY_METHOD = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


def ready_router(services: ServiceRegistry, ingester_reason: Callable[[], str | None] | None) -> APIRouter:
    """Build `/ready`.

    Parameters
    ----------
    ingester_reason : says why the ingester is not ready, or None; None itself when there is no ingester here
    """
    router = APIRouter()

    @router.api_route("/ready", methods=ANY_METHOD)
    async def ready() -> Response:
        reason = readiness(services, ingester_reason)
        if reason is None:
            return Response("ready", headers={"Content-Type": "text/plain"})
        return PlainTextResponse(f"{reason}\n", status_code=503, headers={"X-Content-Type-Options": "nosniff"})

    return router
