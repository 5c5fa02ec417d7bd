"""The edge of Prometheus remote write (spec: http api 4.1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from mimir_ingest.api.errors import EMPTY_OK, Answer, error_answer
from mimir_ingest.distributor.formats import RemoteWriteV1, RemoteWriteV2, WriteFormat
from mimir_ingest.distributor.service import PushResult
from mimir_ingest.errors import IngestError, InvalidRequest, ReplicasDidNotMatch
from partitions.errors import PartitionError

_MEDIA_TYPE = "application/x-protobuf"
_V1, _V2 = "prometheus.WriteRequest", "io.prometheus.write.v2.Request"
_WRITTEN = tuple(b"x-prometheus-remote-write-%s-written" % kind for kind in (b"samples", b"histograms", b"exemplars"))


def _version(header: str) -> str:
    """Return the message that a content type names; without one it is remote write 1.0's.

    Raises InvalidRequest: 415 for another media type or message, so that senders fall back to what is understood; 400
    for a parameter that is none.
    """
    media_type, *parameters = header.split(";")
    if media_type.strip().lower() != _MEDIA_TYPE:
        raise InvalidRequest(f"got {header} content type; expected {_MEDIA_TYPE}", http_status=415)
    found = _V1
    for parameter in parameters:
        name, equals, value = parameter.strip().partition("=")
        if not equals or "=" in value:
            raise InvalidRequest(
                "as per https://www.rfc-editor.org/rfc/rfc9110#parameter expected parameters to be key-values, "
                f"got {parameter} in {header} content-type"
            )
        if name == "proto":
            found = value
    if found not in (_V1, _V2):
        raise InvalidRequest(f"got {header} content type; expected {_V1} or {_V2}", http_status=415)
    return found


class RemoteWriteEdge:
    """Reads what Prometheus sends to `/api/v1/push`; errors are text, success is empty.

    Every answer to 2.0 says how much was written. What was dropped on purpose counts as written: Prometheus takes three
    zeros for a failed send.
    """

    def __init__(self, *, max_bytes: int) -> None:
        self._formats: dict[str, WriteFormat] = {_V1: RemoteWriteV1(max_bytes), _V2: RemoteWriteV2(max_bytes)}

    def open(self, tenant: str, headers: Mapping[bytes, bytes], query: bytes) -> WriteFormat:
        """Return the version that the content type names. Raises InvalidRequest."""
        content_type = headers.get(b"content-type", b"").strip()
        return self._formats[_version(content_type.decode("latin-1")) if content_type else _V1]

    def stored(self, result: PushResult, written: WriteFormat, headers: Mapping[bytes, bytes]) -> Answer:
        """Return 200, or the first broken rule with its status."""
        answer = EMPTY_OK if result.error is None else error_answer(result.error)
        return _with_counts(answer, written, result.written)

    def refused(
        self, error: IngestError | PartitionError, written: WriteFormat | None, headers: Mapping[bytes, bytes]
    ) -> Answer:
        """Return the error's text."""
        encoding = headers.get(b"content-encoding", b"").strip().lower()
        if isinstance(error, InvalidRequest) and written is not None and encoding not in (b"", b"snappy"):
            # Mimir reads snappy whatever this header says. A body that cannot be read so is what the header says.
            text = f"got {encoding.decode('latin-1')} content encoding; expected snappy"
            error = InvalidRequest(text, http_status=415)
        answer = error_answer(error)
        counts = error.dropped if isinstance(error, ReplicasDidNotMatch) else (0, 0, 0)
        return answer if written is None else _with_counts(answer, written, counts)


def _with_counts(answer: Answer, written: WriteFormat, counts: tuple[int, int, int]) -> Answer:
    if not isinstance(written, RemoteWriteV2):
        return answer
    more = tuple((name, b"%d" % count) for name, count in zip(_WRITTEN, counts, strict=True))
    return replace(answer, headers=(*answer.headers, *more))
