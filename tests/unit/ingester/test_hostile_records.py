"""Records that somebody may write, and that must not stop a partition: each is taken or refused, and cuts go on."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import xxhash

from mimir_ingest.bucket.discover import BlockCatalog
from mimir_ingest.bucket.store import Bucket
from mimir_ingest.errors import RecordCorrupt
from mimir_ingest.log.contract import Record
from mimir_ingest.model.batch import MetadataColumns, WriteBatch
from mimir_ingest.tsdb.segment import MAX_MS, MIN_MS
from mimir_ingest.wire.record import VERSION_COLUMNAR, RecordSettings, encode_columnar
from tests.support.blocks import to_python
from tests.support.partition_log import NO_LIMITS, START_MS, Owner, data_record, files_of, flush_record

GOOD = [({"__name__": "good"}, [(START_MS, 1.0)])]


@pytest.fixture
def owner(tmp_path):
    owner = Owner(Bucket(str(tmp_path / "bucket")), tmp_path / "local")
    owner.start(0, 1 << 20)
    return owner


def shipped(owner: Owner, tenant: str = "a") -> dict[str, list[int]]:
    """Metric → timestamps in the tenant's blocks."""
    catalog = BlockCatalog(owner.bucket)
    catalog.refresh(tenant)
    found: dict[str, list[int]] = {}
    for block in catalog.blocks(tenant, MIN_MS, MAX_MS):
        for labels, points in to_python(catalog.open(block).select([], MIN_MS, MAX_MS - 1)):
            found.setdefault(labels["__name__"], []).extend(t for t, _ in points)
    return {name: sorted(ts) for name, ts in found.items()}


@pytest.mark.parametrize("t", [MIN_MS + 2, MIN_MS + 3, -(1 << 62), -60_001, -60_000, -1, 0, 1])
def test_samples_of_any_time_are_cut_into_blocks(owner, t):
    rows = [({"__name__": "m"}, [(t, 1.0), (START_MS, 2.0)])]
    owner.consume([data_record(0, "a", rows, at_ms=START_MS), flush_record(1, at_ms=START_MS)])
    assert shipped(owner) == {"m": [t, START_MS]}


@pytest.mark.parametrize("t", [MAX_MS - 1, MAX_MS - 2, 1 << 62])
def test_a_grace_without_end_lets_samples_of_any_later_time_in(owner, t):
    settings = RecordSettings(0, MAX_MS, MAX_MS)
    rows = [({"__name__": "m"}, [(START_MS, 2.0), (t, 1.0)])]
    owner.consume([data_record(0, "a", rows, at_ms=START_MS, settings=settings), flush_record(1, at_ms=START_MS)])
    assert shipped(owner) == {"m": [START_MS, t]}


@pytest.mark.parametrize("t", [MIN_MS, MIN_MS + 1, MAX_MS])
def test_the_outermost_times_are_refused_and_stop_nothing(owner, t):
    settings = RecordSettings(0, MAX_MS, MAX_MS)
    rows = [({"__name__": "m"}, [(t, 1.0)]), *GOOD]
    owner.consume([data_record(0, "a", rows, at_ms=START_MS, settings=settings), flush_record(1, at_ms=START_MS)])
    assert shipped(owner) == {"good": [START_MS]}


@pytest.mark.parametrize("tenant", ["__mimir_cluster", ".", "..", "", "a" * 151, "a/b", "a\n", "ü"])
def test_a_key_that_names_no_tenants_folder_is_refused_and_stops_nothing(owner, tenant):
    records = [data_record(0, tenant, GOOD, at_ms=START_MS), data_record(1, "a", GOOD, at_ms=START_MS)]
    applied = owner.state.apply(records)
    assert [offset for offset, _ in applied.corrupt] == [0]
    owner.consume([flush_record(2, at_ms=START_MS)])
    assert shipped(owner) == {"good": [START_MS]}


@pytest.mark.parametrize("tenant", ["a" * 150, "*'()!.._-", ".tmp-x", "...", "deleted"])
def test_every_tenant_id_has_a_folder_of_its_own(owner, tenant):
    owner.consume([data_record(0, tenant, GOOD, at_ms=START_MS), flush_record(1, at_ms=START_MS)])
    assert BlockCatalog(owner.bucket).tenants() == [tenant]
    assert shipped(owner, tenant) == {"good": [START_MS]}
    assert owner.bucket.delete_leftovers(written_before_ms=1 << 50) == 0


def metadata_of(family: str) -> MetadataColumns:
    """Return the metadata of one metric, a counter."""
    text = np.frombuffer(family.encode(), np.uint8)
    return MetadataColumns(np.ones(1, np.uint8), text, np.array([0, len(text), len(text), len(text)], np.int64))


def raw_record(offset: int, keys: list[bytes], hashes: list[int] | None = None) -> Record:
    """Return a record of series with these label bytes, a sample each."""
    batch = WriteBatch(
        np.frombuffer(b"".join(keys), np.uint8),
        np.cumsum([0, *map(len, keys)], dtype=np.int64),
        np.array(hashes or [xxhash.xxh64_intdigest(k) for k in keys], np.uint64),
        np.arange(len(keys) + 1, dtype=np.int64),
        np.full(len(keys), START_MS, np.int64),
        np.ones(len(keys), np.float64),
    )
    return Record(3, offset, START_MS, b"a", encode_columnar(batch, NO_LIMITS), VERSION_COLUMNAR)


@pytest.mark.parametrize(
    "key",
    {
        "value no UTF-8": b"\x01a\x02\xff\xfe",
        "surrogate": b"\x01a\x03\xed\xa0\x80",
        "name no UTF-8": b"\x01\xff\x01x",
        "name twice": b"\x01a\x01x\x01a\x01y",
        "names descend": b"\x01b\x01x\x01a\x01y",
        "longer name first": b"\x02ab\x01x\x01a\x01y",
        "empty name": b"\x00\x01y",
        "empty value": b"\x01a\x00",
        "length in two bytes": b"\x81\x00a\x01y",
        "odd strings": b"\x01a",
    }.items(),
    ids=lambda item: item[0],
)
def test_label_bytes_that_no_block_can_hold_are_refused_and_stop_nothing(owner, key):
    good = b"\x08__name__\x04good"
    owner.consume([raw_record(0, [key[1], good]), raw_record(1, [good]), flush_record(2, at_ms=START_MS)])
    assert shipped(owner) == {"good": [START_MS]}


def test_label_sets_of_any_length_and_order_of_bytes_are_taken(owner):
    rows = [
        ({"__name__": "m", "x": "y" * 200_000}, [(START_MS, 1.0)]),
        ({"__name__": "m", "x": "y" * 200_001}, [(START_MS, 1.0)]),
        ({"__name__": "m", "x": "\uffff"}, [(START_MS, 1.0)]),
        ({"__name__": "m", "x": "\U00010000"}, [(START_MS, 1.0)]),
        ({"__name__": "m", "ab": "\x00", "a": "z", "ü": "1"}, [(START_MS, 1.0)]),
    ]
    owner.consume([data_record(0, "a", rows, at_ms=START_MS), flush_record(1, at_ms=START_MS)])
    assert shipped(owner) == {"m": [START_MS] * 5}
    owner.crash()
    assert owner.start(0, 2).heads["a"].live_count == 5
    assert files_of(owner.folder) == {}


def test_a_record_whose_hash_is_not_that_of_its_labels_is_refused(owner):
    applied = owner.state.apply([raw_record(0, [b"\x01a\x01x"], [7])])
    [(offset, error)] = applied.corrupt
    assert offset == 0
    assert isinstance(error, RecordCorrupt)


@pytest.mark.parametrize("bit", range(64))
def test_a_known_series_with_a_damaged_hash_is_refused_and_stays_one_series(owner, bit):
    key = b"\x08__name__\x04good"
    damaged = xxhash.xxh64_intdigest(key) ^ 1 << bit
    applied = owner.state.apply([raw_record(0, [key]), raw_record(1, [key], [damaged])])
    assert [offset for offset, _ in applied.corrupt] == [1]
    assert owner.state.heads["a"].live_count == 1


def test_the_metadata_of_a_record_that_is_refused_are_not_taken(owner):
    batch = WriteBatch.of_samples([b"\x01a\x01x"], [START_MS], [1.0], metadata_of("a"))
    value = encode_columnar(replace(batch, hashes=batch.hashes ^ np.uint64(1)), NO_LIMITS)
    applied = owner.state.apply([Record(3, 0, START_MS, b"a", value, VERSION_COLUMNAR)])
    assert [offset for offset, _ in applied.corrupt] == [0]
    assert applied.metadata == []


@pytest.mark.parametrize("damaged", [False, True])
def test_hashes_of_a_record_without_samples_are_checked(owner, damaged):
    batch = WriteBatch.of_samples([b"\x01a\x01x"], [START_MS], [1.0])
    none = np.empty(0, np.int64)
    batch = replace(batch, sample_offsets=np.zeros(2, np.int64), timestamps=none, values=none.astype(np.float64))
    value = encode_columnar(replace(batch, hashes=batch.hashes ^ np.uint64(damaged)), NO_LIMITS)
    applied = owner.state.apply([Record(3, 0, START_MS, b"a", value, VERSION_COLUMNAR)])
    assert len(applied.corrupt) == damaged
