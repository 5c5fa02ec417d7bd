"""`/config`: the effective configuration as YAML, secrets masked (http-api, section 3.2)."""

from __future__ import annotations

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse, Response

from mimir_ingest.config.effective import EffectiveConfig


def config_router(effective: EffectiveConfig) -> APIRouter:
    """Build `/config`; `mode` is `diff` or `defaults`, anything else shows everything."""
    router = APIRouter()

    @router.get("/config")
    def config(mode: str = "") -> Response:
        match mode:
            case "diff" | "defaults":
                return PlainTextResponse(effective.yaml(mode))
            case _:
                return PlainTextResponse(effective.yaml("full"))

    return router
