import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mimir_ingest.model.batch import MetadataColumns
from tests.reference.gather import gather
from tests.support.random_batches import BATCHES, content


def index_of(count):
    return st.lists(st.integers(0, count - 1), max_size=8) if count else st.just([])


@given(BATCHES, st.data())
def test_take_gives_the_chosen_series_in_the_order_asked_for(batch, data):
    index = data.draw(index_of(batch.series_count))
    taken = batch.take(np.array(index, np.int64))
    series, _, source = content(batch)
    assert content(taken) == ([series[i] for i in index], [], source)
    labels = gather(batch.labels.tobytes(), batch.label_offsets.tolist(), index)
    assert taken.labels.tobytes() == bytes(labels)
    assert taken.timestamps.tolist() == gather(batch.timestamps.tolist(), batch.sample_offsets.tolist(), index)


@given(BATCHES, st.data())
def test_metadata_take_gives_the_chosen_items(batch, data):
    index = data.draw(index_of(len(batch.metadata)))
    taken = batch.metadata.take(np.array(index, np.int64))
    assert content(batch.empty(taken))[1] == [content(batch)[1][i] for i in index]


def test_nothing_can_be_taken_from_nothing():
    assert len(MetadataColumns.empty().take(np.empty(0, np.int64))) == 0
