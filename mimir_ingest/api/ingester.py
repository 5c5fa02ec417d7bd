"""Control endpoints of the ingester; no tenant needed (spec http-api.md 5.1 to 5.6; ingest-storage.md 7.1 to 7.5).

    /ingester/flush, /ingester/shutdown
    /ingester/partitions                        how far each partition is that is consumed here; not in Mimir
    /ingester/prepare-partition-downscale       the partition leaves: ACTIVE ─► INACTIVE, and back; or leases do
    /ingester/prepare-shutdown                  the instance leaves with its next shutdown
    /ingester/unregister-on-shutdown            whether the instance leaves its ring when it stops
    /ingester/prepare-instance-ring-downscale   of the architecture without a log: always 405

What they do is `ingester.downscale`'s. All but shutdown and the last answer 503 unless the ingester is Running.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable

import orjson
import structlog
from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from mimir_ingest.api.params import Params
from mimir_ingest.api.tenant import check_tenant
from mimir_ingest.errors import IngestError, TenantError
from mimir_ingest.ingester.downscale import Downscale, PartitionDownscale
from mimir_ingest.ingester.lease_downscale import DownscaleRefused, InstanceDownscale
from mimir_ingest.ingester.membership import Membership
from mimir_ingest.ingester.service import Ingester
from mimir_ingest.obs.services import ServiceRegistry, ServiceState
from partitions.errors import PartitionDoesNotExist, PartitionError, StateChangeLocked

_log = structlog.get_logger()


def ingester_router(ingester: Ingester, membership: Membership, services: ServiceRegistry) -> APIRouter:
    """Build `/ingester/flush`, `/ingester/shutdown` and `/ingester/partitions`."""
    router = APIRouter(prefix="/ingester")

    def state() -> ServiceState:
        return services.states().get("ingester", ServiceState.NEW)

    async def flush(request: Request) -> Response:
        """Cut what the heads hold; with `wait`, ship it too before answering. Failures are logged, as in Mimir.

        The cut is in the log when this answers, so it happens also if the process ends right after.
        """
        if state() is not ServiceState.RUNNING:
            return PlainTextResponse(f"ingester is not running (state: {state()})\n", status_code=503)
        params = Params.parse(request.scope["query_string"], await request.body())
        try:
            tenants = [check_tenant(tenant) for tenant in params.all("tenant")]
        except TenantError as error:
            return PlainTextResponse(f"{error.message}\n".encode("utf-8", "replace"), status_code=400)
        await _logged(ingester.flush(tenants or None, params.get("wait") == "true"), "flush failed")
        return Response(status_code=204)

    async def shutdown() -> Response:
        """Flush, ship, stop the ingester, and answer when that is done; the process stays up, not ready."""
        if state() is ServiceState.RUNNING:
            services.set_state("ingester", ServiceState.STOPPING)
            await membership.shut_down()
            services.set_state("ingester", ServiceState.TERMINATED)
        return Response(status_code=204)

    async def partitions() -> Response:
        """Tell how far each partition is, what is wrong with it, and which offsets the log lost before they came."""
        body = {"not_ready": membership.ready_reason(), "partitions": ingester.partition_states()}
        return Response(orjson.dumps(body), media_type="application/json")

    router.add_api_route("/partitions", partitions, methods=["GET"])
    router.add_api_route("/flush", flush, methods=["GET", "POST"])
    router.add_api_route("/shutdown", shutdown, methods=["POST"])
    return router


def downscale_router(downscale: Downscale, services: ServiceRegistry) -> APIRouter:
    """Build the endpoints that take an ingester or its partition out."""
    router = APIRouter(prefix="/ingester")

    def running() -> bool:
        return services.states().get("ingester") is ServiceState.RUNNING

    def guarded(handler: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            return await handler(request) if running() else Response(status_code=503)

        return endpoint

    async def partition_downscale(request: Request) -> Response:
        """`?partition=` names one partition instead of what this instance owns: that of its id, or all its leases."""
        text = Params.parse(request.scope["query_string"]).get("partition")
        if text and not re.fullmatch("[0-9]{1,10}", text):
            return PlainTextResponse("partition is not a number\n", status_code=400)
        act = {
            "GET": downscale.partition_downscale,
            "POST": downscale.prepare_partition_downscale,
            "DELETE": downscale.cancel_partition_downscale,
        }[request.method]
        return await _partition_answer(act(int(text) if text else None))

    async def prepare_shutdown(request: Request) -> Response:
        try:
            match request.method:
                case "GET":
                    return PlainTextResponse("set\n" if downscale.shutdown_prepared() else "unset\n")
                case "POST":
                    await asyncio.to_thread(downscale.prepare_shutdown)
                    return Response(status_code=204)
        except OSError as error:
            _log.error("the shutdown marker cannot be used", err=str(error))
            return Response(status_code=500)
        return Response(status_code=405)  # it cannot be taken back with ingest storage

    async def unregister_on_shutdown(request: Request) -> Response:
        if request.method == "PUT":
            wanted = _unregister_of(await request.body())
            if wanted is None:
                return Response(status_code=400)
            downscale.unregister_on_shutdown = wanted
        elif request.method == "DELETE":
            downscale.reset_unregister_on_shutdown()
        return JSONResponse({"unregister": downscale.unregister_on_shutdown})

    async def not_with_a_log() -> Response:
        return Response(status_code=405)

    everything = ["GET", "POST", "DELETE"]
    router.add_api_route("/prepare-partition-downscale", guarded(partition_downscale), methods=everything)
    router.add_api_route("/prepare-shutdown", guarded(prepare_shutdown), methods=everything)
    router.add_api_route("/unregister-on-shutdown", guarded(unregister_on_shutdown), methods=["GET", "PUT", "DELETE"])
    router.add_api_route("/prepare-instance-ring-downscale", not_with_a_log, methods=everything)
    return router


async def _partition_answer(work: Awaitable[PartitionDownscale | InstanceDownscale]) -> Response:
    try:
        return JSONResponse((await work).to_json())
    except (DownscaleRefused, StateChangeLocked) as error:
        return PlainTextResponse(f"{error.message}\n" if error.message else "", status_code=409)
    except PartitionDoesNotExist:
        return Response(status_code=500)
    except (IngestError, PartitionError) as error:
        return PlainTextResponse(f"{error.message}\n", status_code=500)


def _unregister_of(body: bytes) -> bool | None:
    """Return what a body `{"unregister": true}` says, None for anything else."""
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    wanted = found.get("unregister") if isinstance(found, dict) else None
    return wanted if isinstance(wanted, bool) else None


async def _logged(work: Awaitable[object], message: str) -> None:
    try:
        await work
    except IngestError as error:
        _log.error(message, err=str(error))
