"""`POST /api/v1/push` as a bare ASGI application (spec: http api 4.1; ingest storage 8.1 to 8.4).

Everything that can be refused without the body is refused before it is read: tenant, content type, announced size,
limits of the process, the tenant's request rate. An answer says where the data is in `X-Read-Consistency-Offsets`.
"""

from __future__ import annotations

from dataclasses import replace

import structlog

from mimir_ingest.api.errors import (
    CLIENT_CLOSED_REQUEST,
    EMPTY_OK,
    Answer,
    Receive,
    RetryAfter,
    Scope,
    Send,
    error_answer,
    text_answer,
)
from mimir_ingest.api.tenant import TenantResolver
from mimir_ingest.distributor.service import Distributor, Push
from mimir_ingest.errors import IngestError, InvalidRequest
from mimir_ingest.wire.offsets_header import READ_CONSISTENCY_OFFSETS, encode_offsets

_MEDIA_TYPE = "application/x-protobuf"
_V1, _V2 = "prometheus.WriteRequest", "io.prometheus.write.v2.Request"
_log = structlog.get_logger()


class ClientGone(Exception):
    """The client closed the connection before its body was complete."""


def check_content_type(header: str) -> None:
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


async def read_body(receive: Receive, push: Push, *, announced: int | None) -> bytes:
    """Return the request's body; bytes that were not announced are counted as they come.

    Raises ClientGone, RequestTooLarge, LimitExceeded.
    """
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        chunk = message.get("body", b"")
        if chunk:
            size += len(chunk)
            push.written.check_size(size, compressed=True)
            if announced is None:
                push.add_bytes(len(chunk))
            chunks.append(chunk)
        if not message.get("more_body", False):
            return chunks[0] if len(chunks) == 1 else b"".join(chunks)


class PushApplication:
    """Answers push requests; routing and the method check are the caller's."""

    def __init__(
        self,
        distributor: Distributor,
        *,
        tenants: TenantResolver,
        retry_after: RetryAfter | None = None,
    ) -> None:
        self._distributor, self._tenants = distributor, tenants
        self._retry_after = retry_after or RetryAfter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request, whatever happens."""
        headers = dict(reversed(scope["headers"]))  # the first of repeated headers counts
        try:
            answer = await self._answer(scope, headers, receive)
        except ClientGone:
            answer = text_answer(CLIENT_CLOSED_REQUEST, "context canceled")
        except IngestError as error:
            answer = error_answer(error)
            if error.http_status >= 500:
                _log.warning("push failed", status=error.http_status, id=error.error_id, err=error.message)
        except Exception as error:
            _log.exception("push failed", status=500, err=str(error))
            answer = text_answer(500, "internal error")
        if answer.status == 200:
            await answer.send(send)
        else:
            hints = self._retry_after.headers(answer.status, headers.get(b"retry-attempt"))
            await answer.send(send, more_headers=hints)

    async def _answer(self, scope: Scope, headers: dict[bytes, bytes], receive: Receive) -> Answer:
        tenant = self._tenants.single(scope["headers"])
        content_type = headers.get(b"content-type")
        if content_type:
            check_content_type(content_type.decode("latin-1"))
        length = headers.get(b"content-length")
        announced = int(length) if length and length.isdigit() else None
        with self._distributor.admit(tenant, announced) as push:
            body = await read_body(receive, push, announced=announced)
            result = await push.run(
                body,
                skip_label_names=headers.get(b"x-mimir-skiplabelnamevalidation") == b"true",
                skip_label_count=headers.get(b"x-mimir-skiplabelcountvalidation") == b"true",
            )
        return _with_offsets(EMPTY_OK if result.error is None else error_answer(result.error), result.offsets)


def _with_offsets(answer: Answer, offsets: dict[int, int]) -> Answer:
    """Tell the sender where its data is, so that a query can wait for exactly that; nothing stored, nothing told."""
    if not offsets:
        return answer
    header = (READ_CONSISTENCY_OFFSETS.lower().encode(), encode_offsets(offsets).encode())
    return replace(answer, headers=(*answer.headers, header))
