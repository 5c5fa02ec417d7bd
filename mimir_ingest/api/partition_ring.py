"""`/ingester/partition-ring`: partitions with their owners, and the forms that change and lock states.

Served by every process that watches the ring; no tenant. Source: http-api, section 7.2; ingest storage, section 4.7.
A change of state together with a lock is one edit here, both or neither.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response

from mimir_ingest.api.instance_ring import ZERO_TIME, Change, seconds_text
from mimir_ingest.api.pages import go_time, render_page, wants_json
from mimir_ingest.api.params import Params
from partitions.edits import change_state, change_state_and_lock, lock
from partitions.errors import ChangeRefused, PartitionError
from partitions.model import Entry, PartitionDesc, PartitionState, RingDesc
from partitions.ring import PartitionRing
from partitions.tokens import partition_tokens

PATH = "/ingester/partition-ring"
_STATES = {f"Partition{state.name.capitalize()}": state for state in PartitionState}
"""States by their names in the form, those of the protobuf enum."""
_OFFERED: Mapping[PartitionState, tuple[PartitionState, ...]] = MappingProxyType(
    {
        PartitionState.PENDING: (PartitionState.ACTIVE,),
        PartitionState.ACTIVE: (PartitionState.INACTIVE,),
        PartitionState.INACTIVE: (PartitionState.ACTIVE,),
    }
)
"""Changes that have a button."""
_TRUE = frozenset({"1", "t", "T", "TRUE", "true", "True"})
_FALSE = frozenset({"0", "f", "F", "FALSE", "false", "False"})
_RING = 1 << 32
_NUMBER = re.compile("[+-]?[0-9]{1,10}")


class BadForm(ValueError):
    """A field of the form that cannot be read; the text is the answer."""


def partition_ring_router(
    *, view: Callable[[], RingDesc], change: Change, now_ms: Callable[[], int], path: str = PATH
) -> APIRouter:
    """Build the page.

    Parameters
    ----------
    view : the newest view of the ring
    change : applies an edit
    now_ms : wall clock (ms since the Unix epoch)
    """
    router = APIRouter()

    @router.get(path)
    def show(request: Request) -> Response:
        desc = view()
        if wants_json(request):
            return JSONResponse({"partitions": [_json(desc, number) for number in _numbers(desc)]})
        show_tokens = Params.parse(request.scope["query_string"]).get("tokens") in _TRUE
        ownership = _ownership(desc)
        return render_page(
            "partition_ring.html",
            root="../" * (path.count("/") - 1),
            now=go_time(datetime.fromtimestamp(now_ms() / 1000, UTC)),
            partitions=[_row(desc, number, ownership.get(number, 0.0)) for number in _numbers(desc)],
            show_tokens=show_tokens,
        )

    @router.post(path)
    async def form(request: Request) -> Response:
        params = Params.parse(b"", await request.body())
        try:
            edit = _edit(params, now_ms())
            if edit is not None:
                await change(edit)
        except (BadForm, ChangeRefused) as error:
            return _text(400, str(error))
        except PartitionError as error:
            return _text(error.http_status, error.message)
        return Response(status_code=302, headers={"Location": "#"})

    return router


def _edit(params: Params, now_ms: int) -> Callable[[RingDesc], Iterable[Entry]] | None:
    """Return the edit that a form asks for; None for an action that is not known, as in Mimir."""
    match params.get("action"):
        case "change_state":
            partition, state = _partition(params), _state(params)
            return lambda desc: change_state(desc, partition, state, now_ms)
        case "change_state_and_lock":
            partition, state = _partition(params), _state(params)
            return lambda desc: change_state_and_lock(desc, partition, state, now_ms)
        case "state_change_lock":
            partition, locked = _partition(params), _locked(params)
            return lambda desc: lock(desc, partition, locked, now_ms)
    return None


def _partition(params: Params) -> int:
    text = params.get("partition_id")
    if not _NUMBER.fullmatch(text):
        raise BadForm(f"invalid partition ID: {text[:60]!r} is not a number")
    return int(text)


def _state(params: Params) -> PartitionState:
    text = params.get("partition_state")
    if text not in _STATES:
        raise BadForm(f"invalid partition state: {text[:60]!r}")
    return _STATES[text]


def _locked(params: Params) -> bool:
    text = params.get("locked")
    if text not in _TRUE | _FALSE:
        raise BadForm(f"invalid boolean value for the locked field: {text[:60]!r}")
    return text in _TRUE


def _numbers(desc: RingDesc) -> list[int]:
    return sorted({*desc.partitions, *desc.corrupted})


def _owners(desc: RingDesc, number: int) -> list[str]:
    return [owner.instance for owner in desc.owners_of(number)]


def _json(desc: RingDesc, number: int) -> dict[str, Any]:
    partition = desc.partitions.get(number)
    if partition is None:
        corrupted: dict[str, Any] = {"id": number, "corrupted": True, "state": 0, "state_timestamp": ZERO_TIME}
        return {**corrupted, "state_change_locked": False, "owner_ids": _owners(desc, number), "tokens": []}
    return {
        "id": number,
        "corrupted": False,
        "state": int(partition.state),
        "state_timestamp": seconds_text(partition.state_timestamp_ms),
        "state_change_locked": partition.locked,
        "owner_ids": _owners(desc, number),
        "tokens": partition_tokens(number).tolist(),
    }


def _row(desc: RingDesc, number: int, share: float) -> dict[str, Any]:
    partition = desc.partitions.get(number, PartitionDesc(number))
    return {
        "id": number,
        "corrupted": number not in desc.partitions,
        "state": partition.state.name.capitalize(),
        "locked": partition.locked,
        "updated": seconds_text(partition.state_timestamp_ms) if partition.state_timestamp_ms else "-",
        "owners": _owners(desc, number),
        "tokens": partition_tokens(number).tolist() if number in desc.partitions else [],
        "ownership": f"{100 * share:.3g}%",
        "changes": [
            {"state": f"Partition{state.name.capitalize()}", "text": state.name.capitalize()}
            for state in _OFFERED.get(partition.state, ())
        ],
    }


def _ownership(desc: RingDesc) -> dict[int, float]:
    """Return the share of all series that each ACTIVE partition gets, 0 to 1."""
    ring = PartitionRing.build(desc.states)
    return {number: keys / _RING for number, keys in ring.subring(ring.active_partitions).owned_keys.items()}


def _text(status: int, message: str) -> Response:
    return PlainTextResponse(f"{message}\n", status_code=status, headers={"X-Content-Type-Options": "nosniff"})
