import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimir_ingest.kernels.ha_labels import drop_label
from mimir_ingest.kernels.varint import WireStatus
from tests.reference.ha_labels import without
from tests.support.random_batches import BATCHES, NAMES, label_bytes


def dropped(labels, offsets, name):
    out, ends = np.empty(len(labels), np.uint8), np.empty(len(offsets), np.int64)
    size = drop_label(labels, offsets, np.frombuffer(name, np.uint8), out, ends)
    text = out[: max(size, 0)].tobytes()
    return [text[a:b] for a, b in itertools.pairwise(ends.tolist())] if size >= 0 else size


@given(BATCHES, NAMES, st.data())
def test_each_series_loses_the_first_label_of_the_name_and_keeps_all_others(batch, name, data):
    text, ends = batch.labels.tobytes(), batch.label_offsets.tolist()
    sets = [text[a:b] for a, b in itertools.pairwise(ends)]
    assert dropped(batch.labels, batch.label_offsets, name) == [without(labels, name) for labels in sets]


def test_of_two_labels_of_one_name_one_goes():
    text = label_bytes([(b"a", b"1"), (b"r", b"x"), (b"r", b"y")])
    assert dropped(np.frombuffer(text, np.uint8), np.array([0, len(text)], np.int64), b"r") == [
        label_bytes([(b"a", b"1"), (b"r", b"y")])
    ]


@pytest.mark.parametrize("cut", range(1, 8))
def test_label_bytes_that_are_cut_off_are_refused(cut):
    text = label_bytes([(b"job", b"api")])[:-cut]
    assert dropped(np.frombuffer(text, np.uint8), np.array([0, len(text)], np.int64), b"r") == WireStatus.CUT_OFF
