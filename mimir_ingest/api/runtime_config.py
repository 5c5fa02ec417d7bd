"""`/runtime_config` and `/api/v1/user_limits` (http-api, 3.4, 3.10): both exist only with a configured file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from mimir_ingest.config.limits import Limits
from mimir_ingest.config.runtime import RuntimeConfigWatcher, runtime_yaml


def runtime_config_router(watcher: RuntimeConfigWatcher, tenant_of: Callable[[Request], str]) -> APIRouter:
    """Build both paths; with no file configured the router is empty, so they answer 404.

    Parameters
    ----------
    tenant_of : the request's one tenant; raises TenantError, for which the application has a handler
    """
    router = APIRouter()
    if not watcher.configured:
        return router

    @router.get("/runtime_config")
    def runtime_config(mode: str = "") -> Response:
        current = watcher.current
        if current is None:
            return PlainTextResponse("runtime config file doesn't exist")
        return PlainTextResponse(runtime_yaml(current, watcher.defaults, diff=mode == "diff"))

    @router.get("/api/v1/user_limits")
    def show_user_limits(request: Request) -> Response:
        return JSONResponse(user_limits(watcher.for_tenant(tenant_of(request))))

    return router


def user_limits(limits: Limits) -> dict[str, Any]:
    """Return the body of `/api/v1/user_limits`."""
    values = limits.values
    return {
        "compactor_blocks_retention_period_seconds": values["compactor_blocks_retention_period"].ms // 1000,
        "ingestion_rate": limits.ingestion_rate,
        "ingestion_burst_size": limits.ingestion_burst_size,
        "ingestion_burst_factor": limits.ingestion_burst_factor,
        "max_global_series_per_user": limits.max_global_series_per_user,
        "max_global_series_per_metric": values["max_global_series_per_metric"],
        "max_global_exemplars_per_user": values["max_global_exemplars_per_user"],
        "max_fetched_chunks_per_query": values["max_fetched_chunks_per_query"],
        "max_fetched_series_per_query": values["max_fetched_series_per_query"],
        "max_fetched_chunk_bytes_per_query": values["max_fetched_chunk_bytes_per_query"],
        "ruler_max_rules_per_rule_group": values["ruler_max_rules_per_rule_group"],
        "ruler_max_rule_groups_per_tenant": values["ruler_max_rule_groups_per_tenant"],
    }
