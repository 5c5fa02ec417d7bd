"""One partition's part of a request to record values (spec: ingest storage 1.5)."""

from __future__ import annotations

from mimir_ingest.model.batch import WriteBatch
from mimir_ingest.wire import record
from mimir_ingest.wire.record import VERSION_COLUMNAR, RecordSettings


def encode_records(batch: WriteBatch, settings: RecordSettings, *, version: int, max_bytes: int) -> list[bytes]:
    """Return the values, in the order of the request, that together hold the batch.

    Parameters
    ----------
    version : int
        VERSION_COLUMNAR, or one of Mimir's.
    max_bytes : int
        Largest value; a single series or metadata item that is larger becomes a record of its own all the same.
    """
    value = _encode(batch, settings, version)
    if len(value) <= max_bytes:
        return [value]
    return [_encode(part, settings, version) for part in record.split_for_size(batch, version, max_bytes)]


def _encode(batch: WriteBatch, settings: RecordSettings, version: int) -> bytes:
    if version == VERSION_COLUMNAR:
        return record.encode_columnar(batch, settings)
    return record.encode_mimir(batch, version)
