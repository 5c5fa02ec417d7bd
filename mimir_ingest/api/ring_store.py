"""`/memberlist`: what stands in the place of gossip (http-api, section 3.9).

Members are the instances of all rings, keys are the entries of the ring store as this process knows them, tombstones
included. There are no messages to record: a change is a record of the store.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from mimir_ingest.api.instance_ring import shown_state
from mimir_ingest.api.pages import go_time, render_page, wants_json
from mimir_ingest.api.params import Params
from partitions.codec import encode
from partitions.model import Entry, InstanceDesc, RingDesc

_CODECS = {"PartitionDesc": "partition", "OwnerDesc": "owner", "InstanceDesc": "instance", "ElectionDesc": "election"}
_MEMBER_STATES = {"UNHEALTHY": 2, "LEFT": 3}
"""Numbers of memberlist's states: 0 alive, 1 suspect, 2 dead, 3 left."""


def ring_store_router(
    *,
    store: str,
    view: Callable[[], RingDesc],
    heartbeat_timeout_ms: int,
    now_ms: Callable[[], int],
) -> APIRouter:
    """Build `/memberlist`.

    Parameters
    ----------
    store : where the ring is kept, in words, such as `Kafka topic ingest-ring`
    view : the newest view of the ring
    heartbeat_timeout_ms : silence after which a member is shown as dead
    now_ms : wall clock (ms since the Unix epoch)
    """
    router = APIRouter()

    @router.get("/memberlist")
    def show(request: Request) -> Response:
        params = Params.parse(request.scope["query_string"])
        desc = view()
        if key := params.get("viewKey"):
            return _view_key(desc, key, params.get("format"))
        if "viewMsg" in params.values:
            return _view_message(params.get("viewMsg"))
        if params.get("deleteMessages") == "true":
            return Response(status_code=302, headers={"Location": "?deleteMessages=false"})
        if key := params.get("downloadKey"):
            return _download(desc, key)
        now = now_ms()
        keys = [_key_row(entry) for _, entry in sorted(desc.entries.items())]
        members = [
            _member_row(member, now, heartbeat_timeout_ms)
            for _, member in sorted(desc.entries.items())
            if isinstance(member, InstanceDesc)
        ]
        page = {"store": store, "now": go_time(datetime.fromtimestamp(now / 1000, UTC)), "keys": keys}
        if wants_json(request):
            return JSONResponse({**page, "members": members})
        return render_page(
            "ring_store.html",
            **page,
            members=members,
            total_size=sum(row["size"] for row in keys),
            unhealthy=sum(row["state"] == _MEMBER_STATES["UNHEALTHY"] for row in members),
        )

    return router


def _key_row(entry: Entry) -> dict[str, Any]:
    return {
        "key": entry.key,
        "quoted": quote(entry.key, safe=""),
        "codec": _CODECS[type(entry).__name__],
        "size": len(encode(entry)),
        "version": _version(entry),
        "deleted": entry.deleted,
    }


def _version(entry: Entry) -> str:
    return f"{entry.version.ms}.{entry.version.counter}"


def _member_row(member: InstanceDesc, now_ms: int, heartbeat_timeout_ms: int) -> dict[str, Any]:
    shown = member.state.name if member.deleted else shown_state(member, now_ms, heartbeat_timeout_ms)
    return {
        "name": member.id,
        "address": member.address,
        "state": _MEMBER_STATES.get(shown, 0),
        "shown": shown,
        "zone": member.zone,
        "role": member.ring,
    }


def _view_key(desc: RingDesc, key: str, form: str) -> Response:
    entry = desc.entries.get(key)
    if entry is None:
        return _text(404, "value not found")
    match form:
        case "json":
            text = json.dumps(_plain(entry), separators=(",", ":"))
        case "struct":
            text = repr(entry)
        case "json-pretty" | "":
            text = json.dumps(_plain(entry), indent=4)
        case _:
            return _text(400, f"unsupported format: {form}")
    return PlainTextResponse(f"{text}\n")


def _plain(entry: Entry) -> dict[str, Any]:
    """The entry's fields, states by name, the key's parts included."""
    return {**asdict(entry), **json.loads(encode(entry))}


def _view_message(text: str) -> Response:
    if not text.lstrip("+-").isdecimal():
        return _text(400, f'strconv.Atoi: parsing "{text}": invalid syntax')
    return _text(404, "message not found")


def _download(desc: RingDesc, key: str) -> Response:
    entry = desc.entries.get(key)
    if entry is None:
        return _text(404, "value not found")
    name = f"{_version(entry)}-{key}".replace("/", "-").replace('"', "").encode("latin-1", "replace").decode("latin-1")
    return Response(
        encode(entry),
        media_type="application/octet-stream",
        headers={"Content-Disposition": f'attachment; filename="{name}"'},
    )


def _text(status: int, message: str) -> Response:
    return PlainTextResponse(f"{message}\n", status_code=status, headers={"X-Content-Type-Options": "nosniff"})
