"""Metrics and log lines of every HTTP request, around all other wrappers.

Routes are named as Mimir names them: the path's template with everything but letters and digits as `_`, `other` for
what no route has. A push pays for this about a hundredth of a millisecond.
"""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Iterable
from typing import Literal

import structlog

from mimir_ingest.api.errors import Application, Receive, Scope, Send
from mimir_ingest.obs.histograms import Histogram
from mimir_ingest.obs.metrics import ServerMetrics
from mimir_ingest.obs.querier_metrics import QuerierRequestMetrics

OTHER = "other"
"""Name of whatever is not known beforehand, so that clients cannot make up label values."""
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_REMEMBERED_BYTES, _MOST_REMEMBERED = 200, 256
"""Of paths whose routes are remembered."""
_log = structlog.get_logger()


def route_name(template: str) -> str:
    """Return a path template as a label value. Source: Grafana dskit, `middleware.MakeLabelValue`."""
    return re.sub(r"[^a-zA-Z0-9]+", "_", template).strip("_").lower() or "root"


class RouteNames:
    """Finds the name of a path's route by its raw path. Immutable."""

    def __init__(self, templates: Iterable[str]) -> None:
        self._exact: dict[bytes, str] = {}
        self._patterns: list[tuple[re.Pattern[bytes], str]] = []
        for template in templates:
            prefix, below, _ = template.partition("{profile:path}")
            if below:  # all below a prefix is one route, as in Mimir
                self._patterns.append((re.compile(re.escape(prefix.encode()) + b".*"), route_name(prefix)))
            elif "{" in template:
                parts = re.split(r"\{\w+(?::\w+)?\}", template)
                text = "[^/]+".join(map(re.escape, parts))
                self._patterns.append((re.compile(text.encode()), route_name(template)))
            else:
                self._exact[template.encode()] = route_name(template)

    def of(self, path: bytes) -> str:
        """Return the route's name, `other` if there is none."""
        if (name := self._exact.get(path)) is not None:
            return name
        return next((name for pattern, name in self._patterns if pattern.fullmatch(path)), OTHER)


class _Series:
    """The series of one method and route."""

    def __init__(
        self, metrics: ServerMetrics, method: str, route: str, querier: QuerierRequestMetrics | None = None
    ) -> None:
        """`querier` shows the durations, too."""
        self._querier = querier
        self._durations, self._labels = metrics.request_duration_seconds, (method, route)
        self._by_status: dict[int, Histogram] = {}
        self.inflight = 0
        metrics.inflight_requests.labels(method, route).set_function(lambda: self.inflight)
        self.request_bytes = metrics.request_message_bytes.labels(method, route)
        self.response_bytes = metrics.response_message_bytes.labels(method, route)

    def duration(self, status: int) -> Histogram:
        found = self._by_status.get(status)
        if found is None:
            labels = (*self._labels, str(status), "false")
            found = self._by_status[status] = self._durations.labels(*labels)
            if self._querier is not None:
                self._querier.request_duration_seconds.show(found, *labels)
        return found


class Instrument:
    """Measures, and logs if asked to, every request that passes."""

    def __init__(
        self,
        application: Application,
        metrics: ServerMetrics,
        names: RouteNames,
        *,
        log_level: Literal["info", "debug"] | None,
        querier: QuerierRequestMetrics | None = None,
        querier_routes: Collection[str] = (),
    ) -> None:
        """Wrap `application`; `log_level` None logs nothing. Requests to `querier_routes` (names) are `querier`'s."""
        self._querier, self._querier_routes = querier, frozenset(querier_routes)
        self._application, self._metrics, self._names = application, metrics, names
        self._log_level = log_level
        self._series: dict[tuple[str, str], _Series] = {}
        self._series_of: dict[tuple[str, bytes], _Series] = {}
        """By what requests of the last paths said themselves."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request of an `exchange.Exchange` on, and take note of how it went by what it says of its traffic."""
        begun = time.perf_counter()
        method, path, traffic = scope["method"], scope["raw_path"], scope["traffic"]
        series = self._series_of.get((method, path)) or self._find_series(method, path)
        series.inflight += 1
        try:
            await self._application(scope, receive, send)
        finally:
            series.inflight -= 1
            seconds = time.perf_counter() - begun
            series.duration(traffic.status).observe(seconds)
            series.request_bytes.observe(traffic.received)
            series.response_bytes.observe(traffic.sent)
            if self._log_level is not None:
                getattr(_log, self._log_level)(
                    "request served",
                    method=method,
                    path=path.decode("latin-1"),
                    status=traffic.status,
                    duration=f"{seconds * 1000:.3f}ms",
                )

    def _find_series(self, method: str, path: bytes) -> _Series:
        key = (method if method in _METHODS else OTHER, self._names.of(path))
        series = self._series.get(key)
        if series is None:
            querier = self._querier if key[1] in self._querier_routes else None
            series = self._series[key] = _Series(self._metrics, *key, querier)
        if len(path) <= _REMEMBERED_BYTES:
            if len(self._series_of) >= _MOST_REMEMBERED:
                self._series_of.clear()
            self._series_of[method, path] = series
        return series
