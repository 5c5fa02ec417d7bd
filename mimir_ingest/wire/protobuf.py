"""Texts for protobuf that does not decode: the messages of Mimir's generated decoders, which clients see.

Source: spec http-api 15, "Write: request"; gogo/protobuf.
"""

from __future__ import annotations

import numpy as np

from mimir_ingest.kernels import protobuf as schema
from mimir_ingest.kernels.varint import WireStatus

_NAMES: dict[int, tuple[str, dict[int, str]]] = {
    schema.WRITE_REQUEST: (
        "WriteRequest",
        {
            1: "Timeseries",
            2: "Source",
            3: "Metadata",
            4: "SymbolsRW2",
            5: "TimeseriesRW2",
            1000: "SkipLabelValidation",
            1001: "SkipLabelCountValidation",
        },
    ),
    schema.TIME_SERIES: (
        "TimeSeries",
        {1: "Labels", 2: "Samples", 3: "Exemplars", 4: "Histograms", 6: "CreatedTimestamp"},
    ),
    schema.LABEL_PAIR: ("LabelPair", {1: "Name", 2: "Value"}),
    schema.SAMPLE: ("Sample", {1: "Value", 2: "TimestampMs"}),
    schema.EXEMPLAR: ("Exemplar", {1: "Labels", 2: "Value", 3: "TimestampMs"}),
    schema.HISTOGRAM: (
        "Histogram",
        {
            1: "CountInt",
            2: "CountFloat",
            3: "Sum",
            4: "Schema",
            5: "ZeroThreshold",
            6: "ZeroCountInt",
            7: "ZeroCountFloat",
            8: "NegativeSpans",
            9: "NegativeDeltas",
            10: "NegativeCounts",
            11: "PositiveSpans",
            12: "PositiveDeltas",
            13: "PositiveCounts",
            14: "ResetHint",
            15: "Timestamp",
            16: "CustomValues",
        },
    ),
    schema.BUCKET_SPAN: ("BucketSpan", {1: "Offset", 2: "Length"}),
    schema.METRIC_METADATA: ("MetricMetadata", {1: "Type", 2: "MetricFamilyName", 4: "Help", 5: "Unit"}),
    schema.TIME_SERIES_RW2: (
        "TimeSeriesRW2",
        {1: "LabelsRefs", 2: "Samples", 3: "Histograms", 4: "Exemplars", 5: "Metadata", 6: "CreatedTimestamp"},
    ),
    schema.EXEMPLAR_RW2: ("ExemplarRW2", {1: "LabelsRefs", 2: "Value", 3: "Timestamp"}),
    schema.METADATA_RW2: ("MetadataRW2", {1: "Type", 3: "HelpRef", 4: "UnitRef"}),
}

_FIXED = {
    WireStatus.CUT_OFF: "unexpected EOF",
    WireStatus.OVERFLOW: "proto: integer overflow",
    WireStatus.NEGATIVE_LENGTH: "proto: negative length found during unmarshaling",
    WireStatus.RW2_SYMBOLS: "proto: Remote Write 2.0 field Symbols in non-Remote Write 2.0 message",
    WireStatus.RW2_TIMESERIES: "proto: Remote Write 2.0 field Timeseries in non-Remote Write 2.0 message",
    WireStatus.RW1_TIMESERIES: "proto: Remote Write 1.0 field Timeseries in non-Remote Write 1.0 message",
    WireStatus.RW1_METADATA: "proto: Remote Write 1.0 field Metadata in non-Remote Write 1.0 message",
    WireStatus.RW2_BAD_SYMBOLS: "proto: Remote Write 2.0 symbols must start with empty string",
    WireStatus.RW2_ODD_LABELS: "proto: Remote Write 2.0 odd number of label references",
    WireStatus.RW2_ODD_EXEMPLAR_LABELS: "proto: Remote Write 2.0 odd number of exemplar label references",
    WireStatus.RW2_BAD_LABEL: "proto: Remote Write 2.0 invalid label reference",
    WireStatus.RW2_BAD_EXEMPLAR_LABEL: "proto: Remote Write 2.0 invalid exemplar label reference",
    WireStatus.RW2_BAD_HELP: "proto: Remote Write 2.0 invalid help reference",
    WireStatus.RW2_BAD_UNIT: "proto: Remote Write 2.0 invalid unit reference",
}


def describe(status: int, error: np.ndarray) -> str:
    """Return the text for a negative WireStatus and the int64[4] that a kernel filled with it."""
    status = WireStatus(status)
    if status in _FIXED:
        return _FIXED[status]
    message, field, detail = (int(n) for n in error[:3])
    name, fields = _NAMES[message]
    if status is WireStatus.WRONG_WIRE_TYPE:
        return f"proto: wrong wireType = {detail} for field {fields[field]}"
    if status is WireStatus.ILLEGAL_TAG:
        return f"proto: {name}: illegal tag {field} (wire type {detail % 2**64})"
    if status is WireStatus.END_GROUP:
        return f"proto: {name}: wiretype end group for non-group"
    return f"proto: illegal wireType {detail}"
