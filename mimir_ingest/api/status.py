"""`/api/v1/status/…`: what Grafana probes, at the top and under the query prefix (http-api, sections 3.3 and 3.8)."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.responses import JSONResponse, Response


def status_router(info: dict[str, Any], *, prometheus_prefix: str) -> APIRouter:
    """Build `buildinfo`, `config` and `flags`, each at `/api/v1/status/` and below the query prefix.

    Parameters
    ----------
    info : body of `buildinfo`, from `build_info`
    prometheus_prefix : `api.prometheus_http_prefix`
    """
    router = APIRouter()
    prefix = "/" + prometheus_prefix.strip("/")
    empty = {"status": "success", "data": {}}

    def buildinfo() -> Response:
        return JSONResponse(info)

    def nothing() -> Response:
        return JSONResponse(empty)

    for base in ("", prefix):
        router.add_api_route(f"{base}/api/v1/status/buildinfo", buildinfo, methods=["GET"])
        router.add_api_route(f"{base}/api/v1/status/config", nothing, methods=["GET"])
        router.add_api_route(f"{base}/api/v1/status/flags", nothing, methods=["GET"])
    return router
