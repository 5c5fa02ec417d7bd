"""The edge of Influx line protocol (spec: http api 4.3; ingest storage 8.10): 204, and errors without a body."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mimir_ingest.api.errors import Answer
from mimir_ingest.api.params import Params
from mimir_ingest.distributor.formats import InfluxLines, WriteFormat
from mimir_ingest.distributor.service import PushResult
from mimir_ingest.errors import IngestError, InvalidRequest
from mimir_ingest.wire.influx import PRECISIONS_NS
from partitions.errors import PartitionError


class InfluxEdge:
    """Reads what Influx clients send to `/api/v1/push/influx/write`."""

    def __init__(self, *, max_bytes: int, now_ms: Callable[[], int]) -> None:
        self._max_bytes, self._now_ms = max_bytes, now_ms

    def open(self, tenant: str, headers: Mapping[bytes, bytes], query: bytes) -> WriteFormat:
        """Return how to read the lines. Raises InvalidRequest for a precision or an encoding that is unknown."""
        precision = Params.parse(query, b"").get("precision")
        if precision not in PRECISIONS_NS:
            raise InvalidRequest(f"precision {precision!r} is unknown")
        encoding = headers.get(b"content-encoding", b"").decode("latin-1").strip().lower()
        if encoding not in ("", "identity", "gzip", "x-gzip"):
            raise InvalidRequest(f"content encoding {encoding!r} is unknown")
        return InfluxLines(self._max_bytes, precision, encoding.endswith("gzip"), self._now_ms())

    def stored(self, result: PushResult, written: WriteFormat, headers: Mapping[bytes, bytes]) -> Answer:
        """Return 204, or the status of the first broken rule."""
        return Answer(204 if result.error is None else result.error.http_status)

    def refused(
        self, error: IngestError | PartitionError, written: WriteFormat | None, headers: Mapping[bytes, bytes]
    ) -> Answer:
        """Return the error's status; what is not this service's own state can be sent again, so it is 503."""
        retry = error.http_status == 500 and error.error_id != "not-running"
        return Answer(503 if retry else error.http_status)
