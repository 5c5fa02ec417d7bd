import json
from dataclasses import fields

import pytest
from hypothesis import given

from partitions.codec import decode, encode
from partitions.errors import EntryCorrupt
from partitions.model import (
    ElectionDesc,
    InstanceDesc,
    InstanceState,
    OwnerDesc,
    OwnerState,
    PartitionDesc,
    PartitionState,
    Version,
)
from tests.support.ring import several_values

PARTITION = PartitionDesc(
    13, PartitionState.INACTIVE, 1000, Version(1000, 2, "ingester-zone-a-13"), True, 900, Version(900, 0, "cli")
)
PARTITION_BYTES = (
    b'{"state":"INACTIVE","state_timestamp_ms":1000,"state_version":[1000,2,"ingester-zone-a-13"],'
    b'"locked":true,"lock_timestamp_ms":900,"lock_version":[900,0,"cli"]}'
)
OWNER = OwnerDesc("ingester-zone-a-13", 13, OwnerState.ACTIVE, 5, Version(5, 0, "w"))
OWNER_BYTES = b'{"state":"ACTIVE","updated_timestamp_ms":5,"version":[5,0,"w"]}'
INSTANCE = InstanceDesc("querier", "q/1", InstanceState.JOINING, "q:9095", "zone-a", 1, 2, True, 3, Version(2, 0, "q"))
INSTANCE_BYTES = (
    b'{"state":"JOINING","address":"q:9095","zone":"zone-a","registered_ms":1,"heartbeat_ms":2,"read_only":true,'
    b'"read_only_updated_ms":3,"version":[2,0,"q"]}'
)
ELECTION = ElectionDesc("team-a", "eu/1", "r0", 5, 4, 2, 0, Version(5, 1, "d"))
ELECTION_BYTES = (
    b'{"replica":"r0","received_ms":5,"elected_ms":4,"elected_changes":2,"deleted_ms":0,"version":[5,1,"d"]}'
)
ENTRIES = [PARTITION, OWNER, INSTANCE, ELECTION]
KINDS = ["partition", "owner", "instance", "election"]


@pytest.mark.parametrize(
    ("entry", "key", "value"),
    [
        (PARTITION, "partition/13", PARTITION_BYTES),
        (OWNER, "owner/ingester-zone-a-13/13", OWNER_BYTES),
        (INSTANCE, "instance/querier/q/1", INSTANCE_BYTES),
        (ELECTION, "election/team-a/eu/1", ELECTION_BYTES),
    ],
    ids=KINDS,
)
def test_the_bytes_of_an_entry_stay_what_they_are(entry, key, value):
    assert entry.key == key
    assert encode(entry) == value
    assert decode(key, value) == entry


@given(several_values)
def test_what_was_encoded_is_decoded(values):
    assert all(decode(v.key, encode(v)) == v for v in values)


@pytest.mark.parametrize("entry", ENTRIES, ids=KINDS)
def test_every_field_is_in_the_key_or_in_the_value(entry):
    named = {"id", "instance", "partition", "ring", "tenant", "cluster"}
    written = set(json.loads(encode(entry)))
    assert {field.name for field in fields(entry)} - written <= named
    assert not written & named


def test_a_kind_that_is_not_known_is_passed_over():
    assert decode("ha/tenant/cluster", b"anything") is None


def test_names_that_are_not_known_are_passed_over_and_missing_ones_take_the_default():
    value = json.dumps({"state": "ACTIVE", "added_later": {"x": 1}}).encode()
    assert decode("partition/0", value) == PartitionDesc(0, PartitionState.ACTIVE)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("partition/", b"{}"),
        ("partition/-1", b"{}"),
        ("partition/01", b"{}"),
        ("partition/²", b"{}"),
        ("partition/2147483648", b"{}"),
        ("partition/" + "9" * 5000, b"{}"),
        ("instance/ingester/i", b'{"heartbeat_ms": 253402300800000}'),
        ("instance/ingester/i", b'{"zone": "\\ud800"}'),
        ("owner/0", b"{}"),
        ("owner//0", b"{}"),
        ("owner/i/x", b"{}"),
        ("instance/ingester/", b"{}"),
        ("instance//i", b"{}"),
        ("election/t", b"{}"),
        ("election//c", b"{}"),
        ("election/t/c", b'{"replica":1}'),
        ("partition/0", b""),
        ("partition/0", b"\xff"),
        ("partition/0", b"[]"),
        ("partition/0", b"[" * 100_000),
        ("partition/0", b'{"state":"GONE"}'),
        ("partition/0", b'{"state":2}'),
        ("partition/0", b'{"state":[]}'),
        ("partition/0", b'{"locked":1}'),
        ("partition/0", b'{"state_timestamp_ms":-1}'),
        ("partition/0", b'{"state_timestamp_ms":true}'),
        ("partition/0", b'{"state_timestamp_ms":1.5}'),
        ("partition/0", b'{"state_timestamp_ms":9223372036854775808}'),
        ("partition/0", b'{"state_version":[1,2]}'),
        ("partition/0", b'{"state_version":[1,2,3]}'),
        ("partition/0", b'{"state_version":"x"}'),
        ("instance/ingester/i", b'{"zone":null}'),
    ],
)
def test_what_is_not_an_entry_is_refused_with_its_key(key, value):
    with pytest.raises(EntryCorrupt) as refused:
        decode(key, value)
    assert refused.value.key == key


@pytest.mark.parametrize("entry", ENTRIES, ids=KINDS)
def test_a_value_cut_anywhere_is_refused(entry):
    value = encode(entry)
    for length in range(len(value)):
        with pytest.raises(EntryCorrupt):
            decode(entry.key, value[:length])
