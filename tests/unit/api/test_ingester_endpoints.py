"""The endpoints that take ingesters out (spec ingest-storage 7), and the rollout-operator's requests in their order."""

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client import CollectorRegistry, Gauge

from mimir_ingest.api.ingester import downscale_router
from mimir_ingest.api.middleware import plain_routing
from mimir_ingest.ingester.downscale import Downscale
from mimir_ingest.ingester.drain import Drain
from mimir_ingest.ingester.ownership_plan import OwnershipKnobs
from mimir_ingest.ingester.shutdown_marker import ShutdownMarker
from mimir_ingest.obs.services import ServiceRegistry, ServiceState
from partitions import edits
from partitions.errors import RingUnavailable
from partitions.kv.memory import MemoryRingStore
from partitions.model import InstanceDesc, InstanceState, PartitionState
from partitions.watch import RingWatcher

NOW_MS = 1_700_000_000_500
PARTITION = "/ingester/prepare-partition-downscale"
SHUTDOWN = "/ingester/prepare-shutdown"
UNREGISTER = "/ingester/unregister-on-shutdown"
INSTANCE_RING = "/ingester/prepare-instance-ring-downscale"


class Probe:
    """Log and bucket that say what a test wants."""

    drained = False

    async def probe(self, partition):
        return Drain(partition, 10, 10 if self.drained else 4, 0, pending=not self.drained)


class Pods:
    """Ingesters of one zone with their endpoints, over one ring in memory."""

    def __init__(self, folder, count, *, numbered=True):
        self.watcher = RingWatcher(MemoryRingStore(), writer="pods", now_ms=lambda: NOW_MS)
        self.now_ms, self.fenced, self.probe = NOW_MS, False, Probe()
        self.downscales, self.services, self.clients = [], [], []
        for number in range(count):
            registry = CollectorRegistry()
            downscale = Downscale(
                self.watcher,
                ShutdownMarker(folder / f"tsdb-{number}"),
                self.probe,
                knobs=OwnershipKnobs(f"ingester-{number}", number if numbered else None),
                fenced=lambda partition: self.fenced,
                unregister_by_default=True,
                requested=Gauge("requested", "", registry=registry),
                now_ms=lambda: self.now_ms,
            )
            services = ServiceRegistry()
            services.set_state("ingester", ServiceState.STARTING)
            services.set_state("ingester", ServiceState.RUNNING)
            app = FastAPI(openapi_url=None)
            plain_routing(app)
            app.include_router(downscale_router(downscale, services))
            self.downscales.append(downscale)
            self.services.append(services)
            self.clients.append(httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://pod"))

    async def __aenter__(self):
        await self.watcher.start()
        for number in range(len(self.clients)):
            await self.watcher.change(lambda desc, n=number: edits.create_partition(desc, n, NOW_MS))
            await self.change_state(number, PartitionState.ACTIVE)
        return self

    async def __aexit__(self, *_):
        await self.watcher.close()

    async def change_state(self, number, state):
        await self.watcher.change(lambda desc: edits.change_state(desc, number, state, NOW_MS))

    async def ask(self, number, method, path, **options):
        return await self.clients[number].request(method, path, **options)

    async def register(self, instance, *, owns, zone="a"):
        desc = InstanceDesc("ingester", instance, address="x:1", zone=zone, state=InstanceState.ACTIVE)
        await self.watcher.change(lambda known: edits.heartbeat(known, desc, self.now_ms))
        for partition in owns:
            await self.watcher.change(lambda known, p=partition: edits.add_owner(known, instance, p, self.now_ms))

    def states(self):
        return [p.state.name for p in self.watcher.desc.partitions.values()]


@pytest.fixture
def pods(tmp_path):
    return Pods(tmp_path, 4)


async def test_the_rollout_operator_takes_two_of_four_pods_out_and_changes_its_mind_once(pods):
    """Spec 7.6: DELETE on those that stay, POST on those that go, until their delay has passed; then the webhook."""

    async def reconcile(desired):
        kept = [await pods.ask(n, "DELETE", PARTITION) for n in range(desired)]
        assert [(a.status_code, a.json()["timestamp"]) for a in kept] == [(200, 0)] * desired
        asked = [await pods.ask(n, "POST", PARTITION) for n in range(desired, 4)]
        assert [a.status_code for a in asked] == [200] * (4 - desired)
        assert all(a.headers["content-type"] == "application/json" for a in asked)
        return [a.json()["timestamp"] for a in asked]

    async with pods:
        assert await reconcile(2) == [1_700_000_000, 1_700_000_000]
        assert pods.states() == ["ACTIVE", "ACTIVE", "INACTIVE", "INACTIVE"]
        pods.now_ms += 5_000
        assert await reconcile(2) == [1_700_000_000, 1_700_000_000], "a repeated POST keeps the time"
        assert await reconcile(3) == [1_700_000_000], "pod 2 is to stay after all"
        assert pods.states() == ["ACTIVE", "ACTIVE", "ACTIVE", "INACTIVE"]
        pods.now_ms += 5_000
        assert await reconcile(2) == [1_700_000_010, 1_700_000_000]
        # The delay of pods 3 and 2 has passed: the webhook prepares each, with a JSON content type and an empty body.
        for number in (3, 2):
            answer = await pods.ask(number, "POST", SHUTDOWN, headers={"Content-Type": "application/json"})
            assert (answer.status_code, answer.content) == (204, b"")
            assert (await pods.ask(number, "GET", SHUTDOWN)).text == "set\n"
            assert pods.downscales[number].leaving
            assert pods.downscales[number].unregister_on_shutdown
        assert (await pods.ask(0, "GET", SHUTDOWN)).text == "unset\n"
        # A scale-down that the webhook denies for another reason is undone; with ingest storage that is refused.
        assert (await pods.ask(2, "DELETE", SHUTDOWN)).status_code == 405
        # Scaling up again: DELETE on all pods, best effort.
        assert [(await pods.ask(n, "DELETE", PARTITION)).json()["timestamp"] for n in range(4)] == [0, 0, 0, 0]
        assert pods.states() == ["ACTIVE"] * 4


async def test_get_reports_the_time_and_how_far_the_drain_is(pods):
    async with pods:
        active = (await pods.ask(3, "GET", PARTITION)).json()
        assert active == {"timestamp": 0, "partition": 3, "state": "ACTIVE"}
        await pods.ask(3, "POST", PARTITION)
        waiting = (await pods.ask(3, "GET", PARTITION)).json()
        assert waiting["timestamp"] == 1_700_000_000
        assert (waiting["drained"], waiting["log_end_offset"], waiting["cut_offset"]) == (False, 10, 4)
        pods.probe.drained = True
        assert (await pods.ask(3, "GET", PARTITION)).json()["drained"] is False, "not before the fence"
        pods.fenced = True
        assert (await pods.ask(3, "GET", PARTITION)).json()["drained"] is True


async def test_a_pending_partition_and_a_locked_one_are_409(pods):
    async with pods:
        await pods.watcher.change(lambda desc: edits.lock(desc, 1, True, NOW_MS))
        refused = await pods.ask(1, "POST", PARTITION)
        assert (refused.status_code, refused.text) == (409, "partition state change is locked\n")
        await pods.watcher.change(lambda desc: edits.remove_partition(desc, 2, NOW_MS))
        await pods.watcher.change(lambda desc: edits.create_partition(desc, 2, NOW_MS))
        pending = await pods.ask(2, "POST", PARTITION)
        assert (pending.status_code, pending.content) == (409, b"")
        assert (await pods.ask(2, "DELETE", PARTITION)).json()["timestamp"] == 0
        await pods.watcher.change(lambda desc: edits.lock(desc, 3, True, NOW_MS))
        assert (await pods.ask(3, "DELETE", PARTITION)).json()["timestamp"] == 0, "no change is no conflict"
        await pods.watcher.change(lambda desc: edits.lock(desc, 3, False, NOW_MS))
        await pods.change_state(3, PartitionState.INACTIVE)
        await pods.watcher.change(lambda desc: edits.lock(desc, 3, True, NOW_MS))
        assert (await pods.ask(3, "DELETE", PARTITION)).status_code == 409


async def test_errors_of_the_ring_are_500_with_their_text(pods, monkeypatch):
    async with pods:

        async def fail(edit, **_):
            raise RingUnavailable("the ring store does not answer")

        monkeypatch.setattr(pods.watcher, "change", fail)
        answer = await pods.ask(0, "POST", PARTITION)
        assert (answer.status_code, answer.text) == (500, "the ring store does not answer\n")
        monkeypatch.undo()
        await pods.watcher.change(lambda desc: edits.remove_partition(desc, 0, NOW_MS))
        assert (await pods.ask(0, "GET", PARTITION)).status_code == 500


async def test_with_leases_a_pod_without_another_of_its_zone_takes_its_partitions_along_and_back(tmp_path):
    async with Pods(tmp_path, 2, numbered=False) as pods:
        await pods.register("ingester-0", owns=(0, 1))
        assert (await pods.ask(0, "POST", PARTITION)).json() == {
            "timestamp": 1_700_000_000,
            "instance": "ingester-0",
            "read_only": False,
            "owned_partitions": {"0": "INACTIVE", "1": "INACTIVE"},
        }
        pods.now_ms += 5_000
        assert (await pods.ask(0, "POST", PARTITION)).json()["timestamp"] == 1_700_000_000, "a repeated one keeps it"
        assert (await pods.ask(0, "GET", PARTITION)).json()["timestamp"] == 1_700_000_000
        assert (await pods.ask(0, "DELETE", PARTITION)).json()["timestamp"] == 0
        assert pods.states() == ["ACTIVE", "ACTIVE"]


async def test_with_leases_the_rollout_operator_takes_a_pod_out_and_its_partitions_stay_active(tmp_path):
    async with Pods(tmp_path, 2, numbered=False) as pods:
        await pods.register("ingester-0", owns=(0,))
        await pods.register("ingester-1", owns=(1,))
        await pods.register("ingester-9", owns=(0, 1), zone="b")
        assert (await pods.ask(0, "DELETE", PARTITION)).json()["timestamp"] == 0
        first = (await pods.ask(1, "POST", PARTITION)).json()
        assert first == {
            "timestamp": 1_700_000_000,
            "instance": "ingester-1",
            "read_only": True,
            "owned_partitions": {"1": "ACTIVE"},
        }
        await pods.watcher.change(lambda desc: edits.remove_owner(desc, "ingester-1", 1, NOW_MS))
        pods.now_ms += 5_000
        handed_over = (await pods.ask(1, "POST", PARTITION)).json()
        assert (handed_over["timestamp"], handed_over["owned_partitions"]) == (1_700_000_000, {})
        assert pods.states() == ["ACTIVE", "ACTIVE"]
        assert (await pods.ask(1, "DELETE", PARTITION)).json()["read_only"] is False
        assert (await pods.ask(1, "GET", PARTITION)).json()["timestamp"] == 0


async def test_with_leases_what_nobody_could_take_is_refused_while_pending_or_locked(tmp_path):
    async with Pods(tmp_path, 3, numbered=False) as pods:
        await pods.register("ingester-0", owns=(0, 1))
        await pods.watcher.change(lambda desc: edits.lock(desc, 1, True, NOW_MS))
        refused = await pods.ask(0, "POST", PARTITION)
        assert (refused.status_code, refused.text) == (409, "partition state change is locked\n")
        assert pods.states() == ["ACTIVE"] * 3, "all of them or none"
        await pods.watcher.change(lambda desc: edits.lock(desc, 1, False, NOW_MS))
        assert (await pods.ask(0, "POST", PARTITION)).json()["timestamp"]
        await pods.watcher.change(lambda desc: edits.lock(desc, 1, True, NOW_MS))
        assert (await pods.ask(0, "DELETE", PARTITION)).json()["owned_partitions"] == {"0": "ACTIVE", "1": "INACTIVE"}
        await pods.watcher.change(lambda desc: edits.create_partition(desc, 7, NOW_MS))
        await pods.register("ingester-0", owns=(7,))
        assert (await pods.ask(0, "POST", PARTITION)).status_code == 409


async def test_a_partition_can_be_named_and_what_is_no_number_is_400(tmp_path):
    async with Pods(tmp_path, 2, numbered=False) as pods:
        assert (await pods.ask(0, "POST", f"{PARTITION}?partition=1")).json()["timestamp"] == 1_700_000_000
        assert pods.states() == ["ACTIVE", "INACTIVE"]
        for text in ("x", "9" * 5000, "²"):
            assert (await pods.ask(0, "GET", f"{PARTITION}?partition={text}")).status_code == 400


@pytest.mark.parametrize("path", [PARTITION, SHUTDOWN, UNREGISTER])
async def test_an_ingester_that_does_not_run_is_503_with_an_empty_body(pods, path):
    async with pods:
        pods.services[0].set_state("ingester", ServiceState.STOPPING)
        answer = await pods.ask(0, "GET", path)
        assert (answer.status_code, answer.content) == (503, b"")


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        (PARTITION, {"GET", "POST", "DELETE"}),
        (SHUTDOWN, {"GET", "POST"}),
        (UNREGISTER, {"GET", "PUT", "DELETE"}),
        (INSTANCE_RING, set()),
    ],
)
async def test_other_methods_are_405_and_empty(pods, path, allowed):
    async with pods:
        for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"):
            answer = await pods.ask(0, method, path, content=b'{"unregister": true}')
            assert (answer.status_code != 405) == (method in allowed), method
            if answer.status_code == 405:
                assert answer.content == b""


async def test_unregister_on_shutdown_is_told_set_and_reset(pods):
    async with pods:
        assert (await pods.ask(0, "GET", UNREGISTER)).json() == {"unregister": True}
        assert (await pods.ask(0, "PUT", UNREGISTER, json={"unregister": False})).json() == {"unregister": False}
        assert (await pods.ask(0, "GET", UNREGISTER)).json() == {"unregister": False}
        for body in (b"", b"{", b"{}", b'{"unregister": 1}', b"[true]"):
            bad = await pods.ask(0, "PUT", UNREGISTER, content=body)
            assert (bad.status_code, bad.content) == (400, b""), body
        assert (await pods.ask(0, "GET", UNREGISTER)).json() == {"unregister": False}
        assert (await pods.ask(0, "DELETE", UNREGISTER)).json() == {"unregister": True}
        assert (await pods.ask(0, "GET", UNREGISTER)).headers["content-type"] == "application/json"


async def test_a_marker_that_cannot_be_written_is_500(pods, tmp_path):
    (tmp_path / "tsdb-0").write_text("a file, where a folder should be")
    async with pods:
        assert (await pods.ask(0, "POST", SHUTDOWN)).status_code == 500
        assert not pods.downscales[0].leaving
