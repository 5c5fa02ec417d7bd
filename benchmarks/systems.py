"""Start and stop the systems under test: this project, and the peers that are installed."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

_CPU_CLOCK = 2


def free_port() -> int:
    """Return a loopback port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def find_peer(name: str) -> str | None:
    """Return the path of a peer's binary: in `MIMIR_INGEST_PEERS`, else on PATH."""
    folder = os.environ.get("MIMIR_INGEST_PEERS")
    if folder and (Path(folder) / name).exists():
        return str(Path(folder) / name)
    return shutil.which(name)


@dataclass
class System:
    """One running program, its push and query addresses, and what the kernel says of its use of the machine."""

    name: str
    command: list[str]
    push_url: str
    query_url: str
    ready_url: str
    directory: str
    process: subprocess.Popen | None = field(default=None, repr=False)

    def start(self, timeout_s: float = 120) -> None:
        """Run it and wait until it is ready."""
        log = open(Path(self.directory) / "log", "wb")  # noqa: SIM115 - handed to the process
        self.process = subprocess.Popen(self.command, stdout=log, stderr=subprocess.STDOUT, cwd=self.directory)
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            try:
                with urllib.request.urlopen(self.ready_url, timeout=2):
                    return
            except (urllib.error.URLError, OSError):
                time.sleep(0.1)
        text = (Path(self.directory) / "log").read_text(errors="replace")[-2000:]
        raise RuntimeError(f"{self.name} did not become ready:\n{text}")

    def stop(self) -> None:
        """End the process and remove its files."""
        if self.process and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    def cpu_seconds(self) -> float:
        """Return user and system seconds of all its threads so far."""
        # why: a process's clock counts nanoseconds, /proc hundredths of a second. Source: clock_getcpuclockid(3).
        return time.clock_gettime(~self.process.pid << 3 | _CPU_CLOCK)

    def peak_memory_mib(self) -> float:
        """Return the largest resident set so far."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024
        return 0.0

    def url(self, path: str, **parameters: object) -> str:
        """Return where a query is sent."""
        return f"{self.query_url}{path}?{urllib.parse.urlencode(parameters)}"

    def get(self, path: str, **parameters: object) -> bytes:
        """Send a query and return the body."""
        with urllib.request.urlopen(self.url(path, **parameters), timeout=120) as answer:
            return answer.read()


def mimir_ingest(extra: list[str] | None = None, name: str = "mimir-ingest") -> System:
    """This project, embedded log, one process, limits out of the way."""
    port, directory = free_port(), tempfile.mkdtemp(prefix="bench-mimir-ingest-")
    command = [
        str(Path(sys.executable).parent / "mimir-ingest"),
        f"-server.http-listen-port={port}",
        f"-server.grpc-listen-port={free_port()}",
        "-auth.multitenancy-enabled=false",
        "-distributor.ingestion-rate-limit=1e12",
        "-distributor.ingestion-burst-size=1000000000",
        "-ingester.max-global-series-per-user=0",
        "-self-monitoring.enabled=false",
        *(extra or []),
    ]
    base = f"http://127.0.0.1:{port}"
    return System(name, command, f"{base}/api/v1/push", f"{base}/prometheus", f"{base}/ready", directory)


def prometheus() -> System | None:
    """Prometheus as a remote-write receiver."""
    binary = find_peer("prometheus")
    if not binary:
        return None
    port, directory = free_port(), tempfile.mkdtemp(prefix="bench-prometheus-")
    (Path(directory) / "prometheus.yml").write_text("global: {}\n")
    base = f"http://127.0.0.1:{port}"
    command = [
        binary,
        "--web.enable-remote-write-receiver",
        f"--web.listen-address=127.0.0.1:{port}",
        f"--config.file={directory}/prometheus.yml",
        f"--storage.tsdb.path={directory}/data",
    ]
    return System("prometheus", command, f"{base}/api/v1/write", base, f"{base}/-/ready", directory)


def victoria_metrics() -> System | None:
    """VictoriaMetrics, single node, without its query caches."""
    binary = find_peer("victoria-metrics")
    if not binary:
        return None
    port, directory = free_port(), tempfile.mkdtemp(prefix="bench-victoria-metrics-")
    base = f"http://127.0.0.1:{port}"
    command = [
        binary,
        f"-httpListenAddr=127.0.0.1:{port}",
        f"-storageDataPath={directory}/data",
        "-search.disableCache",
        "-search.latencyOffset=0s",
        "-search.maxUniqueTimeseries=10000000",
        "-search.maxSamplesPerQuery=1000000000000",
    ]
    return System("victoria-metrics", command, f"{base}/api/v1/write", base, f"{base}/health", directory)


def installed() -> list[System]:
    """Return this project and every peer that is there; say which is not."""
    systems: list[System] = [mimir_ingest()]
    for name, make in (("prometheus", prometheus), ("victoria-metrics", victoria_metrics)):
        system = make()
        if system is None:
            print(f"{name} is not installed: left out (set MIMIR_INGEST_PEERS or PATH)")
        else:
            systems.append(system)
    return systems
