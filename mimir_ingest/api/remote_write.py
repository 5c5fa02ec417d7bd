"""The edge of Prometheus remote write (spec: http api 4.1)."""

from __future__ import annotations

from collections.abc import Mapping

from mimir_ingest.api.errors import EMPTY_OK, Answer, error_answer
from mimir_ingest.distributor.formats import RemoteWriteV1, WriteFormat
from mimir_ingest.distributor.service import PushResult
from mimir_ingest.errors import IngestError, InvalidRequest
from partitions.errors import PartitionError

_MEDIA_TYPE = "application/x-protobuf"
_V1, _V2 = "prometheus.WriteRequest", "io.prometheus.write.v2.Request"


def _check_content_type(header: str) -> None:
    """Raise InvalidRequest unless a body of this content type is read as remote write 1.0.

    A type other than `application/x-protobuf` is read as 1.0, as in Mimir. Remote write 2.0 gets 415: senders then
    fall back to 1.0.
    """
    media_type, *parameters = header.strip().split(";")
    if media_type != _MEDIA_TYPE:
        return
    for parameter in parameters:
        pair = parameter.split("=")
        if len(pair) != 2:
            raise InvalidRequest(
                "as per https://www.rfc-editor.org/rfc/rfc9110#parameter expected parameters to be key-values, "
                f"got {parameter} in {header} content-type"
            )
        if pair[0] != "proto" or pair[1] == _V1:
            continue
        if pair[1] == _V2:
            raise InvalidRequest(
                f"remote write 2.0 ({_V2}) is not supported by this server; send remote write 1.0 ({_V1})",
                http_status=415,
            )
        raise InvalidRequest(f"got {header} content type; expected {_V1} or {_V2}")


class RemoteWriteEdge:
    """Reads what Prometheus sends to `/api/v1/push`; errors are text, success is empty."""

    def __init__(self, *, max_bytes: int) -> None:
        self._v1 = RemoteWriteV1(max_bytes)

    def open(self, tenant: str, headers: Mapping[bytes, bytes], query: bytes) -> WriteFormat:
        """Return the version that the content type names. Raises InvalidRequest."""
        content_type = headers.get(b"content-type")
        if content_type:
            _check_content_type(content_type.decode("latin-1"))
        return self._v1

    def stored(self, result: PushResult, written: WriteFormat, headers: Mapping[bytes, bytes]) -> Answer:
        """Return 200, or the first broken rule with its status."""
        return EMPTY_OK if result.error is None else error_answer(result.error)

    def refused(
        self, error: IngestError | PartitionError, written: WriteFormat | None, headers: Mapping[bytes, bytes]
    ) -> Answer:
        """Return the error's text."""
        return error_answer(error)
