"""Plain-Python decoder of write requests with a symbol table (remote write 2.0, record version 2)."""

from __future__ import annotations

from tests.reference.remote_write import _BYTES, _DOUBLE, _VARINT, Request, _check, _typed
from tests.reference.varint import Refused, fields, put, signed, uvarint


def _each_ref(wire_type: int, read, symbols: dict[int, bytes], refusal: str):
    """Give the symbols one by one: a bad reference in front of a cut-off one is refused first."""
    if wire_type == _VARINT:
        packed = put(read()[0])
    else:
        packed = _typed(wire_type, _BYTES, "LabelsRefs", read)
    at = 0
    while at < len(packed):
        ref, at = uvarint(packed, at)
        if ref % 2**32 not in symbols:
            raise Refused(f"proto: Remote Write 2.0 {refusal}")
        yield symbols[ref % 2**32]


def _exemplar(data: bytes, symbols: dict[int, bytes]) -> None:
    strings = 0
    for number, wire_type, read in fields(data, "ExemplarRW2"):
        if number == 1:
            strings += len(list(_each_ref(wire_type, read, symbols, "invalid exemplar label reference")))
        elif number in (2, 3):
            _typed(wire_type, *{2: (_DOUBLE, "Value"), 3: (_VARINT, "Timestamp")}[number], read)
    if strings % 2:
        raise Refused("proto: Remote Write 2.0 odd number of exemplar label references")


def _metadata(data: bytes, symbols: dict[int, bytes], item: dict[int, object]) -> None:
    for number, wire_type, read in fields(data, "MetadataRW2"):
        if number == 1:
            kind = _typed(wire_type, _VARINT, "Type", read)
            item[1] = kind if kind < 8 else 0
        elif number in (3, 4):
            ref = _typed(wire_type, _VARINT, {3: "HelpRef", 4: "UnitRef"}[number], read) % 2**32
            if ref not in symbols:
                raise Refused(f"proto: Remote Write 2.0 invalid {'help' if number == 3 else 'unit'} reference")
            item[number] = symbols[ref]


def _sample(data: bytes) -> tuple[int, bytes, int]:
    value, timestamp, start = bytes(8), 0, 0
    for number, wire_type, read in fields(data, "Sample"):
        if number == 1:
            value = _typed(wire_type, _DOUBLE, "Value", read)
        elif number == 2:
            timestamp = signed(_typed(wire_type, _VARINT, "TimestampMs", read), 64)
        elif number == 3 and wire_type == _VARINT:
            start = signed(read()[0], 64)
    return timestamp, value, start


def _series(data: bytes, symbols: dict[int, bytes], request: Request) -> None:
    strings, samples, item, created = [], [], {1: 0, 3: b"", 4: b""}, 0
    for number, wire_type, read in fields(data, "TimeSeriesRW2"):
        if number == 1:
            strings.extend(_each_ref(wire_type, read, symbols, "invalid label reference"))
        elif number == 2:
            samples.append(_sample(_typed(wire_type, _BYTES, "Samples", read)))
        elif number == 3:
            _check(_typed(wire_type, _BYTES, "Histograms", read), "Histogram")
            request.histograms += 1
        elif number == 4:
            _exemplar(_typed(wire_type, _BYTES, "Exemplars", read), symbols)
            request.exemplars += 1
        elif number == 5:
            _metadata(_typed(wire_type, _BYTES, "Metadata", read), symbols, item)
        elif number == 6:
            created = signed(_typed(wire_type, _VARINT, "CreatedTimestamp", read), 64) or created
    if len(strings) % 2:
        raise Refused("proto: Remote Write 2.0 odd number of label references")
    pairs = [(name, value) for name, value in zip(strings[::2], strings[1::2], strict=True) if value]
    families = [value for name, value in pairs if name == b"__name__"]
    if families and (item[1] or item[3] or item[4]):
        request.metadata.append((item[1], families[0], item[3], item[4]))
    pairs.sort(key=lambda pair: pair[0])
    key = b"".join(put(len(part)) + part for pair in pairs for part in pair)
    request.series.append((key, [(timestamp, value) for timestamp, value, _ in samples]))
    request.starts.append([start or created for _, _, start in samples])


def decode(body: bytes, known: dict[int, bytes], own_from: int) -> Request:
    """Decode; `known` are the shared symbols by reference, `own_from` is the reference of the request's first one."""
    request, series, symbols, refused = Request(), [], dict(known), None
    own = 0
    try:
        for number, wire_type, read in fields(body, "WriteRequest"):
            if number in (1, 3):
                name = "Timeseries" if number == 1 else "Metadata"
                raise Refused(f"proto: Remote Write 1.0 field {name} in non-Remote Write 1.0 message")
            if number == 2:
                value = signed(_typed(wire_type, _VARINT, "Source", read), 32)
                request.source = value if value in (0, 1, 2) else 0
            elif number == 4:
                symbol = _typed(wire_type, _BYTES, "SymbolsRW2", read)
                if not own and symbol:
                    raise Refused("proto: Remote Write 2.0 symbols must start with empty string")
                symbols[own_from + own] = symbol
                own += 1
            elif number == 5:
                series.append(_typed(wire_type, _BYTES, "TimeseriesRW2", read))
            elif number == 1000:
                request.skip_names = _typed(wire_type, _VARINT, "SkipLabelValidation", read) != 0
            elif number == 1001:
                request.skip_count = _typed(wire_type, _VARINT, "SkipLabelCountValidation", read) != 0
    except Refused as error:
        refused = error
    for one in series:
        _series(one, symbols, request)
    if refused:
        raise refused
    request.metadata = list(dict.fromkeys(request.metadata))
    return request
