"""Pushes of every protocol, as a bare ASGI application (spec: http api 4.1; ingest storage 8.1 to 8.4).

Everything that can be refused without the body is refused before it is read: tenant, content type, announced size,
limits of the process, the tenant's request rate. What a protocol reads and answers is its edge's part. An answer says
where the data is in `X-Read-Consistency-Offsets`.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

import structlog

from mimir_ingest.api.disconnect import ClientGone
from mimir_ingest.api.errors import CLIENT_CLOSED_REQUEST, Answer, Receive, RetryAfter, Scope, Send, text_answer
from mimir_ingest.api.tenant import TenantResolver
from mimir_ingest.distributor.formats import WriteFormat
from mimir_ingest.distributor.service import Distributor, Push, PushResult
from mimir_ingest.errors import IngestError
from mimir_ingest.wire.offsets_header import READ_CONSISTENCY_OFFSETS, encode_offsets
from partitions.errors import PartitionError

_log = structlog.get_logger()


class Edge(Protocol):
    """What differs from protocol to protocol. `headers` are lower-case; the first of repeated ones counts."""

    def open(self, tenant: str, headers: Mapping[bytes, bytes], query: bytes) -> WriteFormat:
        """Return how to read the body that these headers and query string announce. Raises InvalidRequest."""
        ...

    def stored(self, result: PushResult, written: WriteFormat, headers: Mapping[bytes, bytes]) -> Answer:
        """Return the answer when the log has what was valid."""
        ...

    def refused(
        self, error: IngestError | PartitionError, written: WriteFormat | None, headers: Mapping[bytes, bytes]
    ) -> Answer:
        """Return the answer to a request that was refused; `written` is None when it was not opened."""
        ...


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
    """Answers push requests of one protocol; routing and the method check are the caller's."""

    def __init__(
        self,
        distributor: Distributor,
        edge: Edge,
        *,
        tenants: TenantResolver,
        retry_after: RetryAfter | None = None,
    ) -> None:
        self._distributor, self._edge, self._tenants = distributor, edge, tenants
        self._retry_after = retry_after or RetryAfter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request, whatever happens."""
        headers = dict(reversed(scope["headers"]))  # the first of repeated headers counts
        started_s = time.monotonic()
        try:
            answer, delay_s = await self._answer(scope, headers, receive)
        except ClientGone:
            answer, delay_s = text_answer(CLIENT_CLOSED_REQUEST, "context canceled"), 0.0
        if delay_s > 0:
            answer = await _delayed(answer, started_s + delay_s * random.uniform(0.9, 1.1))
        if 200 <= answer.status < 300:
            await answer.send(send)
        else:
            hints = self._retry_after.headers(answer.status, headers.get(b"retry-attempt"))
            await answer.send(send, more_headers=hints)

    async def _answer(self, scope: Scope, headers: dict[bytes, bytes], receive: Receive) -> tuple[Answer, float]:
        """Return the answer, and the time (s) that the tenant's requests are to take."""
        written: WriteFormat | None = None
        delay_s = 0.0
        try:
            tenant = self._tenants.single(scope["headers"])
            written = self._edge.open(tenant, headers, scope.get("query_string", b""))
            length = headers.get(b"content-length")
            announced = int(length) if length and length.isdigit() else None
            with self._distributor.admit(tenant, announced, written) as push:
                delay_s = push.limits.ingestion_artificial_delay_s
                body = await read_body(receive, push, announced=announced)
                result = await push.run(
                    body,
                    skip_label_names=headers.get(b"x-mimir-skiplabelnamevalidation") == b"true",
                    skip_label_count=headers.get(b"x-mimir-skiplabelcountvalidation") == b"true",
                )
            return _with_offsets(self._edge.stored(result, written, headers), result.offsets), delay_s
        except ClientGone:
            raise
        except (IngestError, PartitionError) as error:
            if error.http_status >= 500:
                _log.warning("push failed", status=error.http_status, id=error.error_id, err=error.message)
            return self._edge.refused(error, written, headers), delay_s
        except Exception as error:
            _log.exception("push failed", status=500, err=str(error))
            return self._edge.refused(IngestError("internal error"), written, headers), delay_s


async def _delayed(answer: Answer, until_s: float) -> Answer:
    """Wait until a time (monotonic s); an answer of success says how long that was (spec: ingest storage 8.2)."""
    waits_s = max(until_s - time.monotonic(), 0.0)
    await asyncio.sleep(waits_s)
    if not 200 <= answer.status < 300:
        return answer
    header = (b"server-timing", b"artificial_delay;dur=%d" % round(1000 * waits_s))
    return replace(answer, headers=(*answer.headers, header))


def _with_offsets(answer: Answer, offsets: dict[int, int]) -> Answer:
    """Tell the sender where its data is, so that a query can wait for exactly that; nothing stored, nothing told."""
    if not offsets:
        return answer
    header = (READ_CONSISTENCY_OFFSETS.lower().encode(), encode_offsets(offsets).encode())
    return replace(answer, headers=(*answer.headers, header))
