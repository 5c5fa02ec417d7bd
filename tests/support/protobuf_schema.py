"""The published protobuf schemas, built at run time for the protobuf library: the oracle of our kernels.

Two families, as on the wire: Prometheus's (`prometheus.*`) and the records of Mimir (`cortexpb.*`, spec
ingest-storage 1.2). Label names and values are `bytes`, so that invalid UTF-8 can be sent.
"""

from __future__ import annotations

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_F = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    "double": _F.TYPE_DOUBLE,
    "int64": _F.TYPE_INT64,
    "uint64": _F.TYPE_UINT64,
    "int32": _F.TYPE_INT32,
    "uint32": _F.TYPE_UINT32,
    "sint32": _F.TYPE_SINT32,
    "sint64": _F.TYPE_SINT64,
    "bool": _F.TYPE_BOOL,
    "bytes": _F.TYPE_BYTES,
    "string": _F.TYPE_STRING,
}

_SCHEMA = """
message Label: bytes name = 1; bytes value = 2
message Sample: double value = 1; int64 timestamp = 2; int64 start_timestamp = 3
message Exemplar: repeated Label labels = 1; double value = 2; int64 timestamp = 3
message BucketSpan: sint32 offset = 1; uint32 length = 2
message Histogram: optional uint64 count_int = 1; optional double count_float = 2; double sum = 3; sint32 schema = 4;
  double zero_threshold = 5; optional uint64 zero_count_int = 6; optional double zero_count_float = 7;
  repeated BucketSpan negative_spans = 8; repeated sint64 negative_deltas = 9; repeated double negative_counts = 10;
  repeated BucketSpan positive_spans = 11; repeated sint64 positive_deltas = 12; repeated double positive_counts = 13;
  int32 reset_hint = 14; int64 timestamp = 15; repeated double custom_values = 16;
  int64 start_timestamp = 17
message TimeSeries: repeated Label labels = 1; repeated Sample samples = 2; repeated Exemplar exemplars = 3;
  repeated Histogram histograms = 4; int64 created_timestamp = 6
message MetricMetadata: int32 type = 1; bytes metric_family_name = 2; bytes help = 4; bytes unit = 5
message ExemplarRW2: repeated uint32 labels_refs = 1; double value = 2; int64 timestamp = 3
message MetadataRW2: int32 type = 1; uint32 help_ref = 3; uint32 unit_ref = 4
message TimeSeriesRW2: repeated uint32 labels_refs = 1; repeated Sample samples = 2; repeated Histogram histograms = 3;
  repeated ExemplarRW2 exemplars = 4; MetadataRW2 metadata = 5; int64 created_timestamp = 6
message WriteRequest: repeated TimeSeries timeseries = 1; int32 source = 2; repeated MetricMetadata metadata = 3;
  repeated bytes symbols = 4; repeated TimeSeriesRW2 timeseries_rw2 = 5;
  bool skip_label_validation = 1000; bool skip_label_count_validation = 1001
message LabelMatcher: int32 type = 1; bytes name = 2; bytes value = 3
message ReadHints: int64 step_ms = 1; string func = 2; int64 start_ms = 3; int64 end_ms = 4;
  repeated string grouping = 5; bool by = 6; int64 range_ms = 7
message Query: int64 start_timestamp_ms = 1; int64 end_timestamp_ms = 2; repeated LabelMatcher matchers = 3;
  ReadHints hints = 4
message ReadRequest: repeated Query queries = 1; repeated int32 accepted_response_types = 2
message QueryResult: repeated TimeSeries timeseries = 1
message ReadResponse: repeated QueryResult results = 1
message Chunk: int64 min_time_ms = 1; int64 max_time_ms = 2; int32 type = 3; bytes data = 4
message ChunkedSeries: repeated Label labels = 1; repeated Chunk chunks = 2
message ChunkedReadResponse: repeated ChunkedSeries chunked_series = 1; int64 query_index = 2
message ValueType: int64 type = 1; int64 unit = 2
message ProfileSample: repeated uint64 location_id = 1; repeated int64 value = 2
message ProfileLine: uint64 function_id = 1; int64 line = 2
message Location: uint64 id = 1; uint64 mapping_id = 2; uint64 address = 3; repeated ProfileLine line = 4
message Function: uint64 id = 1; int64 name = 2; int64 system_name = 3; int64 filename = 4; int64 start_line = 5
message Profile: repeated ValueType sample_type = 1; repeated ProfileSample sample = 2; repeated Location location = 4;
  repeated Function function = 5; repeated string string_table = 6; int64 time_nanos = 9; int64 duration_nanos = 10;
  ValueType period_type = 11; int64 period = 12
"""


def _build() -> dict[str, type]:
    file = descriptor_pb2.FileDescriptorProto(name="test_schema.proto", package="schema", syntax="proto3")
    names = []
    for block in _SCHEMA.strip().split("message ")[1:]:
        name, _, fields = block.partition(":")
        names.append(name)
        message = file.message_type.add(name=name)
        for field in fields.split(";"):
            *modifier, kind, key, _, number = field.split()
            label = _F.LABEL_REPEATED if modifier == ["repeated"] else _F.LABEL_OPTIONAL
            if kind in _SCALARS:
                added = message.field.add(name=key, number=int(number), label=label, type=_SCALARS[kind])
                if modifier == ["optional"]:
                    added.proto3_optional, added.oneof_index = True, len(message.oneof_decl)
                    message.oneof_decl.add(name=f"_{key}")
            else:
                message.field.add(
                    name=key, number=int(number), label=label, type=_F.TYPE_MESSAGE, type_name=f".schema.{kind}"
                )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"schema.{name}")) for name in names}


_CLASSES = _build()
WriteRequest = _CLASSES["WriteRequest"]
ReadRequest = _CLASSES["ReadRequest"]
ReadResponse = _CLASSES["ReadResponse"]
ChunkedReadResponse = _CLASSES["ChunkedReadResponse"]
Profile = _CLASSES["Profile"]
