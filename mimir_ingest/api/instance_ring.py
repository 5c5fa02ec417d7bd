"""`/ingester/ring`, `/distributor/ring`: the instances of a ring, and the form that forgets one (http-api 7.1).

Instances have no tokens here: partitions do. The JSON keeps the key, empty, as clients expect it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from mimir_ingest.api.pages import go_time, render_page, wants_json
from mimir_ingest.api.params import Params
from mimir_ingest.config.durations import format_duration
from partitions.edits import forget_instance
from partitions.errors import PartitionError
from partitions.model import Entry, InstanceDesc, RingDesc

ZERO_TIME = "0001-01-01T00:00:00Z"
"""Go's zero time, for a time that was never set."""
Change = Callable[[Callable[[RingDesc], Iterable[Entry]]], Awaitable[RingDesc]]
"""Applies an edit to the ring and returns once it shows."""


def instance_ring_router(
    path: str,
    ring: str,
    *,
    view: Callable[[], RingDesc],
    change: Change,
    heartbeat_timeout_ms: int,
    now_ms: Callable[[], int],
) -> APIRouter:
    """Build the page of a ring.

    Parameters
    ----------
    path : such as `/ingester/ring`
    ring : name of the ring in the model, such as `ingester`
    view : the newest view of the ring
    change : applies an edit
    heartbeat_timeout_ms : silence after which an instance is shown as UNHEALTHY
    now_ms : wall clock (ms since the Unix epoch)
    """
    router = APIRouter()
    root = "../" * (path.count("/") - 1)

    @router.get(path)
    def show(request: Request) -> Response:
        now = now_ms()
        members = list(view().instances(ring).values())
        if wants_json(request):
            shards = [_shard(member, now, heartbeat_timeout_ms) for member in members]
            return JSONResponse({"shards": shards or None, "now": go_time(_at(now))})
        rows = [_row(member, now, heartbeat_timeout_ms) for member in members]
        return render_page("instance_ring.html", root=root, ring=ring, now=go_time(_at(now)), instances=rows)

    @router.post(path)
    async def form(request: Request) -> Response:
        params = Params.parse(b"", await request.body())
        instance = params.get("forget")
        if instance:
            try:
                await change(lambda desc: forget_instance(desc, ring, instance, now_ms()))
            except PartitionError as error:
                return PlainTextResponse(
                    f"error forgetting instance '{instance}': {error.message}\n",
                    status_code=500,
                    headers={"X-Content-Type-Options": "nosniff"},
                )
        return Response(status_code=302, headers={"Location": "#"})

    return router


def _at(time_ms: int) -> datetime:
    return datetime.fromtimestamp(time_ms / 1000, UTC)


def seconds_text(time_ms: int) -> str:
    """Print a time (ms since the Unix epoch) in whole seconds as Go's JSON does; 0 is Go's zero time."""
    return go_time(_at(time_ms // 1000 * 1000)) if time_ms else ZERO_TIME


def shown_state(member: InstanceDesc, now_ms: int, heartbeat_timeout_ms: int) -> str:
    """Return an instance's state as pages and metrics show it: UNHEALTHY when its heartbeat is too old."""
    return "UNHEALTHY" if now_ms - member.heartbeat_ms > heartbeat_timeout_ms else member.state.name


def _shard(member: InstanceDesc, now_ms: int, heartbeat_timeout_ms: int) -> dict[str, Any]:
    return {
        "id": member.id,
        "state": shown_state(member, now_ms, heartbeat_timeout_ms),
        "address": member.address,
        "timestamp": seconds_text(member.heartbeat_ms),
        "registered_timestamp": seconds_text(member.registered_ms),
        "read_only": member.read_only,
        "read_only_updated_timestamp": seconds_text(member.read_only_updated_ms),
        "zone": member.zone,
        "tokens": [],
    }


def _row(member: InstanceDesc, now_ms: int, heartbeat_timeout_ms: int) -> dict[str, Any]:
    return {
        "id": member.id,
        "zone": member.zone,
        "state": shown_state(member, now_ms, heartbeat_timeout_ms),
        "address": member.address,
        "registered": seconds_text(member.registered_ms) if member.registered_ms else "-",
        "read_only": "true" if member.read_only else "-",
        "read_only_updated": seconds_text(member.read_only_updated_ms) if member.read_only_updated_ms else "-",
        "heartbeat_age": format_duration(max(now_ms - member.heartbeat_ms, 0) // 1000 * 1_000_000_000),
        "heartbeat": seconds_text(member.heartbeat_ms),
    }
