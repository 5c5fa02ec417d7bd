"""Tables of byte strings against a dict, with hashes that collide."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from mimir_ingest.kernels.byte_table import hash_spans
from mimir_ingest.model.byte_table import ByteTable
from tests.reference.byte_table import PlainTable

KEYS = st.lists(st.binary(max_size=20) | st.sampled_from([b"x" * 16, b"x" * 17, b"y" + b"x" * 15]), max_size=30)


def spans(keys: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    offsets = np.cumsum([0, *map(len, keys)], dtype=np.int64)
    return np.frombuffer(b"".join(keys), np.uint8), offsets


@settings(max_examples=200, deadline=None)
@given(batches=st.lists(KEYS, max_size=8), bits=st.sampled_from([0, 1, 33, 64]))
def test_a_table_numbers_like_a_dict_even_when_hashes_collide(batches, bits):
    table, plain = ByteTable(), PlainTable()
    mask = np.uint64((1 << bits) - 1)
    for keys in batches:
        text, offsets = spans(keys)
        hashes = np.empty(len(keys), np.uint64)
        hash_spans(text, offsets[:-1], offsets[1:], hashes)
        hashes &= mask
        numbers, unknown = table.find(text, offsets, hashes)
        assert numbers.tolist() == plain.find(keys)
        assert unknown == plain.find(keys).count(-1)
        assert table.intern(text, offsets[:-1], offsets[1:], hashes).tolist() == plain.intern(keys)
        stored = [bytes(table.text[a:b]) for a, b in zip(table.starts, table.starts[1 : table.count + 1], strict=False)]
        assert stored == list(plain.numbers)


@given(keys=KEYS)
def test_equal_strings_hash_equally_wherever_they_stand(keys):
    text, offsets = spans([b"abc", *keys])
    hashes, again = np.empty(len(keys), np.uint64), np.empty(len(keys), np.uint64)
    hash_spans(text, offsets[1:-1], offsets[2:], hashes)
    text, offsets = spans(keys)
    hash_spans(text, offsets[:-1], offsets[1:], again)
    assert hashes.tolist() == again.tolist()
    assert len(set(zip(keys, hashes.tolist(), strict=True))) == len(set(keys))
