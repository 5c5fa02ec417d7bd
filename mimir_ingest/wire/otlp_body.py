"""Bodies of OTLP/HTTP to and from messages; the protobuf library's errors end here."""

from __future__ import annotations

from typing import Any

import orjson
from google.protobuf import json_format
from google.protobuf.message import DecodeError
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)

from mimir_ingest.errors import InvalidRequest


def parse_protobuf(body: bytes) -> ExportMetricsServiceRequest:
    """Return the request. Raises InvalidRequest."""
    try:
        return ExportMetricsServiceRequest.FromString(body)
    except DecodeError as error:
        raise InvalidRequest(f"the body is no ExportMetricsServiceRequest: {error}") from error


def response_body(rejected: int, message: str, *, json: bool) -> bytes:
    """Return an `ExportMetricsServiceResponse`: empty when all was taken, else a partial success."""
    response = ExportMetricsServiceResponse()
    if rejected or message:
        response.partial_success.rejected_data_points = rejected
        response.partial_success.error_message = message
    return _written(response, json=json)


def status_body(code: int, message: str, *, json: bool) -> bytes:
    """Return a `google.rpc.Status`."""
    # Lone surrogates, which stand for bytes that were no UTF-8, have no form in protobuf.
    message = message.encode("utf-8", "replace").decode()
    if json:
        return orjson.dumps({"code": code, "message": message})
    return Status(code=code, message=message).SerializeToString()


def _written(message: Any, *, json: bool) -> bytes:
    return orjson.dumps(json_format.MessageToDict(message)) if json else message.SerializeToString()
