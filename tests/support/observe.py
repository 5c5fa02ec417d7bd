"""Watching a process from outside: waiting for what must come true, single values, metrics, log lines."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

import httpx

from tests.support.program import Program
from tests.support.remote_write import body

Found = TypeVar("Found")


def now_ms() -> int:
    """Return the present second (ms since the Unix epoch)."""
    return int(time.time()) * 1000


def wait_until(holds: Callable[[], Found], what: str, timeout_s: float = 120) -> Found:
    """Return the first true value of `holds()`; a failed assertion or no connection counts as not yet."""
    deadline = time.monotonic() + timeout_s
    last = None
    while time.monotonic() < deadline:
        try:
            if found := holds():
                return found
        except (httpx.TransportError, AssertionError) as error:
            last = error
        time.sleep(0.1)
    raise AssertionError(f"{what} did not come true within {timeout_s} s; {last}")


def one(name: str, value: float, at_ms: int, **labels: str) -> bytes:
    """Return a body of one sample."""
    return body([({"__name__": name, **labels}, [(at_ms, value)])])


def push_until_taken(program: Program, payload: bytes, *, timeout_s: float = 120) -> list[httpx.Response]:
    """Push as a sender does; return the answers before the one that was 200."""
    answers: list[httpx.Response] = []

    def taken() -> bool:
        answers.append(program.push(payload))
        return answers[-1].status_code == 200

    wait_until(taken, "a push that is taken", timeout_s)
    return answers[:-1]


def values(program: Program, expression: str, at_ms: int, *, tenant: str | None = None) -> list[float]:
    """Return the values of an instant query."""
    return [float(r["value"][1]) for r in program.query(expression, at_ms=at_ms, tenant=tenant)]


def metric(program: Program, name: str, labels: Mapping[str, str] | None = None) -> float:
    """Return the sum of a metric's series that have these labels; 0 without any."""
    total = 0.0
    for line in program.http.get("/metrics").text.splitlines():
        found = re.fullmatch(rf"{name}(?:\{{(.*)\}})? (\S+)", line)
        if found and all(f'{k}="{v}"' in (found[1] or "") for k, v in (labels or {}).items()):
            total += float(found[2])
    return total
