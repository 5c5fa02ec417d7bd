"""The edge of OTLP metrics (spec: http api 4.2; ingest storage 8.9).

Errors are `google.rpc.Status` in the request's encoding. A request of which a part cannot be stored is a partial
success with the number of refused data points, unlike in Mimir, which answers 400: exporters take that for the loss of
all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from mimir_ingest.api.errors import Answer, error_answer
from mimir_ingest.distributor.formats import OtlpMetrics, WriteFormat
from mimir_ingest.distributor.service import PushResult
from mimir_ingest.errors import IngestError, InvalidRequest, RequestTooLarge, TenantError
from mimir_ingest.wire.content_encoding import ENCODINGS
from mimir_ingest.wire.otlp_body import response_body, status_body
from mimir_ingest.wire.otlp_labels import OtlpSettings
from mimir_ingest.wire.otlp_names import STRATEGIES, strategy_of
from partitions.errors import PartitionError

_PROTOBUF, _JSON = "application/x-protobuf", "application/json"
_SUFFIXES_HEADER, _STRATEGY_HEADER = b"x-mimir-otlp-addsuffixes", b"x-mimir-otlp-translationstrategy"
_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})
_FALSE = frozenset({"0", "f", "F", "false", "FALSE", "False"})
"""A boolean as Go reads it."""
_RETRYABLE = (502, 503, 504)
"""5xx codes on which exporters send again."""

_CODES = {202: 6, 400: 3, 429: 8, 499: 1, 501: 12, 503: 14}
"""gRPC codes by the HTTP status that the error would have on remote write; any other is 13, Internal."""
_FAILED_PRECONDITION = 9
_INVALID_ARGUMENT = 3
_PRECONDITIONS = frozenset(
    {
        "err-mimir-tenant-too-many-ha-clusters",
        "err-mimir-max-series-per-user",
        "err-mimir-max-series-per-metric",
    }
)


class OtlpEdge:
    """Reads what OpenTelemetry's exporters send to `/otlp/v1/metrics`."""

    def __init__(
        self, *, max_bytes: int, settings_for: Callable[[str], OtlpSettings], translation_headers: bool = False
    ) -> None:
        """`settings_for` gives a tenant's translation; with `translation_headers` a request may change it."""
        self._max_bytes, self._settings_for = max_bytes, settings_for
        self._translation_headers = translation_headers

    def open(self, tenant: str, headers: Mapping[bytes, bytes], query: bytes) -> WriteFormat:
        """Return how to read the body.

        Raises InvalidRequest: 415 for an encoding or a type that is unknown, 400 for a translation that is.
        """
        encoding = headers.get(b"content-encoding", b"").decode("latin-1")
        if encoding and encoding not in ENCODINGS:
            raise InvalidRequest(
                f'unsupported compression: {encoding}. Only "gzip", "lz4", "zstd", or no compression supported',
                http_status=415,
            )
        content_type = headers.get(b"content-type", b"").decode("latin-1")
        if content_type not in (_PROTOBUF, _JSON):
            raise InvalidRequest(
                f"unsupported content type: {content_type}, supported: [{_JSON}, {_PROTOBUF}]", http_status=415
            )
        settings = self._settings_for(tenant)
        if self._translation_headers:
            settings = _as_asked(settings, headers)
        return OtlpMetrics(self._max_bytes, settings, encoding, content_type == _JSON)

    def stored(self, result: PushResult, written: WriteFormat, headers: Mapping[bytes, bytes]) -> Answer:
        """Return 200, with what was refused; 400 when all of it was."""
        points, json = result.data_points, _is_json(headers)
        texts = [error for error in (points and points.error, result.error and result.error.message) if error]
        if points is not None and texts and result.refused_points == points.received:
            code = 400 if result.error is None else _code(result.error, _INVALID_ARGUMENT)
            return _answer(400, status_body(code, "\n".join(texts), json=json), json=json)
        return _answer(200, response_body(result.refused_points, "\n".join(texts), json=json), json=json)

    def refused(
        self, error: IngestError | PartitionError, written: WriteFormat | None, headers: Mapping[bytes, bytes]
    ) -> Answer:
        """Return the error as a Status; what nobody could tell a tenant by is answered as text."""
        status = error.http_status
        if isinstance(error, TenantError) and status < 500:
            return error_answer(error)
        if isinstance(error, InvalidRequest | RequestTooLarge):
            code = status
        else:
            code = _code(error, _CODES.get(status, 13))
        if status >= 500 and status not in _RETRYABLE:
            status = 503
        json = _is_json(headers)
        return _answer(status, status_body(code, error.message, json=json), json=json)


def _as_asked(settings: OtlpSettings, headers: Mapping[bytes, bytes]) -> OtlpSettings:
    """Return a tenant's translation with the strategy that the request's headers ask for. Raises InvalidRequest."""
    strategy = headers.get(_STRATEGY_HEADER, b"").decode("latin-1")
    if strategy:
        if strategy not in STRATEGIES:
            raise InvalidRequest(f"unsupported OTLP translation strategy: {strategy}, supported: {list(STRATEGIES)}")
        return replace(settings, strategy=strategy)
    suffixes = headers.get(_SUFFIXES_HEADER, b"").decode("latin-1")
    if not suffixes:
        return settings
    if suffixes not in _TRUE | _FALSE:
        raise InvalidRequest(f"{_SUFFIXES_HEADER.decode()} is neither true nor false: {suffixes}")
    return replace(settings, strategy=strategy_of(STRATEGIES[settings.strategy][0], suffixes in _TRUE))


def _code(error: IngestError | PartitionError, otherwise: int) -> int:
    """Return the gRPC code of an error that is a tenant's limit; of any other, the one given."""
    return _FAILED_PRECONDITION if error.error_id in _PRECONDITIONS else otherwise


def _is_json(headers: Mapping[bytes, bytes]) -> bool:
    return headers.get(b"content-type") == _JSON.encode()


def _answer(status: int, body: bytes, *, json: bool) -> Answer:
    content_type = _JSON if json else _PROTOBUF
    return Answer(status, body, ((b"content-type", content_type.encode()), (b"x-content-type-options", b"nosniff")))
