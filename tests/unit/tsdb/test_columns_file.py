"""The container of checkpoints and snapshots: round trip, and every kind of damage."""

from __future__ import annotations

import numpy as np
import pytest

from mimir_ingest.tsdb.columns_file import ColumnsFileCorrupt, decode_columns, decode_meta, encode_columns, header_size

COLUMNS = {
    "a": np.array([1, 2, 3], np.uint8),
    "b": np.array([-1, 5], np.int32),
    "c": np.array([1 << 62], np.int64),
    "d": np.array([(1 << 64) - 1], np.uint64),
    "e": np.array([0x7FF0000000000002], np.uint64).view(np.float64),
    "f": np.empty(0, np.int64),
}


def test_columns_come_back_bit_for_bit_and_aligned():
    file = decode_columns(encode_columns("k", 3, {"z": None, "a": [1, "ü"]}, COLUMNS), kind="k", versions=(3,))
    assert file.meta == {"a": [1, "ü"], "z": None}
    assert list(file.columns) == list(COLUMNS)
    for name, column in COLUMNS.items():
        assert file.columns[name].dtype == column.dtype
        assert file.columns[name].tobytes() == column.tobytes()


def test_every_truncation_and_every_flipped_bit_is_noticed_or_harmless():
    data = encode_columns("k", 3, {"a": 1}, COLUMNS)
    whole = {name: c.tobytes() for name, c in COLUMNS.items()}
    for size in range(len(data)):
        with pytest.raises(ColumnsFileCorrupt):
            decode_columns(data[:size], kind="k", versions=(3,))
    for bit in range(8 * len(data)):
        broken = bytearray(data)
        broken[bit // 8] ^= 1 << bit % 8
        try:
            file = decode_columns(bytes(broken), kind="k", versions=(3,))
        except ColumnsFileCorrupt:
            continue
        # Only padding is outside every checksum.
        assert {name: c.tobytes() for name, c in file.columns.items()} == whole


def test_another_kind_or_version_is_refused_by_name():
    data = encode_columns("k", 3, {}, {})
    for kind, version in (("other", 3), ("k", 4)):
        with pytest.raises(ColumnsFileCorrupt, match=f"k version 3 where {kind} {version} was expected"):
            decode_columns(data, kind=kind, versions=(version,))


def test_the_front_of_a_file_is_enough_for_its_meta():
    data = encode_columns("k", 3, {"z": None, "a": [1, "ü"]}, COLUMNS)
    size = header_size(data[:16])
    assert size < len(data)
    assert decode_meta(data[:size], kind="k", versions=(3,)) == {"a": [1, "ü"], "z": None}
    for short in (15, size - 1):
        with pytest.raises(ColumnsFileCorrupt):
            decode_meta(data[:short], kind="k", versions=(3,))
