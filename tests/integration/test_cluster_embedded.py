"""Two processes on one embedded log, each with every role: leases move between them, and nothing is lost or doubled."""

import pytest

from tests.support.cluster import Checker, Cluster, Load

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PARTITIONS = 3


def goes_on(load: Load, checker: Checker) -> None:
    """Pushes are acknowledged and queries are right again."""
    load.wait_rounds(5)
    checker.wait_answers(6)


def test_two_processes_on_one_log_through_kills_a_lost_disk_scale_out_and_scale_in(tmp_path):
    flags = [
        f"-ingest-storage.embedded.path={tmp_path / 'log'}",
        f"-ingest-storage.embedded.partitions={PARTITIONS}",
        "-ingest-storage.embedded.trim-delay=24h",
    ]
    with Cluster(tmp_path, *flags) as cluster:
        for name in ("first", "second"):
            cluster.add(name, "all")
        cluster.start(["first", "second"])
        cluster.wait_active(range(PARTITIONS))
        load = Load(cluster)
        checker = Checker(cluster, load)
        load.start()
        checker.start()
        goes_on(load, checker)

        # The other one takes over all leases once the silence is long enough.
        cluster["first"].kill()
        goes_on(load, checker)
        cluster.lose_disk("first")
        cluster.start(["first"])
        goes_on(load, checker)
        assert cluster["second"].http.post("/ingester/flush").status_code == 204
        cluster["second"].kill()
        cluster.start(["second"])
        goes_on(load, checker)

        cluster.begin("upscale", f"--partitions={PARTITIONS + 1}").end()
        cluster.wait_active(range(PARTITIONS + 1))
        goes_on(load, checker)
        for command in [cluster.begin("downscale", f"--partition={partition}") for partition in (3, 2)]:
            command.end()
        cluster.wait_active(range(2))
        goes_on(load, checker)

        # Leaving is orderly: whoever stays has everything.
        assert cluster["first"].stop() == 0
        goes_on(load, checker)
        load.finish()
        checker.finish()
        checker.check_all(cluster["second"])
        cluster.flush("second")
        checker.check_all(cluster["second"])
        for report in cluster.replay(range(PARTITIONS + 1)):
            assert report["not_cut_samples"] == 0
