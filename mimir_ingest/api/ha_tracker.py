"""`/distributor/ha_tracker`: which replica of each cluster is elected (http-api 4.6). Made only with a tracker."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response

from mimir_ingest.api.pages import go_time, render_page, wants_json
from mimir_ingest.config.durations import format_duration
from mimir_ingest.config.limits import Limits
from partitions.model import ElectionDesc, RingDesc

_SHOWN_NS = 100_000_000
"""Durations are shown in tenths of a second."""


def ha_tracker_router(
    *, view: Callable[[], RingDesc], limits_for: Callable[[str], Limits], now_ms: Callable[[], int]
) -> APIRouter:
    """Build the page.

    Parameters
    ----------
    view : the newest view of the elections
    limits_for : a tenant's limits
    now_ms : wall clock (ms since the Unix epoch)
    """
    router = APIRouter()

    @router.get("/distributor/ha_tracker")
    def show(request: Request) -> Response:
        now = now_ms()
        elected = [
            _replica(election, limits_for(tenant), now)
            for tenant, clusters in view().elections.items()
            for election in clusters.values()
        ]
        if wants_json(request):
            return JSONResponse({"elected": elected or None, "now": _time(now)})
        return render_page("ha_tracker.html", root="../", now=_time(now), elected=[_row(r) for r in elected])

    return router


def _time(time_ms: int) -> str:
    return go_time(datetime.fromtimestamp(time_ms / 1000, UTC))


def _replica(election: ElectionDesc, limits: Limits, now_ms: int) -> dict[str, Any]:
    """An elected replica; durations are in nanoseconds from now, negative when overdue."""
    seen_ns = (election.received_ms - now_ms) * 1_000_000
    return {
        "userID": election.tenant,
        "cluster": election.cluster,
        "replica": election.replica,
        "lastElectionTime": _time(election.elected_ms),
        "electedLastSeenTime": _time(election.received_ms),
        "updateDuration": seen_ns + int(limits.ha_tracker_update_timeout),
        "failoverDuration": seen_ns + int(limits.ha_tracker_failover_timeout),
    }


def _row(replica: dict[str, Any]) -> dict[str, Any]:
    durations = {
        name: format_duration(replica[name] // _SHOWN_NS * _SHOWN_NS) for name in ("updateDuration", "failoverDuration")
    }
    return {**replica, **durations, "silent": replica["failoverDuration"] < 0}
