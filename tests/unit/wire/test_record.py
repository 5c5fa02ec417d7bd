import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimir_ingest.wire.record import (
    VERSION_COLUMNAR,
    VERSION_V0,
    VERSION_V1,
    RecordSettings,
    decode,
    encode_columnar,
    encode_mimir,
    split_for_size,
)
from tests.support.random_batches import BATCHES, batch_of, content

VERSIONS = [VERSION_COLUMNAR, VERSION_V0, VERSION_V1]


def encode(batch, version):
    return encode_columnar(batch, RecordSettings()) if version == VERSION_COLUMNAR else encode_mimir(batch, version)


@given(BATCHES, st.sampled_from(VERSIONS), st.integers(1, 2000))
def test_parts_keep_the_limit_and_the_order_and_lose_nothing(batch, version, max_bytes):
    parts = split_for_size(batch, version, max_bytes)
    series, metadata, source = content(batch)
    contents = [content(part) for part in parts]
    assert [row for found, _, _ in contents for row in found] == series
    assert [row for _, found, _ in contents for row in found] == metadata
    assert {found for _, _, found in contents} <= {source}
    with_series = [bool(found) for found, _, _ in contents]
    assert with_series == sorted(with_series, reverse=True)
    for part, (found, described, _) in zip(parts, contents, strict=True):
        assert bool(found) != bool(described)
        assert len(encode(part, version)) <= max_bytes or len(found) + len(described) == 1
        assert content(decode(version, encode(part, version)).batch) == content(part)


@given(BATCHES, st.sampled_from([VERSION_V0, VERSION_V1]), st.integers(30, 2000))
def test_a_part_of_mimirs_versions_is_as_large_as_it_can_be(batch, version, max_bytes):
    parts = [p for p in split_for_size(batch, version, max_bytes) if p.series_count]
    at = 0
    for part in parts[:-1]:
        at += part.series_count
        with_next = batch.take(np.arange(at - part.series_count, at + 1))
        assert len(encode(with_next, version)) > max_bytes - 16


@pytest.mark.parametrize("version", VERSIONS)
def test_an_oversize_item_is_alone_in_its_part(version):
    def row(size):
        return [(b"a", b"x" * size)], [(1, bytes(8))]

    batch = batch_of([row(10), row(9000), row(10), row(11)], [(1, b"a", b"h" * 9000, b""), (1, b"b", b"", b"")])
    parts = split_for_size(batch, version, 1000)
    assert [(p.series_count, len(p.metadata)) for p in parts] == [(1, 0), (1, 0), (2, 0), (0, 1), (0, 1)]


@pytest.mark.parametrize("version", VERSIONS)
def test_what_fits_stays_in_one_part_a_kind(version):
    batch = batch_of([([(b"a", b"b")], [])] * 3, [(1, b"a", b"", b"")] * 2)
    assert [(p.series_count, len(p.metadata)) for p in split_for_size(batch, version, 10_000)] == [(3, 0), (0, 2)]
    assert split_for_size(batch.empty(), version, 10_000) == []
