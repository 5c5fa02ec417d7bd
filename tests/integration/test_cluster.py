"""A cluster on a real Kafka under everything that happens to clusters: exactly what was acknowledged, all along.

Two zones of three ingesters, two distributors, two queriers, as processes. Load and queries run throughout; an answer
that lacks an acknowledged sample, or has one twice, or one of another value, fails the test, whenever it is given.
"""

import pytest

from mimir_ingest.ingester.checkpoint import decode_facts
from tests.support.cluster import Checker, Cluster, Load
from tests.support.kafka_broker import KafkaBroker
from tests.support.observe import wait_until
from tests.support.partition_log import files_of

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.timeout(900)]

ZONES = ("zone-a", "zone-b")
PARTITIONS = 3


class Scene:
    """The cluster with its load and its checker; the steps of the test."""

    def __init__(self, cluster: Cluster, broker: KafkaBroker) -> None:
        self.cluster, self.broker = cluster, broker
        self.load = Load(cluster)
        self.checker = Checker(cluster, self.load)

    def begin(self) -> None:
        cluster = self.cluster
        for zone in ZONES:
            for number in range(PARTITIONS):
                cluster.add_ingester(zone, number)
        for number in range(2):
            cluster.add(f"distributor-{number}", "distributor")
            cluster.add(f"querier-{number}", "querier")
        cluster.start(cluster.programs)
        self.cluster.wait_active(range(PARTITIONS))
        self.load.start()
        self.checker.start()
        self.goes_on()

    def goes_on(self) -> None:
        """Pushes are acknowledged and queries are right again."""
        self.load.wait_rounds(5)
        self.checker.wait_answers(6)

    def kill_one_of_each_role(self) -> None:
        for name in ("ingester-zone-a-0", "distributor-0", "querier-0"):
            self.cluster[name].kill()
            self.goes_on()
            self.cluster[name].start(wait=False)
        for name in ("ingester-zone-a-0", "distributor-0", "querier-0"):
            self.cluster[name].wait_ready()
        self.goes_on()

    def restart_broker(self) -> None:
        self.broker.restart(kill=True)
        self.goes_on()

    def lose_a_zone(self) -> None:
        """Flush before, so that some data is in blocks; one of the zone's disks does not come back."""
        names = [f"ingester-zone-b-{number}" for number in range(PARTITIONS)]
        for number in range(PARTITIONS):
            assert self.cluster[f"ingester-zone-a-{number}"].http.post("/ingester/flush").status_code == 204
        for name in names:
            self.cluster[name].kill()
        self.goes_on()
        self.cluster.lose_disk("ingester-zone-b-1")
        self.cluster.start(names)
        self.goes_on()

    def scale_out(self) -> None:
        for zone in ZONES:
            self.cluster.add_ingester(zone, PARTITIONS)
        self.cluster.start([f"ingester-{zone}-{PARTITIONS}" for zone in ZONES])
        self.cluster.wait_active(range(PARTITIONS + 1))
        wait_until(lambda: self.load.offsets.get(PARTITIONS, -1) >= 5, "records in the new partition")
        self.goes_on()

    def scale_in(self, partitions: list[int]) -> None:
        """Partitions go, and their ingesters once everything of them is in blocks."""
        commands = {p: self.cluster.begin("downscale", f"--partition={p}") for p in partitions}
        for partition, command in commands.items():
            wait_until(
                lambda p=partition, c=command: f"stop ingester-zone-a-{p}" in c.said(), "a drained partition", 120
            )
            for zone in ZONES:
                assert self.cluster[f"ingester-{zone}-{partition}"].stop() == 0
            command.end()
        self.cluster.wait_active(sorted(set(range(PARTITIONS + 1)) - set(partitions)))
        self.goes_on()

    def check_everything(self) -> None:
        """All that was acknowledged, once, from memory and then from blocks; every block as the log says."""
        self.load.finish()
        self.checker.finish()
        for querier in self.cluster.serving("querier"):
            self.checker.check_all(querier)
        for partition in range(2):
            self.cluster.flush(f"ingester-zone-b-{partition}")
        for zone in ZONES:
            for partition in range(2):
                assert self.cluster[f"ingester-{zone}-{partition}"].stop() == 0
        for report in self.cluster.replay(range(PARTITIONS + 1)):
            assert report["not_cut_samples"] == 0


def test_exactly_what_was_acknowledged_through_kills_outages_scale_out_and_scale_in(tmp_path, new_kafka_broker):
    broker = new_kafka_broker().start()
    flags = [
        f"-ingest-storage.kafka.address={broker.address}",
        "-ingest-storage.kafka.topic=cluster",
        f"-ingest-storage.kafka.auto-create-topic-default-partitions={PARTITIONS}",
    ]
    with Cluster(tmp_path, *flags) as cluster:
        scene = Scene(cluster, broker)
        scene.begin()
        scene.kill_one_of_each_role()
        scene.restart_broker()
        scene.lose_a_zone()
        scene.scale_out()
        scene.scale_in([3, 2])
        scene.check_everything()


def test_two_zones_with_a_bucket_each_ship_the_same_bytes(tmp_path, kafka_broker):
    flags = [
        f"-ingest-storage.kafka.address={kafka_broker.address}",
        f"-ingest-storage.kafka.topic=zones-{tmp_path.name}",
        "-ingest-storage.kafka.auto-create-topic-default-partitions=1",
    ]
    with Cluster(tmp_path, *flags) as cluster:
        for zone in ZONES:
            cluster.add_ingester(zone, 0, f"-blocks-storage.storage-prefix={zone.replace('-', '')}")
        cluster.add("distributor-0", "distributor")
        cluster.start(cluster.programs)
        cluster.wait_active([0])
        load = Load(cluster, pause_s=0.0)
        load.start()
        for killed, other in (ZONES, ZONES[::-1]):
            # Each in turn misses a cut, which it makes when it comes back, from its own place in the log.
            load.wait_rounds(10)
            cluster[f"ingester-{killed}-0"].kill()
            load.wait_rounds(10)
            cluster.flush(f"ingester-{other}-0")
            load.wait_rounds(10)
            cluster.start([f"ingester-{killed}-0"])
        load.finish()
        cluster.flush("ingester-zone-a-0")
        first, second = (cluster.bucket / zone.replace("-", "") for zone in ZONES)
        wait_until(lambda: files_of(first) == files_of(second), "the same files in both buckets")
        checkpoints = [decode_facts(path.read_bytes()) for path in first.rglob("*.checkpoint")]
        shipped = [block.ulid for facts in checkpoints for block in facts.cuts[-1].blocks]
        assert sorted(shipped) == sorted(path.parent.name for path in first.rglob("meta.json"))
        assert len(checkpoints) >= 3  # a block range may end on the way
