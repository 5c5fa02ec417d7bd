"""A columnar record whose series were damaged is refused, never taken for other series."""

import struct

import pytest

from mimir_ingest.errors import RecordCorrupt, RecordVersionUnsupported
from mimir_ingest.wire.columnar import HASHES, LABEL_OFFSETS, LABELS
from mimir_ingest.wire.record import VERSION_COLUMNAR, RecordSettings, decode, encode_columnar
from tests.support.batches import write_batch

ROWS = [({"__name__": "up", "job": f"job-{i}", "instance": "localhost:9090"}, [(1, 1.0), (2, 2.0)]) for i in range(3)]
VALUE = encode_columnar(write_batch(ROWS), RecordSettings(10, 20, 30))


def section(kind):
    """Return (start, size) of a section, read from the table without our code."""
    count = struct.unpack_from("<I", VALUE, 4)[0]
    table = [struct.unpack_from("<IIQQ", VALUE, 32 + 24 * i) for i in range(count)]
    return next((start, size) for found, _, start, size in table if found == kind)


@pytest.mark.parametrize("kind", [LABELS, LABEL_OFFSETS, HASHES])
def test_any_flipped_bit_of_labels_or_hashes_is_refused(kind):
    start, size = section(kind)
    for at in range(start, start + size):
        for bit in range(8):
            damaged = VALUE[:at] + bytes([VALUE[at] ^ 1 << bit]) + VALUE[at + 1 :]
            with pytest.raises(RecordCorrupt):
                decode(VERSION_COLUMNAR, damaged)


def test_any_truncation_is_refused():
    for end in range(len(VALUE)):
        with pytest.raises((RecordCorrupt, RecordVersionUnsupported)):
            decode(VERSION_COLUMNAR, VALUE[:end])


def test_a_damaged_hash_is_named():
    start, _ = section(HASHES)
    damaged = VALUE[: start + 8] + bytes([VALUE[start + 8] ^ 1]) + VALUE[start + 9 :]
    with pytest.raises(RecordCorrupt, match="series 1 at byte 46 of its labels has another hash than it says"):
        decode(VERSION_COLUMNAR, damaged)
