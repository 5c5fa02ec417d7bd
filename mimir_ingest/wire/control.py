"""Control records (VERSION_CONTROL): what an owner or an operator says to every reader of a partition.

The value is a JSON object. `{"kind": "flush"}` cuts everything held, `{"kind": "flush", "tenants": [...]}` what some
tenants hold; `{"kind": "settings", "settings": {...}}` changes the partition's settings from there on.
Page: docs/format/record.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import orjson

from mimir_ingest.errors import RecordCorrupt, RecordVersionUnsupported


@dataclass(frozen=True, slots=True)
class Control:
    """One control record."""

    tenants: tuple[str, ...] | None = None
    """Tenants to flush, None for all; meaningless with `settings`."""
    settings: Mapping[str, int] | None = None
    """New settings of the partition, None for a flush."""


def encode_flush(tenants: Sequence[str] | None = None) -> bytes:
    """Return the value of a flush record."""
    names = {} if tenants is None else {"tenants": sorted(set(tenants))}
    return orjson.dumps({"kind": "flush", **names}, option=orjson.OPT_SORT_KEYS)


def encode_settings(settings: Mapping[str, int]) -> bytes:
    """Return the value of a record that changes settings."""
    return orjson.dumps({"kind": "settings", "settings": dict(settings)}, option=orjson.OPT_SORT_KEYS)


def decode_control(value: bytes) -> Control:
    """Return what a control record says. Raises RecordCorrupt, RecordVersionUnsupported (a kind of a later version)."""
    try:
        found = orjson.loads(value)
    except orjson.JSONDecodeError as error:
        raise RecordCorrupt(f"control record: {error}") from error
    if not isinstance(found, dict) or not isinstance(found.get("kind"), str):
        raise RecordCorrupt("control record: not an object with a kind")
    match found:
        case {"kind": "flush", **rest} if not set(rest) - {"tenants"}:
            tenants = rest.get("tenants")
            if tenants is None:
                return Control()
            if isinstance(tenants, list) and all(isinstance(t, str) for t in tenants):
                return Control(tenants=tuple(tenants))
        case {"kind": "settings", "settings": dict(settings)} if all(
            isinstance(v, int) and not isinstance(v, bool) for v in settings.values()
        ):
            return Control(settings=settings)
        case {"kind": "flush" | "settings"}:
            pass
        case {"kind": kind}:
            raise RecordVersionUnsupported(f"control record of kind {kind!r} is not known: update this program")
    raise RecordCorrupt(f"control record: {value[:200]!r} does not have the form of its kind")
