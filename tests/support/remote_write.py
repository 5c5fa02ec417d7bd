"""Remote write bodies made by the protobuf library from the published schema, not by our encoder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import cramjam
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_F = descriptor_pb2.FieldDescriptorProto


def _message(file, name, fields):
    message = file.message_type.add(name=name)
    for number, field, kind, label, type_name in fields:
        message.field.add(number=number, name=field, type=kind, label=label, type_name=type_name)


def _build():
    file = descriptor_pb2.FileDescriptorProto(name="test_remote_write.proto", package="test", syntax="proto3")
    one, many = _F.LABEL_OPTIONAL, _F.LABEL_REPEATED
    _message(file, "Label", [(1, "name", _F.TYPE_STRING, one, None), (2, "value", _F.TYPE_STRING, one, None)])
    _message(file, "Sample", [(1, "value", _F.TYPE_DOUBLE, one, None), (2, "timestamp", _F.TYPE_INT64, one, None)])
    _message(
        file,
        "TimeSeries",
        [
            (1, "labels", _F.TYPE_MESSAGE, many, ".test.Label"),
            (2, "samples", _F.TYPE_MESSAGE, many, ".test.Sample"),
        ],
    )
    _message(
        file,
        "MetricMetadata",
        [
            (1, "type", _F.TYPE_INT32, one, None),
            (2, "metric_family_name", _F.TYPE_STRING, one, None),
            (4, "help", _F.TYPE_STRING, one, None),
            (5, "unit", _F.TYPE_STRING, one, None),
        ],
    )
    _message(
        file,
        "WriteRequest",
        [
            (1, "timeseries", _F.TYPE_MESSAGE, many, ".test.TimeSeries"),
            (3, "metadata", _F.TYPE_MESSAGE, many, ".test.MetricMetadata"),
        ],
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("test.WriteRequest"))


WriteRequest = _build()


def encode(
    series: Iterable[tuple[Mapping[str, str], Iterable[tuple[int, float]]]],
    metadata: Iterable[tuple[int, str, str, str]] = (),
) -> bytes:
    """Return an uncompressed body of series (labels, [(ms, value)]) and metadata (type, family, help, unit)."""
    request = WriteRequest()
    for labels, samples in series:
        row = request.timeseries.add()
        for name, value in sorted(labels.items()):
            row.labels.add(name=name, value=value)
        for timestamp, value in samples:
            row.samples.add(timestamp=timestamp, value=value)
    for kind, family, text, unit in metadata:
        request.metadata.add(type=kind, metric_family_name=family, help=text, unit=unit)
    return request.SerializeToString()


def body(series, metadata=()) -> bytes:
    """Return a compressed body, as a sender posts it."""
    return bytes(cramjam.snappy.compress_raw(encode(series, metadata)))
