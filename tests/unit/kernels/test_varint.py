import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mimir_ingest.kernels._jit import inline_checked
from mimir_ingest.kernels.varint import WireStatus, read_uvarint, write_uvarint
from tests.reference import varint as reference


@inline_checked
def encode_uvarints(values, out):
    """Write uint64[n] as varints, back to back; return the bytes written."""
    at = 0
    for i in range(len(values)):
        at = write_uvarint(values[i], out, at)
    return at


@inline_checked
def decode_uvarints(data, out):
    """Read varints until `data` or `out` ends; return how many, or a negative WireStatus. Values are uint64 bits."""
    at = 0
    count = 0
    while at < len(data) and count < len(out):
        value, at = read_uvarint(data, at, len(data))
        if at < 0:
            return at
        out[count] = np.int64(value)
        count += 1
    return count


@given(st.lists(st.integers(0, 2**64 - 1), max_size=20))
def test_varints_round_trip_and_equal_the_definition(values):
    out = np.empty(10 * len(values), np.uint8)
    written = encode_uvarints(np.array(values, np.uint64), out)
    assert out[:written].tobytes() == b"".join(map(reference.put, values))
    back = np.empty(len(values), np.int64)
    assert decode_uvarints(out[:written], back) == len(values)
    assert back.view(np.uint64).tolist() == values


@given(st.binary(max_size=40))
def test_any_bytes_read_as_the_definition_reads_them(data):
    out = np.empty(len(data), np.int64)
    status = decode_uvarints(np.frombuffer(data, np.uint8), out)
    expected, at, refused = [], 0, ""
    try:
        while at < len(data):
            value, at = reference.uvarint(data, at)
            expected.append(value)
    except reference.Refused as error:
        refused = str(error)
    if refused:
        assert status == (WireStatus.CUT_OFF if refused == "unexpected EOF" else WireStatus.OVERFLOW)
    else:
        assert out[:status].view(np.uint64).tolist() == expected
