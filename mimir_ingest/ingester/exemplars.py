"""Exemplars in memory: the newest of each partition and tenant, in a circle of bounded size (spec ingest-storage 8.7).

They decide nothing and are in no block; a restart has those again that are read again from the log. Of one series an
exemplar that is older than the newest one known, or equal to it, is not taken, as in Prometheus.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mimir_ingest.model.batch import WriteBatch
from mimir_ingest.model.labels import get_uvarint
from mimir_ingest.model.matchers import Matcher


@dataclass(frozen=True, slots=True)
class Exemplar:
    """One exemplar."""

    labels: dict[str, str]
    value: float
    timestamp_ms: int


@dataclass(frozen=True, slots=True)
class SeriesExemplars:
    """The exemplars of one series, by time."""

    labels: dict[str, str]
    exemplars: list[Exemplar]


_Point = tuple[int, float, bytes]
"""Timestamp, value, label bytes."""


class _Circle:
    """One tenant's exemplars of one partition, the oldest first."""

    def __init__(self) -> None:
        self.points: deque[tuple[bytes, _Point]] = deque()
        self._newest: dict[bytes, _Point] = {}
        self._counts: dict[bytes, int] = {}

    def add(self, series: bytes, point: _Point) -> bool:
        newest = self._newest.get(series)
        if newest is not None and point <= newest:
            return False
        self._newest[series] = point
        self._counts[series] = self._counts.get(series, 0) + 1
        self.points.append((series, point))
        return True

    def shrink(self, limit: int) -> None:
        while len(self.points) > limit:
            series, _ = self.points.popleft()
            self._counts[series] -= 1
            if not self._counts[series]:
                del self._counts[series], self._newest[series]


class ExemplarStore:
    """Exemplars of all tenants. Any thread.

    Parameters
    ----------
    limit_of
        How many exemplars of a tenant a partition keeps; 0: none.
    """

    def __init__(self, limit_of: Callable[[str], int]) -> None:
        self._limit_of = limit_of
        self._lock = threading.Lock()
        self._circles: dict[tuple[int, str], _Circle] = {}

    def add(self, partition: int, tenant: str, batch: WriteBatch) -> int:
        """Take the exemplars of a record; return how many were taken."""
        exemplars, limit = batch.exemplars, self._limit_of(tenant)
        if exemplars is None or limit <= 0:
            return 0
        series_of = np.repeat(np.arange(batch.series_count), np.diff(exemplars.offsets))
        text, ends = memoryview(np.ascontiguousarray(batch.labels)), batch.label_offsets
        taken = 0
        with self._lock:
            circle = self._circles.setdefault((partition, tenant), _Circle())
            for series, timestamp, value, labels in zip(
                series_of.tolist(),
                exemplars.timestamps.tolist(),
                exemplars.values.tolist(),
                exemplars.label_bytes(),
                strict=True,
            ):
                key = bytes(text[ends[series] : ends[series + 1]])
                taken += circle.add(key, (timestamp, value, labels))
            circle.shrink(limit)
        return taken

    def forget(self, partition: int) -> None:
        """Drop a partition that is consumed elsewhere now."""
        with self._lock:
            for key in [key for key in self._circles if key[0] == partition]:
                del self._circles[key]

    def keep(self, tenants: Mapping[int, Collection[str]]) -> None:
        """Drop what belongs to tenants that these partitions do not know: partition → tenants that it knows."""
        with self._lock:
            for key in [key for key in self._circles if key[0] in tenants and key[1] not in tenants[key[0]]]:
                del self._circles[key]

    def count(self) -> int:
        """Return the number of exemplars."""
        with self._lock:
            return sum(len(circle.points) for circle in self._circles.values())

    def select(
        self, tenant: str, matchers: Sequence[Matcher], start_ms: int, end_ms: int, partitions: Collection[int]
    ) -> list[SeriesExemplars]:
        """Return the exemplars in `[start_ms, end_ms)` of the series that satisfy all matchers."""
        with self._lock:
            held = [list(c.points) for (p, t), c in self._circles.items() if t == tenant and p in partitions]
        found: dict[bytes, list[_Point]] = {}
        for points in held:
            for series, point in points:
                if start_ms <= point[0] < end_ms:
                    found.setdefault(series, []).append(point)
        answer = []
        for series, points in found.items():
            labels = _decode(series)
            if labels and all(m.matches(labels.get(m.name, "")) for m in matchers):
                answer.append(SeriesExemplars(labels, [Exemplar(_decode(p[2]), p[1], p[0]) for p in sorted(points)]))
        return answer


def _decode(label_bytes: bytes) -> dict[str, str]:
    """Return the labels of label bytes; those behind a malformed place are left out."""
    labels, at = {}, 0
    try:
        while at < len(label_bytes):
            texts = []
            for _ in range(2):
                size, at = get_uvarint(label_bytes, at)
                if at + size > len(label_bytes):
                    return labels
                texts.append(label_bytes[at : at + size].decode("utf-8", "replace"))
                at += size
            labels[texts[0]] = texts[1]
    except (IndexError, ValueError):
        return labels
    return labels


def merge_exemplars(parts: Sequence[SeriesExemplars]) -> list[SeriesExemplars]:
    """Return distinct series in label order with their distinct exemplars, by time."""
    found: dict[tuple[tuple[str, str], ...], dict[tuple, Exemplar]] = {}
    for part in parts:
        known = found.setdefault(tuple(sorted(part.labels.items())), {})
        for one in part.exemplars:
            known.setdefault((one.timestamp_ms, str(one.value), *sorted(one.labels.items())), one)
    return [SeriesExemplars(dict(key), [known[k] for k in sorted(known)]) for key, known in sorted(found.items())]
