"""The protocols that a push may speak: how large a body is, and how it becomes columns.

One object a protocol (or a request, where a tenant's settings matter); the distributor treats all of them alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from mimir_ingest.wire import remote_write_v1, snappy
from mimir_ingest.wire.remote_write_v1 import DecodedWrite


class WriteFormat(Protocol):
    """A protocol of the write path. Its methods are pure and may run on any thread."""

    handler: str
    """Label `handler` of the metrics of body sizes."""
    version: str
    """Label `version` of `cortex_distributor_requests_in_total`."""
    max_bytes: int
    """Largest body, compressed or not."""

    def check_size(self, size: int, *, compressed: bool) -> None:
        """Raise RequestTooLarge when a body of `size` bytes is over `max_bytes`, in the protocol's words."""
        ...

    def decoded_size(self, body: bytes) -> int:
        """Return the bytes that the body takes once decompressed, as far as it says. Raises InvalidRequest."""
        ...

    def decode(self, body: bytes) -> DecodedWrite:
        """Decompress and decode a body. Raises InvalidRequest, RequestTooLarge."""
        ...


@dataclass(frozen=True, slots=True)
class RemoteWriteV1:
    """Prometheus remote write 1.0: a snappy block around `prometheus.WriteRequest`."""

    max_bytes: int
    handler: str = "push"
    version: str = "1.0"

    def check_size(self, size: int, *, compressed: bool) -> None:
        """Raise RequestTooLarge with Mimir's text."""
        snappy.check_size(size, max_bytes=self.max_bytes, compressed=compressed)

    def decoded_size(self, body: bytes) -> int:
        """Return the size that the snappy block declares. Raises InvalidRequest."""
        return snappy.decoded_length(body)

    def decode(self, body: bytes) -> DecodedWrite:
        """Return the request's columns. Raises InvalidRequest, RequestTooLarge."""
        return remote_write_v1.decode(snappy.decompress(body, max_bytes=self.max_bytes))
