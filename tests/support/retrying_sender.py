"""A sender that keeps to the remote write protocol: in order, and again until it is acknowledged."""

from __future__ import annotations

import threading
import time

import httpx

from tests.support.observe import wait_until
from tests.support.program import Program
from tests.support.remote_write import body

SERIES = 200
STEP_MS = 1000


def labels(i: int) -> dict[str, str]:
    """Return the label set of one of the sender's series."""
    return {"__name__": "counted_total", "instance": f"host-{i:04d}", "job": "kill"}


class Sender(threading.Thread):
    """Pushes a round of all series a request, again until it is acknowledged, as Prometheus does."""

    def __init__(self, program: Program, start_ms: int) -> None:
        super().__init__(daemon=True)
        self.program, self.start_ms = program, start_ms
        self.rounds = 0
        """Rounds that were acknowledged."""
        self.stopping = threading.Event()
        self.refused: list[str] = []
        """Answers that a sender does not repeat a request after."""
        self.failed: list[str] = []
        """Answers 5xx."""
        self.cut_off = 0
        """Requests without an answer."""

    def run(self) -> None:
        while not self.stopping.is_set():
            at = self.start_ms + self.rounds * STEP_MS
            payload = body([(labels(i), [(at, float(self.rounds * SERIES + i))]) for i in range(SERIES)])
            while True:
                try:
                    answer = self.program.push(payload, timeout_s=60)
                except httpx.TransportError:
                    self.cut_off += 1
                    time.sleep(0.02)
                    continue
                if answer.status_code == 200:
                    break
                if answer.status_code < 500:
                    self.refused.append(answer.text)
                    return
                self.failed.append(answer.text)
                time.sleep(0.02)
            self.rounds += 1

    def finish(self, timeout_s: float = 120) -> None:
        """Stop after the present round is acknowledged."""
        self.stopping.set()
        self.join(timeout_s)
        assert not self.is_alive(), f"the sender is stuck at round {self.rounds}: {self.failed[-1:]}"
        assert not self.refused


def stored(program: Program, sender: Sender) -> dict[str, list[tuple[int, float]]]:
    """Return all raw samples by instance, from heads and blocks."""
    end = sender.start_ms + sender.rounds * STEP_MS
    result = program.query(f"counted_total[{sender.rounds + 10}s]", at_ms=end)
    return {r["metric"]["instance"]: [(round(t * 1000), float(v)) for t, v in r["values"]] for r in result}


def wait_stored(program: Program, sender: Sender, timeout_s: float = 120) -> None:
    """Return once exactly what was acknowledged is found, each sample once."""
    expected = {
        labels(i)["instance"]: [(sender.start_ms + n * STEP_MS, float(n * SERIES + i)) for n in range(sender.rounds)]
        for i in range(SERIES)
    }

    def all_of_it() -> bool:
        got = stored(program, sender)
        counts = {len(samples) for samples in got.values()}
        assert got == expected, f"{len(got)} series, sample counts {counts}, acknowledged rounds {sender.rounds}"
        return True

    wait_until(all_of_it, "exactly what was acknowledged", timeout_s)
