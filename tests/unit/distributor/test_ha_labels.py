"""Whose request it is, and what the series are without the label that says so."""

import itertools

import numpy as np
import pytest
import xxhash
from hypothesis import given

from mimir_ingest.distributor.ha_election import HaLimits
from mimir_ingest.distributor.ha_labels import Sender, earliest_sample_ms, find_sender, without_label
from mimir_ingest.wire.remote_write_v1 import DecodedWrite
from tests.reference.ha_labels import without
from tests.support.random_batches import BATCHES, NAMES, batch_of, content

BOTH = [(b"__name__", b"up"), (b"__replica__", b"r0"), (b"cluster", b"eu")]


def sender_of(*series, limits=None, max_value_bytes=10):
    batch = batch_of([(labels, []) for labels in series])
    return find_sender(batch, limits or HaLimits(), max_value_bytes=max_value_bytes)


@pytest.mark.parametrize(
    ("labels", "sender"),
    [
        (BOTH, Sender("eu", "r0")),
        (BOTH[:2], None),
        ([BOTH[0], BOTH[2]], None),
        ([], None),
        ([(b"__replica__", b"r" * 10), (b"cluster", b"eu")], Sender("eu", "r" * 10)),
        ([(b"__replica__", b"r" * 11), (b"cluster", b"eu")], None),
        ([(b"__replica__", b"r"), (b"cluster", b"e" * 11)], None),
        ([(b"__replica__", b"\xff"), (b"cluster", b"eu")], None),
        ([(b"__replica__", b"r"), (b"cluster", b"\xed\xa0\x80")], None),
        ([(b"__replica__", b"a/\tb"), (b"cluster", b"\x00")], Sender("\x00", "a/\tb")),
        ([(b"__replica__", b"r0"), (b"__replica__", b"r1"), (b"cluster", b"eu")], Sender("eu", "r0")),
    ],
)
def test_a_sender_is_named_by_two_labels_that_can_be_kept(labels, sender):
    assert sender_of(labels) == sender


def test_the_first_series_speaks_for_all_and_nobody_for_none():
    assert sender_of(BOTH, [(b"__name__", b"x")]) == Sender("eu", "r0")
    assert sender_of([(b"__name__", b"x")], BOTH) is None
    assert sender_of() is None


def test_labels_are_the_tenants():
    limits = HaLimits(cluster_label=b"__name__", replica_label=b"cluster")
    assert sender_of(BOTH, limits=limits) == Sender("up", "eu")


@given(BATCHES, NAMES)
def test_without_a_label_everything_else_stays(batch, name):
    write = without_label(DecodedWrite(batch, 0, 0, False, False), name)
    text, ends = batch.labels.tobytes(), batch.label_offsets.tolist()
    expected = [without(text[a:b], name) for a, b in itertools.pairwise(ends)]
    got, at = write.batch.labels.tobytes(), write.batch.label_offsets.tolist()
    assert [got[a:b] for a, b in itertools.pairwise(at)] == expected
    assert write.batch.hashes.tolist() == [xxhash.xxh64_intdigest(labels) for labels in expected]
    for field in ("sample_offsets", "timestamps", "values", "metadata", "histograms", "exemplars"):
        assert getattr(write.batch, field) is getattr(batch, field)


@given(BATCHES)
def test_the_earliest_sample_is_the_earliest_of_floats_and_histograms(batch):
    series, _, _ = content(batch)
    times = batch.timestamps.tolist() + (batch.histograms.timestamps.tolist() if batch.histograms is not None else [])
    assert len(series) == batch.series_count
    assert earliest_sample_ms(batch) == min(times, default=None)


def test_without_series_there_is_nothing_to_take_off():
    write = without_label(DecodedWrite(batch_of([]), 0, 0, False, False), b"r")
    assert write.batch.label_offsets.tolist() == [0]
    assert len(np.asarray(write.batch.hashes)) == 0
