import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mimir_ingest.wire.mimir_record import encode_mimir, item_sizes
from tests.reference import write_request as reference
from tests.support.random_batches import METADATA, SERIES, batch_of


@given(st.lists(SERIES, max_size=5), st.lists(METADATA, max_size=4), st.integers(0, 2), st.integers(0, 1))
def test_items_have_the_bytes_and_sizes_of_the_definition(series, metadata, source, version):
    batch = batch_of(series, metadata, source)
    items = [reference.series(labels, samples) for labels, samples in series]
    described = [reference.metadata(*row) for row in metadata]
    between = bytes([0x10, source]) if source else b""
    assert encode_mimir(batch, version) == b"".join(items) + between + b"".join(described)
    sizes = item_sizes(batch)
    assert [s.tolist() for s in sizes] == [[len(i) for i in items], [len(i) for i in described]]
    assert all(s.dtype == np.int64 for s in sizes)


def test_lengths_of_every_width_have_the_right_sizes():
    for size in (127, 128, 16_000, 16_383, 16_384, 2_097_152):
        series = ([(b"a", b"x" * size)], [])
        item = reference.series(*series)
        assert encode_mimir(batch_of([series]), 0) == item
        assert item_sizes(batch_of([series]))[0].tolist() == [len(item)]
