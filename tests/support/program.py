"""Run `mimir-ingest` as its users do: a process with flags, reached over HTTP."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx

from tests.support.peers import pick_free_port

PATIENCE_S = 150.0
"""why: the first native histogram compiles kernels unless the cache has them, and a machine may be ten times slower."""


class Program:
    """One process in its own working directory. `start`, then `push`, `query` …; `kill` is kill -9."""

    def __init__(self, directory: Path, *flags: str, multitenancy: bool = False) -> None:
        self.directory = Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.port = pick_free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.flags = [
            f"-server.http-listen-port={self.port}",
            "-server.http-listen-address=127.0.0.1",
            "-server.grpc-listen-address=127.0.0.1",
            "-server.grpc-listen-port=0",
            f"-auth.multitenancy-enabled={'true' if multitenancy else 'false'}",
            "-self-monitoring.enabled=false",
            "-ingester.ring.min-ready-duration=0s",
            # A query sees what was pushed before it, however slow the machine.
            "-ingest-storage.read-consistency=strong",
            *flags,
        ]
        self.command = [str(Path(sys.executable).parent / "mimir-ingest")]
        self.log_path = self.directory / "program.log"
        self.process: subprocess.Popen | None = None
        self.http = httpx.Client(base_url=self.url, timeout=PATIENCE_S)

    def start(self, *, wait: bool = True, timeout_s: float = 2 * PATIENCE_S) -> Program:
        """Run it; return once `/ready` is 200, unless told not to wait."""
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(
                [*self.command, *self.flags],
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.directory,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )
        if wait:
            self.wait_ready(timeout_s)
        return self

    def wait_ready(self, timeout_s: float = 2 * PATIENCE_S) -> None:
        """Return once `/ready` is 200; fail with the log's end."""
        deadline = time.monotonic() + timeout_s
        answer = ""
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                response = self.http.get("/ready")
                answer = response.text
                if response.status_code == 200:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.05)
        raise AssertionError(f"not ready: {answer!r}; exit code {self.process.poll()}\n{self.log_tail()}")

    def log_tail(self, size: int = 4000) -> str:
        """Return the end of what it printed."""
        return self.log_path.read_text(errors="replace")[-size:] if self.log_path.exists() else ""

    def kill(self) -> None:
        """kill -9."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self, timeout_s: float = PATIENCE_S) -> int:
        """SIGTERM; return the exit code."""
        if self.process is None:
            return 0
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.http.close()

    def push(self, body: bytes, *, tenant: str | None = None, timeout_s: float = PATIENCE_S) -> httpx.Response:
        """POST a compressed remote write 1.0 body."""
        headers = {
            "Content-Encoding": "snappy",
            "Content-Type": "application/x-protobuf",
            "X-Prometheus-Remote-Write-Version": "0.1.0",
        }
        return self.http.post("/api/v1/push", content=body, headers=headers | _tenant(tenant), timeout=timeout_s)

    def query(self, expression: str, *, at_ms: int, tenant: str | None = None, **parameters: object) -> list[dict]:
        """Return the result of an instant query."""
        answer = self.http.get(
            "/prometheus/api/v1/query",
            params={"query": expression, "time": f"{at_ms / 1000:.3f}", **parameters},
            headers=_tenant(tenant),
        )
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]["result"]

    def query_range(
        self, expression: str, *, start_ms: int, end_ms: int, step_s: float, tenant: str | None = None
    ) -> list[dict]:
        """Return the result of a range query."""
        answer = self.http.get(
            "/prometheus/api/v1/query_range",
            params={"query": expression, "start": start_ms / 1000, "end": end_ms / 1000, "step": step_s},
            headers=_tenant(tenant),
        )
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]["result"]


def _tenant(tenant: str | None) -> dict[str, str]:
    return {"X-Scope-OrgID": tenant} if tenant is not None else {}
