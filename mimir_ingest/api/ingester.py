"""Control endpoints of the ingester (spec http-api.md 5.1 and 5.3; no tenant needed)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog
from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse

from mimir_ingest.api.params import Params
from mimir_ingest.errors import IngestError
from mimir_ingest.ingester.service import Ingester
from mimir_ingest.obs.services import ServiceRegistry, ServiceState

_log = structlog.get_logger()


def ingester_router(ingester: Ingester, services: ServiceRegistry) -> APIRouter:
    """Build `/ingester/flush` and `/ingester/shutdown`."""
    router = APIRouter(prefix="/ingester")
    background: set[asyncio.Task] = set()

    def state() -> ServiceState:
        return services.states().get("ingester", ServiceState.NEW)

    async def flush(request: Request) -> Response:
        """Cut and ship what the heads hold; failures are logged, as in Mimir."""
        if state() is not ServiceState.RUNNING:
            return PlainTextResponse(f"ingester is not running (state: {state()})\n", status_code=503)
        params = Params.parse(request.scope["query_string"], await request.body())
        work = ingester.flush(params.all("tenant") or None, params.get("wait") == "true")
        if params.get("wait") == "true":
            await _logged(work, "flush failed")
        else:
            task = asyncio.create_task(_logged(work, "flush failed"))
            background.add(task)
            task.add_done_callback(background.discard)
        return Response(status_code=204)

    async def shutdown() -> Response:
        """Flush, ship, stop the ingester, and answer when that is done; the process stays up, not ready."""
        if state() is ServiceState.RUNNING:
            services.set_state("ingester", ServiceState.STOPPING)
            await _logged(ingester.shutdown(), "shutdown: not everything was shipped; the log still has it")
            services.set_state("ingester", ServiceState.TERMINATED)
        return Response(status_code=204)

    router.add_api_route("/flush", flush, methods=["GET", "POST"])
    router.add_api_route("/shutdown", shutdown, methods=["POST"])
    return router


async def _logged(work: object, message: str, *, log: Callable[..., None] = _log.error) -> None:
    try:
        await work  # type: ignore[misc]
    except IngestError as error:
        log(message, err=str(error))
