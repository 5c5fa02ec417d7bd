"""A real Prometheus as a judge: a process in a folder of its own, reached over HTTP."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.support.peers import pick_free_port
from tests.support.program import PATIENCE_S

EVERY_PROMQL_OPTION = (
    "promql-experimental-functions,promql-extended-range-selectors,promql-binop-fill-modifiers,promql-per-step-stats"
)


@contextmanager
def run_prometheus(
    binary: Path, folder: Path, *flags: str, config: str = "scrape_configs: []\n"
) -> Iterator[httpx.Client]:
    """Run it until the block ends; give a client of its API once it is ready."""
    (folder / "prometheus.yml").write_text(config)
    port = pick_free_port()
    command = [
        str(binary),
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}",
        *flags,
    ]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S) as client:
                _wait_ready(client, process, folder / "log")
                yield client
        finally:
            process.terminate()
            process.wait(PATIENCE_S)


def _wait_ready(client: httpx.Client, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if client.get("/-/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    raise AssertionError(f"Prometheus did not become ready: {log.read_text()[-2000:]}")
