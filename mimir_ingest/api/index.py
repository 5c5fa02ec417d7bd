"""`/`, the index page, and `/static/…`, its assets (http-api, section 3.1)."""

from __future__ import annotations

import mimetypes
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse, Response

from mimir_ingest.api.pages import render_page, static_file


@dataclass(frozen=True, slots=True)
class IndexLink:
    """One link of the index page."""

    text: str
    path: str
    """Relative to the index page."""
    method: str = "GET"
    """POST links are shown as buttons."""
    dangerous: bool = False
    """Whether following it changes something."""


@dataclass(frozen=True, slots=True)
class IndexGroup:
    """A heading with links."""

    name: str
    weight: int
    links: tuple[IndexLink, ...]


def standard_groups(running: Collection[str], *, runtime_config: bool, ha_tracker: bool = False) -> list[IndexGroup]:
    """Return the groups of a process that runs these components: those of every process, then one a component."""
    distributor_links = (IndexLink("Ring status", "distributor/ring"),)
    if "distributor" in running:
        distributor_links += (IndexLink("Usage statistics", "distributor/all_user_stats"),)
    if ha_tracker:
        distributor_links += (IndexLink("HA tracker status", "distributor/ha_tracker"),)
    ingester_links = (
        IndexLink("Ring status", "ingester/ring"),
        IndexLink("Partition ring status", "ingester/partition-ring"),
    )
    if "ingester" in running:
        ingester_links += (
            IndexLink("Ingester Tenants", "ingester/tenants"),
            IndexLink("Partitions consumed here", "ingester/partitions"),
        )
    groups = [
        IndexGroup("Overview", 1, (IndexLink("Services' status", "services"),)),
        IndexGroup(
            "Current config",
            2,
            (
                IndexLink("Including the default values", "config"),
                IndexLink("Only values that differ from the defaults", "config?mode=diff"),
            ),
        ),
        IndexGroup("Distributor", 4, distributor_links),
        IndexGroup("Ingester", 4, ingester_links),
        IndexGroup("Memberlist", 5, (IndexLink("Status", "memberlist"),)),
        IndexGroup("Metrics", 5, (IndexLink("This process", "metrics"), IndexLink("Readiness", "ready"))),
    ]
    if "ingester" in running:
        links = (
            IndexLink("Trigger a flush of data from ingester to storage", "ingester/flush", "POST", dangerous=True),
            IndexLink("Trigger ingester shutdown", "ingester/shutdown", "POST", dangerous=True),
        )
        groups.append(IndexGroup("Dangerous", 6, links))
    if runtime_config:
        links = (
            IndexLink("Entire runtime config (including overrides)", "runtime_config"),
            IndexLink("Only values that differ from the defaults", "runtime_config?mode=diff"),
        )
        groups.append(IndexGroup("Current runtime config", 3, links))
    return groups


def index_router(groups: Sequence[IndexGroup], *, push_path: str | None, query_path: str | None) -> APIRouter:
    """Build `/` and `/static/{name}`.

    Parameters
    ----------
    groups : in any order; shown by weight, then name
    push_path, query_path : where to push and to query, shown on top, absolute paths with the server's prefix; None if
        not here
    """
    router = APIRouter()
    ordered = sorted(groups, key=lambda group: (group.weight, group.name))

    @router.get("/")
    def index() -> Response:
        return render_page("index.html", groups=ordered, push_path=push_path, query_path=query_path)

    @router.get("/static/{name}")
    def static(name: str) -> Response:
        content = static_file(name)
        if content is None:
            return PlainTextResponse("404 page not found\n", status_code=404)
        kind = mimetypes.guess_type(name)[0] or "application/octet-stream"
        return Response(content, media_type=kind, headers={"Cache-Control": "public, max-age=3600"})

    return router
