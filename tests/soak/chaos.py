"""kill -9 in random order under a real Prometheus: `python -m tests.soak.chaos --kills 10 [--seed N]`.

Two processes with every component on a real Kafka; a Prometheus scrapes itself every second and writes all of it to
both. Whoever is killed, a process or the broker, comes back at a random moment. What Prometheus has stored is, at the
end, what each process answers for each of the two ways: every sample, once, with its time and value; from memory, from
blocks, and after both were killed. Needs the peers and the broker that the tests need.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
import time
from pathlib import Path

import httpx

from tests.support.cluster import Cluster
from tests.support.kafka_broker import KafkaBroker
from tests.support.observe import wait_until
from tests.support.peers import find_peer
from tests.support.prometheus import run_prometheus

NAMES = "all-0", "all-1"
KEPT = "up|scrape_.*|go_gc_.*|go_memstats_.*|prometheus_(http|tsdb_head|remote).*"
BROKER = "broker"


def configuration(cluster: Cluster, *, scrape_of: str | None) -> str:
    """Return Prometheus's configuration; JSON is YAML."""
    writes = [
        {
            "name": name,
            "url": f"{cluster[name].url}/api/v1/push",
            "write_relabel_configs": [{"target_label": "via", "replacement": name}],
            "queue_config": {"max_backoff": "1s", "batch_send_deadline": "500ms"},
            "metadata_config": {"send": False},
        }
        for name in NAMES
    ]
    scrape = {
        "job_name": "self",
        "static_configs": [{"targets": [scrape_of]}],
        "metric_relabel_configs": [{"source_labels": ["__name__"], "regex": KEPT, "action": "keep"}],
    }
    settings = {"scrape_interval": "1s"}
    return json.dumps(
        {"global": settings, "remote_write": writes, "scrape_configs": [scrape] if scrape_of else []}, indent=1
    )


def stored(client: httpx.Client, path: str, selector: str, at_s: float) -> dict[str, list]:
    """Return every sample of the last hour of what a selector finds, by labels (`via` left out)."""
    answer = client.get(path, params={"query": f"{selector}[1h]", "time": at_s}, timeout=120)
    assert answer.status_code == 200, answer.text
    found = {}
    for row in answer.json()["data"]["result"]:
        row["metric"].pop("via", None)
        found[json.dumps(row["metric"], sort_keys=True)] = row["values"]
    return found


def compare(cluster: Cluster, truth: dict[str, list], at_s: float, when: str) -> None:
    """Check what both processes say of both ways."""
    samples = sum(map(len, truth.values()))
    assert samples > 1000
    for asked in NAMES:
        for via in NAMES:
            found = stored(cluster[asked].http, "/prometheus/api/v1/query", f'{{via="{via}"}}', at_s)
            lacking = sum(len(set(map(tuple, truth[k])) - set(map(tuple, found.get(k, ())))) for k in truth)
            assert lacking == 0, f"{when}: {asked} lacks {lacking} of {samples} samples written to {via}"
            assert found == truth, f"{when}: {asked} has samples of {via} that were not written"
    print(f"{when}: {len(truth)} series, {samples} samples, twice, as both processes say", flush=True)


def pending(prometheus: httpx.Client) -> float:
    """Return how many samples Prometheus has yet to send; one at least while the newest was not sent."""
    lines = prometheus.get("/metrics").text.splitlines()

    def values(name: str) -> list[float]:
        return [float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name} ", f"{name}{{"))]

    highest = values("prometheus_remote_storage_highest_timestamp_in_seconds")
    sent = values("prometheus_remote_storage_queue_highest_sent_timestamp_seconds")
    behind = sum(one < max(highest) for one in sent)
    return sum(values("prometheus_remote_storage_samples_pending")) + behind


def kill_in_turns(cluster: Cluster, broker: KafkaBroker, kills: int, chance: random.Random) -> None:
    """Kill somebody, and start whoever is down, again and again."""
    down: set[str] = set()

    def come_back(name: str) -> None:
        down.discard(name)
        if name == BROKER:
            broker.start()
        else:
            cluster[name].start(wait=False)

    for turn in range(kills):
        time.sleep(chance.uniform(2, 12))
        name = chance.choice((*NAMES, *NAMES, BROKER))
        if name in down:
            come_back(name)
            print(f"{turn}: {name} comes back", flush=True)
            continue
        broker.kill() if name == BROKER else cluster[name].kill()
        down.add(name)
        print(f"{turn}: killed {name}; down: {sorted(down)}", flush=True)
    for name in sorted(down, key=lambda name: name != BROKER):
        come_back(name)
    for name in NAMES:
        cluster[name].wait_ready(300)


def chaos(folder: Path, kills: int, chance: random.Random) -> None:
    """Run all of it. Raises AssertionError for a sample that is lacking, or too many."""
    broker = KafkaBroker(folder / "kafka").start()
    flags = [
        f"-ingest-storage.kafka.address={broker.address}",
        "-ingest-storage.kafka.topic=chaos",
        "-ingest-storage.kafka.auto-create-topic-default-partitions=2",
        "-ingest-storage.snapshot-interval=10s",
    ]
    judge = folder / "prometheus"
    judge.mkdir()
    try:
        with Cluster(folder, *flags) as cluster:
            for name in NAMES:
                cluster.add(name, "all")
            cluster.start(NAMES)
            cluster.wait_active(range(2))
            idle = configuration(cluster, scrape_of=None)
            with run_prometheus(find_peer("prometheus"), judge, "--web.enable-lifecycle", config=idle) as prometheus:

                def reload(config: str) -> None:
                    (judge / "prometheus.yml").write_text(config)
                    prometheus.post("/-/reload").raise_for_status()

                reload(configuration(cluster, scrape_of=prometheus.base_url.netloc.decode()))
                kill_in_turns(cluster, broker, kills, chance)
                time.sleep(5)
                reload(idle)
                wait_until(lambda: pending(prometheus) == 0, "everything sent", 300)
                at_s = time.time()
                truth = stored(prometheus, "/api/v1/query", '{job="self"}', at_s)
            compare(cluster, truth, at_s, "from memory")
            for name in NAMES:
                cluster.flush(name)
            compare(cluster, truth, at_s, "from blocks")
            for name in NAMES:
                cluster[name].kill()
            cluster.start(NAMES)
            compare(cluster, truth, at_s, "after both were killed")
    finally:
        broker.kill()


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30))
    given = parser.parse_args()
    print(f"seed {given.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="chaos-") as folder:
        chaos(Path(folder), given.kills, random.Random(given.seed))


if __name__ == "__main__":
    main()
