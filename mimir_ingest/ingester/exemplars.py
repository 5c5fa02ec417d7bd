"""Exemplars in memory: the newest of each partition and tenant, in a circle of bounded size (spec ingest-storage 8.7).

They decide nothing and are in no block; a restart has those again that are read again from the log. What a series takes
is what Prometheus's storage of exemplars takes: see `_Circle.refuses` and `_Circle.add`.
"""

from __future__ import annotations

import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mimir_ingest.ingester.partition import ReceivedExemplars
from mimir_ingest.kernels.hashing import xxh64_spans
from mimir_ingest.model.labels import get_uvarint
from mimir_ingest.model.matchers import Matcher
from mimir_ingest.model.spans import Check, even_spans

PART_SERIES = 256
"""Series whose exemplars are looked at at a time. why: some milliseconds, in which none can be taken."""


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
    """One tenant's exemplars of one partition."""

    def __init__(self) -> None:
        self._arrivals: deque[tuple[bytes, _Point]] = deque()
        """All of them as they came, the oldest first."""
        self._series: dict[bytes, list[_Point]] = {}
        """Each series' by time; those of one time as they came."""

    def __len__(self) -> int:
        return len(self._arrivals)

    @property
    def series_count(self) -> int:
        return len(self._series)

    def newest_ms(self) -> int:
        return max(known[-1][0] for known in self._series.values())

    def refuses(self, series: bytes, point: _Point, window_ms: int) -> bool:
        """Tell whether an exemplar repeats the series' newest, or is before it by its window or more.

        Of those of the newest one's time, only larger values follow, and of one value only larger hashes of the labels.
        """
        known = self._series.get(series)
        if known is None:
            return False
        newest, (timestamp, value, labels) = known[-1], point
        if timestamp != newest[0]:
            return timestamp < newest[0] and timestamp <= newest[0] - window_ms
        if value != newest[1]:
            return value < newest[1]
        return labels == newest[2] or _labels_hash(labels) < _labels_hash(newest[2])

    def add(self, series: bytes, point: _Point, window_ms: int) -> bool:
        """Take one, unless it is refused or, being out of order, of a time that the series has one of already."""
        if self.refuses(series, point, window_ms):
            return False
        known = self._series.setdefault(series, [])
        at = bisect_right(known, point[0], key=_timestamp)
        if 0 < at < len(known) and known[at - 1][0] == point[0]:
            return False
        known.insert(at, point)
        self._arrivals.append((series, point))
        return True

    def shrink(self, limit: int) -> None:
        """Let go of those that came first."""
        while len(self._arrivals) > limit:
            series, point = self._arrivals.popleft()
            known = self._series[series]
            known.remove(point)
            if not known:
                del self._series[series]

    def keys(self) -> list[bytes]:
        """Return the label bytes of the series."""
        return list(self._series)

    def within(self, series: Collection[bytes], start_ms: int, end_ms: int) -> list[tuple[bytes, list[_Point]]]:
        """Return the exemplars in `[start_ms, end_ms)` of each of these series that has some, by time."""
        found = []
        for key in series:
            known = self._series.get(key, [])
            first, last = (bisect_right(known, ms - 1, key=_timestamp) for ms in (start_ms, end_ms))
            if first < last:
                found.append((key, known[first:last]))
        return found


def _timestamp(point: _Point) -> int:
    return point[0]


def _labels_hash(label_bytes: bytes) -> int:
    """Return xxHash64 of labels in the form that Prometheus keeps them in: sizes of 255 and more take four bytes."""
    kept = bytearray()
    for text in _texts(label_bytes):
        size = len(text)
        kept += bytes([size]) if size < 255 else b"\xff" + size.to_bytes(3, "little")
        kept += text
    hashes = np.empty(1, np.uint64)
    xxh64_spans(np.frombuffer(kept, np.uint8), np.array([0, len(kept)], np.int64), hashes)
    return int(hashes[0])


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

    def add(self, partition: int, received: ReceivedExemplars) -> int:
        """Take the exemplars of a record, as far as their series exist; return how many were taken."""
        batch, exemplars, limit = received.batch, received.batch.exemplars, self._limit_of(received.tenant)
        if exemplars is None or limit <= 0:
            return 0
        text, ends = memoryview(np.ascontiguousarray(batch.labels)), batch.label_offsets.tolist()
        labels = exemplars.label_bytes()
        points = []
        for series in np.flatnonzero(received.known & (np.diff(exemplars.offsets) > 0)).tolist():
            key = bytes(text[ends[series] : ends[series + 1]])
            for i in range(*exemplars.offsets[series : series + 2].tolist()):
                points.append((key, (int(exemplars.timestamps[i]), float(exemplars.values[i]), labels[i])))
        taken = 0
        with self._lock:
            circle = self._circles.setdefault((partition, received.tenant), _Circle())
            # As in Prometheus, what the state before the record refuses stays out, whatever the record pushes out.
            for key, point in [one for one in points if not circle.refuses(*one, received.window_ms)]:
                taken += circle.add(key, point, received.window_ms)
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

    def held(self) -> dict[str, tuple[int, int, int]]:
        """Return each tenant's exemplars, series with some, and newest time (ms)."""
        found: dict[str, tuple[int, int, int]] = {}
        with self._lock:
            for key, tenant in [(key, key[1]) for key in self._circles]:
                if len(circle := self._held(key)):
                    count, series, newest_ms = found.get(tenant, (0, 0, circle.newest_ms()))
                    newest_ms = max(newest_ms, circle.newest_ms())
                    found[tenant] = count + len(circle), series + circle.series_count, newest_ms
        return found

    def select(
        self,
        tenant: str,
        matchers: Sequence[Matcher],
        start_ms: int,
        end_ms: int,
        partitions: Collection[int],
        check: Check | None = None,
    ) -> list[SeriesExemplars]:
        """Return the exemplars in `[start_ms, end_ms)` of the series that satisfy all matchers.

        Some series at a time: between them `check` is called, and exemplars are taken.
        """
        with self._lock:
            circles = [self._held(key) for key in self._circles if key[1] == tenant and key[0] in partitions]
            wanted = [(circle, circle.keys()) for circle in circles]
        answer = []
        for circle, keys in wanted:
            for first, last in even_spans(len(keys), PART_SERIES, check):
                with self._lock:
                    found = circle.within(keys[first:last], start_ms, end_ms)
                for series, points in found:
                    labels = _decode(series)
                    if labels and all(m.matches(labels.get(m.name, "")) for m in matchers):
                        answer.append(SeriesExemplars(labels, [Exemplar(_decode(p[2]), p[1], p[0]) for p in points]))
        return answer

    def _held(self, key: tuple[int, str]) -> _Circle:
        """Return a circle, held to the limit of now: it may have changed since the last exemplar came."""
        circle = self._circles[key]
        circle.shrink(max(self._limit_of(key[1]), 0))
        return circle


def _texts(label_bytes: bytes) -> list[bytes]:
    """Return names and values in turn; those from a malformed place on are left out."""
    texts, at = [], 0
    try:
        while at < len(label_bytes):
            size, at = get_uvarint(label_bytes, at)
            if at + size > len(label_bytes):
                break
            texts.append(label_bytes[at : at + size])
            at += size
    except ValueError:
        return texts
    return texts


def _decode(label_bytes: bytes) -> dict[str, str]:
    texts = [text.decode("utf-8", "replace") for text in _texts(label_bytes)]
    return dict(zip(texts[::2], texts[1::2], strict=False))


def merge_exemplars(parts: Sequence[SeriesExemplars], check: Check | None = None) -> list[SeriesExemplars]:
    """Return distinct series in label order with their distinct exemplars by time, those of one time as they came.

    `check` is called between parts of the work.
    """
    found: dict[tuple[tuple[str, str], ...], dict[tuple, Exemplar]] = {}
    for first, last in even_spans(len(parts), PART_SERIES, check):
        for part in parts[first:last]:
            known = found.setdefault(tuple(sorted(part.labels.items())), {})
            for one in part.exemplars:
                known.setdefault((one.timestamp_ms, str(one.value), *sorted(one.labels.items())), one)
    return [
        SeriesExemplars(dict(key), sorted(known.values(), key=lambda one: one.timestamp_ms))
        for key, known in sorted(found.items())
    ]
