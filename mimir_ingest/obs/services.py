"""States of the parts that a process is made of, as `/services` and `/ready` show them.

    New ─► Starting ─► Running ─► Stopping ─► Terminated
              └───────────┴───────────┴──────► Failed

A part may go from New straight to Terminated (never started). The composition root sets states; pages read them.
Source: states of Grafana's service library, `services/service.go`.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType

from mimir_ingest.config.durations import Duration
from mimir_ingest.errors import InvariantViolated


class ServiceState(enum.StrEnum):
    """State of one part; the text is what Mimir's page shows."""

    NEW = "New"
    STARTING = "Starting"
    RUNNING = "Running"
    STOPPING = "Stopping"
    TERMINATED = "Terminated"
    FAILED = "Failed"


ALLOWED_TRANSITIONS: Mapping[ServiceState, frozenset[ServiceState]] = MappingProxyType(
    {
        ServiceState.NEW: frozenset({ServiceState.STARTING, ServiceState.TERMINATED}),
        ServiceState.STARTING: frozenset({ServiceState.RUNNING, ServiceState.STOPPING, ServiceState.FAILED}),
        ServiceState.RUNNING: frozenset({ServiceState.STOPPING, ServiceState.FAILED}),
        ServiceState.STOPPING: frozenset({ServiceState.TERMINATED, ServiceState.FAILED}),
        ServiceState.TERMINATED: frozenset(),
        ServiceState.FAILED: frozenset(),
    }
)


class ServiceRegistry:
    """All parts of a process and the request to stop. One event loop writes; any thread may read."""

    def __init__(self, on_change: Callable[[str, ServiceState], None] | None = None) -> None:
        self._states: dict[str, ServiceState] = {}
        self._on_change = on_change
        self._reasons: dict[str, Callable[[], str | None]] = {}
        self.stopping = False
        """Set when the process was asked to stop; it may go on serving for `shutdown_delay`."""

    def set_state(self, name: str, state: ServiceState) -> None:
        """Record a part's new state; an unknown part starts as New. Raises InvariantViolated for a forbidden change."""
        before = self._states.get(name)
        if before is state:
            return
        if before is None and state is not ServiceState.NEW:
            before = ServiceState.NEW
        if before is not None and state not in ALLOWED_TRANSITIONS[before]:
            raise InvariantViolated(f"service {name} cannot go from {before} to {state}")
        self._states = {**self._states, name: state}
        if self._on_change is not None:
            self._on_change(name, state)

    def explain(self, name: str, reason: Callable[[], str | None]) -> None:
        """Have a part say what it waits for, or None, while it is not Running."""
        self._reasons[name] = reason

    def reason(self, name: str) -> str | None:
        """Return what a part waits for, if it says so."""
        return self._reasons[name]() if name in self._reasons else None

    def states(self) -> dict[str, ServiceState]:
        """Return all states by name, sorted by name."""
        return dict(sorted(self._states.items()))

    def not_running(self) -> dict[str, ServiceState]:
        """Return the parts that are not Running, sorted by name."""
        return {name: state for name, state in self.states().items() if state is not ServiceState.RUNNING}


class ReadySince:
    """Delays an ingester's readiness: its checks must have passed for a while. Then only the checks count."""

    def __init__(
        self, reason: Callable[[], str | None], *, min_ready: Duration, now_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._reason, self._min_ready, self._now_s = reason, min_ready, now_s
        self._since_s: float | None = None
        self._done = not min_ready

    def __call__(self) -> str | None:
        """Return why the ingester is not ready, or None. Source: http-api, section 3.6."""
        reason = self._reason()
        if reason is not None or self._done:
            self._since_s = None
            return reason
        now_s = self._now_s()
        if self._since_s is None:
            self._since_s = now_s
        self._done = now_s - self._since_s >= self._min_ready.seconds
        return None if self._done else f"waiting for {self._min_ready} after being ready"


def readiness(registry: ServiceRegistry, ingester_reason: Callable[[], str | None] | None) -> str | None:
    """Return why the process is not ready, in Mimir's words and order, or None when it is.

    What a part waits for stands behind its state. Source: http-api, section 3.6.
    """
    if registry.stopping:
        return "Application is stopping"
    waiting = registry.not_running()
    if waiting:
        reasons = {name: registry.reason(name) for name in waiting}
        lines = [f"{n}: {s} ({reasons[n]})" if reasons[n] else f"{n}: {s}" for n, s in waiting.items()]
        return "\n".join(["Some services are not Running:", *lines])
    reason = ingester_reason() if ingester_reason is not None else None
    return f"Ingester not ready: {reason}" if reason else None
