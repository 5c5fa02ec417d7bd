"""Ring pages answer as sections 3.9, 7.1 and 7.2 of the HTTP API say, and their forms change the ring."""

import json

import httpx
import pytest
from fastapi import FastAPI

from mimir_ingest.api.instance_ring import instance_ring_router
from mimir_ingest.api.partition_ring import partition_ring_router
from mimir_ingest.api.ring_store import ring_store_router
from partitions import edits
from partitions.errors import RingUnavailable
from partitions.merge import join_entries, stamp
from partitions.model import InstanceDesc, InstanceState, PartitionState, RingDesc, Version
from partitions.tokens import partition_tokens

NOW_MS = 1_771_320_600_000  # 2026-02-17T09:30:00Z


class Ring:
    """A ring in memory with the watcher's interface."""

    def __init__(self):
        self.desc, self.counter, self.down = RingDesc(), 0, False
        for ring, name, state, age_s in (
            ("ingester", "ingester-zone-a-0", InstanceState.ACTIVE, 2),
            ("ingester", "ingester-zone-b-0", InstanceState.ACTIVE, 61),
            ("distributor", "d-0", InstanceState.JOINING, 0),
        ):
            zone = name[9:-2]
            wanted = InstanceDesc(ring, name, state, "10.0.0.5:9095", zone, NOW_MS - 60_000, NOW_MS - age_s * 1000)
            self.apply(lambda desc, wanted=wanted: [wanted])
        self.apply(lambda desc: edits.create_partition(desc, 0, NOW_MS - 9_000_000))
        self.apply(lambda desc: edits.change_state(desc, 0, PartitionState.ACTIVE, NOW_MS - 5_400_999))
        self.apply(lambda desc: edits.create_partition(desc, 3, NOW_MS))
        for owner, partition in (("ingester-zone-b-0", 0), ("ingester-zone-a-0", 0), ("ingester-zone-a-7", 7)):
            self.apply(lambda desc, owner=owner, partition=partition: edits.add_owner(desc, owner, partition, NOW_MS))

    def apply(self, edit):
        self.counter += 1
        version = Version(NOW_MS, self.counter, "test")
        stamped = [stamp(self.desc.entries.get(e.key), e, version) for e in edit(self.desc)]
        self.desc = join_entries(self.desc, [e for e in stamped if e is not None])
        return self.desc

    async def change(self, edit):
        if self.down:
            raise RingUnavailable("the ring store does not answer")
        return self.apply(edit)

    def client(self):
        app = FastAPI(openapi_url=None)
        knobs = {"view": lambda: self.desc, "now_ms": lambda: NOW_MS}
        for ring in ("ingester", "distributor"):
            path = f"/{ring}/ring"
            app.include_router(
                instance_ring_router(path, ring, change=self.change, heartbeat_timeout_ms=60_000, **knobs)
            )
        app.include_router(partition_ring_router(change=self.change, **knobs))
        app.include_router(ring_store_router(store="the test's memory", heartbeat_timeout_ms=60_000, **knobs))
        return httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test")


@pytest.fixture
def ring():
    return Ring()


JSON = {"Accept": "application/json"}


async def test_the_instance_ring_as_json_has_mimirs_keys_and_says_who_is_unhealthy(ring):
    async with ring.client() as http:
        answer = (await http.get("/ingester/ring", headers=JSON)).json()
    assert answer["now"] == "2026-02-17T09:30:00Z"
    assert answer["shards"][0] == {
        "id": "ingester-zone-a-0",
        "state": "ACTIVE",
        "address": "10.0.0.5:9095",
        "timestamp": "2026-02-17T09:29:58Z",
        "registered_timestamp": "2026-02-17T09:29:00Z",
        "read_only": False,
        "read_only_updated_timestamp": "0001-01-01T00:00:00Z",
        "zone": "zone-a",
        "tokens": [],
    }
    assert [(shard["id"], shard["state"]) for shard in answer["shards"]] == [
        ("ingester-zone-a-0", "ACTIVE"),
        ("ingester-zone-b-0", "UNHEALTHY"),
    ]


async def test_an_empty_ring_has_null_shards():
    empty = Ring()
    empty.desc = RingDesc()
    async with empty.client() as http:
        assert (await http.get("/ingester/ring", headers=JSON)).json()["shards"] is None
        assert (await http.get("/ingester/partition-ring", headers=JSON)).json() == {"partitions": []}
        assert "No instances." in (await http.get("/ingester/ring")).text
        assert "No partitions." in (await http.get("/ingester/partition-ring")).text


async def test_the_instance_ring_as_a_page_hides_tokens_and_can_forget(ring):
    async with ring.client() as http:
        page = await http.get("/ingester/ring")
        assert page.headers["content-type"].startswith("text/html")
        assert "<title>Ring Status</title>" in page.text
        headings = [part.partition("</th>")[0] for part in page.text.split("<th>")[1:]]
        assert headings == [
            *("Instance ID", "Availability Zone", "State", "Address", "Registered At"),
            *("Read-Only", "Read-Only Updated", "Last Heartbeat", "Actions"),
        ]
        assert 'name="forget" value="ingester-zone-b-0"' in page.text
        assert 'href="../services"' in page.text
        answer = await http.post("/ingester/ring", data={"forget": "ingester-zone-b-0"})
        assert (answer.status_code, answer.headers["location"]) == (302, "#")
        shards = (await http.get("/ingester/ring", headers=JSON)).json()["shards"]
        assert [shard["id"] for shard in shards] == ["ingester-zone-a-0"]
        assert (await http.post("/ingester/ring", data={"forget": "nobody"})).status_code == 302
        ring.down = True
        failed = await http.post("/ingester/ring", data={"forget": "ingester-zone-a-0"})
        assert (failed.status_code, "does not answer" in failed.text) == (500, True)


async def test_the_distributor_ring_is_another_ring(ring):
    async with ring.client() as http:
        shards = (await http.get("/distributor/ring", headers=JSON)).json()["shards"]
    assert [(shard["id"], shard["state"]) for shard in shards] == [("d-0", "JOINING")]


async def test_the_partition_ring_as_json_shows_owners_tokens_and_owners_of_what_is_not_there(ring):
    async with ring.client() as http:
        found = (await http.get("/ingester/partition-ring", headers=JSON)).json()["partitions"]
    assert found[0] == {
        "id": 0,
        "corrupted": False,
        "state": 2,
        "state_timestamp": "2026-02-17T07:59:59Z",
        "state_change_locked": False,
        "owner_ids": ["ingester-zone-a-0", "ingester-zone-b-0"],
        "tokens": partition_tokens(0).tolist(),
    }
    assert [(p["id"], p["state"], p["corrupted"]) for p in found] == [(0, 2, False), (3, 1, False), (7, 0, True)]
    assert found[2]["owner_ids"] == ["ingester-zone-a-7"]


async def test_the_partition_ring_as_a_page_has_the_buttons_of_allowed_changes(ring):
    async with ring.client() as http:
        page = (await http.get("/ingester/partition-ring")).text
        assert "Change to Inactive" in page  # of partition 0
        assert "Change to Active" in page  # of partition 3
        assert page.count("Lock state") == 2
        assert "Corrupted" in page
        assert "100%" in page
        assert str(partition_tokens(0)[1]) not in page
        assert str(partition_tokens(0)[1]) in (await http.get("/ingester/partition-ring?tokens=true")).text


async def test_shares_of_active_partitions_are_what_lookups_give(ring):
    ring.apply(lambda desc: edits.change_state(desc, 3, PartitionState.ACTIVE, NOW_MS))
    async with ring.client() as http:
        page = (await http.get("/ingester/partition-ring")).text
    shares = [float(part.split("<td>")[-1]) for part in page.split("%</td>")[:-1]]
    assert len(shares) == 3
    assert abs(sum(shares) - 100) < 0.2


@pytest.mark.parametrize(
    ("form", "state", "locked"),
    [
        ({"action": "change_state", "partition_id": "0", "partition_state": "PartitionInactive"}, 3, False),
        ({"action": "change_state_and_lock", "partition_id": "0", "partition_state": "PartitionInactive"}, 3, True),
        ({"action": "state_change_lock", "partition_id": "0", "locked": "true"}, 2, True),
        ({"action": "change_state", "partition_id": "0", "partition_state": "PartitionActive"}, 2, False),
        ({"action": "reverse_polarity", "partition_id": "0"}, 2, False),
        ({}, 2, False),
    ],
)
async def test_forms_change_state_and_lock_and_an_unknown_action_does_nothing(ring, form, state, locked):
    async with ring.client() as http:
        answer = await http.post("/ingester/partition-ring", data=form)
        assert (answer.status_code, answer.headers["location"]) == (302, "#")
    assert (ring.desc.partitions[0].state, ring.desc.partitions[0].locked) == (state, locked)


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ({"action": "change_state", "partition_id": "x", "partition_state": "PartitionActive"}, "invalid partition ID"),
        ({"action": "change_state", "partition_id": "+-7", "partition_state": "2"}, "invalid partition ID"),
        ({"action": "change_state", "partition_id": "9" * 5000, "partition_state": "2"}, "invalid partition ID"),
        ({"action": "change_state", "partition_id": "0", "partition_state": "ACTIVE"}, "invalid partition state"),
        ({"action": "state_change_lock", "partition_id": "0", "locked": "perhaps"}, "invalid boolean"),
        (
            {"action": "change_state", "partition_id": "9", "partition_state": "PartitionActive"},
            "the partition does not exist",
        ),
        (
            {"action": "change_state", "partition_id": "0", "partition_state": "PartitionPending"},
            "partition state change not allowed",
        ),
    ],
)
async def test_what_cannot_be_is_400_with_a_text(ring, form, text):
    async with ring.client() as http:
        answer = await http.post("/ingester/partition-ring", data=form)
    assert (answer.status_code, text in answer.text) == (400, True), answer.text


async def test_a_locked_state_cannot_be_changed_until_it_is_unlocked(ring):
    change = {"action": "change_state", "partition_id": "0", "partition_state": "PartitionInactive"}
    lock = {"action": "state_change_lock", "partition_id": "0"}
    async with ring.client() as http:
        await http.post("/ingester/partition-ring", data=lock | {"locked": "1"})
        refused = await http.post("/ingester/partition-ring", data=change)
        assert (refused.status_code, refused.text) == (400, "partition state change is locked\n")
        assert "Unlock state" in (await http.get("/ingester/partition-ring")).text
        await http.post("/ingester/partition-ring", data=lock | {"locked": "0"})
        assert (await http.post("/ingester/partition-ring", data=change)).status_code == 302
    assert ring.desc.partitions[0].state is PartitionState.INACTIVE


async def test_memberlist_shows_members_keys_and_values(ring):
    ring.apply(lambda desc: edits.forget_instance(desc, "distributor", "d-0", NOW_MS))
    async with ring.client() as http:
        page = (await http.get("/memberlist")).text
        assert "3 members, health score 1 (0 is healthy)" in page
        assert "the test&#39;s memory" in page
        assert "owner/ingester-zone-a-0/0" in page
        value = await http.get("/memberlist?viewKey=partition%2F0&format=json")
        assert json.loads(value.text)["state"] == "ACTIVE"
        assert value.text.count("\n") == 1
        assert (await http.get("/memberlist?viewKey=partition/0&format=json-pretty")).text.count("\n") > 5
        assert "PartitionDesc(" in (await http.get("/memberlist?viewKey=partition/0&format=struct")).text
        raw = await http.get("/memberlist?downloadKey=partition/0")
        assert raw.headers["content-type"] == "application/octet-stream"
        assert f'filename="{NOW_MS}.' in raw.headers["content-disposition"]
        assert json.loads(raw.content)["state"] == "ACTIVE"
        members = (await http.get("/memberlist", headers=JSON)).json()["members"]
        assert {member["name"]: member["state"] for member in members} == {
            "ingester-zone-a-0": 0,
            "ingester-zone-b-0": 2,
            "d-0": 3,
        }


@pytest.mark.parametrize(
    ("query", "status", "text"),
    [
        ("viewKey=nothing", 404, "value not found"),
        ("downloadKey=nothing", 404, "value not found"),
        ("viewKey=partition/0&format=xml", 400, "unsupported format"),
        ("viewMsg=x", 400, "invalid syntax"),
        ("viewMsg=7", 404, "message not found"),
        ("deleteMessages=true", 302, ""),
    ],
)
async def test_memberlist_parameters_are_answered_in_mimirs_order(ring, query, status, text):
    async with ring.client() as http:
        answer = await http.get(f"/memberlist?{query}")
    assert (answer.status_code, text in answer.text) == (status, True)
    if status == 302:
        assert answer.headers["location"] == "?deleteMessages=false"
