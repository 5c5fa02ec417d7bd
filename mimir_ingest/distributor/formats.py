"""The protocols that a push may speak: how large a body is, and how it becomes columns.

One object a protocol (or a request, where a tenant's settings matter); the distributor treats all of them alike.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from mimir_ingest.distributor.messages import with_instance_flag
from mimir_ingest.errors import RequestTooLarge
from mimir_ingest.wire import content_encoding, gzipped, influx, otlp, remote_write_v1, snappy, symbolized
from mimir_ingest.wire.metric_families import first_of_each_family
from mimir_ingest.wire.otlp_labels import OtlpSettings
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


@dataclass(frozen=True, slots=True)
class RemoteWriteV2:
    """Prometheus remote write 2.0: a snappy block around `io.prometheus.write.v2.Request`."""

    max_bytes: int
    handler: str = "push"
    version: str = "2.0"

    def check_size(self, size: int, *, compressed: bool) -> None:
        """Raise RequestTooLarge with Mimir's text."""
        snappy.check_size(size, max_bytes=self.max_bytes, compressed=compressed)

    def decoded_size(self, body: bytes) -> int:
        """Return the size that the snappy block declares. Raises InvalidRequest."""
        return snappy.decoded_length(body)

    def decode(self, body: bytes) -> DecodedWrite:
        """Return the request's columns; metadata by family. Raises InvalidRequest, RequestTooLarge."""
        decoded = symbolized.decode(snappy.decompress(body, max_bytes=self.max_bytes))
        families = first_of_each_family(decoded.batch.metadata)
        return replace(decoded, batch=replace(decoded.batch, metadata=families))


@dataclass(frozen=True, slots=True)
class InfluxLines:
    """One request of Influx line protocol, plain or gzipped."""

    max_bytes: int
    precision: str
    """Unit of timestamps: the parameter of the same name."""
    gzip: bool
    now_ms: int
    """Time of points without one."""
    handler: str = "influx"
    version: str = "influx"

    def check_size(self, size: int, *, compressed: bool) -> None:
        """Raise RequestTooLarge."""
        if size > self.max_bytes:
            raise RequestTooLarge(
                f"the Influx request is larger than the allowed limit of {self.max_bytes} bytes; see "
                "-distributor.max-influx-request-size"
            )

    def decoded_size(self, body: bytes) -> int:
        """Return the size that the body announces."""
        return min(gzipped.announced_size(body), self.max_bytes) if self.gzip else len(body)

    def decode(self, body: bytes) -> DecodedWrite:
        """Return the points' columns. Raises InvalidRequest, RequestTooLarge."""
        if self.gzip:
            try:
                body = gzipped.decompress(body, max_bytes=self.max_bytes)
            except gzipped.TooLong:
                self.check_size(self.max_bytes + 1, compressed=False)
        return DecodedWrite(influx.decode(body, precision=self.precision, now_ms=self.now_ms), 0, 0, False, False)


@dataclass(frozen=True, slots=True)
class OtlpMetrics:
    """One `ExportMetricsServiceRequest` of a tenant."""

    max_bytes: int
    settings: OtlpSettings
    encoding: str
    """One of content_encoding.ENCODINGS, or empty."""
    json: bool
    handler: str = "otlp"
    version: str = "otlp"

    @property
    def content_type(self) -> str:
        """The body's media type."""
        return "application/json" if self.json else "application/x-protobuf"

    def check_size(self, size: int, *, compressed: bool) -> None:
        """Raise RequestTooLarge with Mimir's text, which calls every size uncompressed."""
        if size > self.max_bytes:
            raise self._too_large(f" of {size} bytes (uncompressed)")

    def _too_large(self, size: str) -> RequestTooLarge:
        error_id = "err-mimir-distributor-max-otlp-request-size"
        text = with_instance_flag(
            f"the incoming OTLP request has been rejected because its message size{size} is larger than the allowed "
            f"limit of {self.max_bytes} bytes",
            error_id,
            "distributor.max-otlp-request-size",
        )
        return RequestTooLarge(text, error_id=error_id, http_status=413)

    def decoded_size(self, body: bytes) -> int:
        """Return the size that the body announces, or an estimate."""
        return min(content_encoding.announced_size(body, self.encoding), self.max_bytes)

    def decode(self, body: bytes) -> DecodedWrite:
        """Return the request's columns. Raises InvalidRequest, RequestTooLarge."""
        try:
            body = content_encoding.decompress(body, self.encoding, max_bytes=self.max_bytes)
        except content_encoding.TooLong as error:
            raise self._too_large("") from error
        return otlp.decode(body, self.settings, json=self.json)
