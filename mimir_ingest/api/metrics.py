"""`/metrics`: this process's metrics (http-api, section 3.7). Matches any method, needs no tenant."""

from __future__ import annotations

import gzip
from collections.abc import Collection, Iterator

from fastapi import APIRouter, Request
from fastapi.responses import Response
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.exposition import choose_encoder

from mimir_ingest.api.ready import ANY_METHOD

_COUNTER_SUFFIX = "_total"


class _Families:
    """A view of a registry with some metric families only."""

    def __init__(self, registry: CollectorRegistry, names: Collection[str]) -> None:
        self._registry = registry
        self._names = frozenset(names)

    def collect(self) -> Iterator[Metric]:
        for family in self._registry.collect():
            exposed = family.name + _COUNTER_SUFFIX if family.type == "counter" else family.name
            if family.name in self._names or exposed in self._names:
                yield family


def metrics_router(registry: CollectorRegistry) -> APIRouter:
    """Build `/metrics`: text 0.0.4, or OpenMetrics when asked for; `name[]` picks families; gzip when accepted."""
    router = APIRouter()

    @router.api_route("/metrics", methods=ANY_METHOD)
    def metrics(request: Request) -> Response:
        names = request.query_params.getlist("name[]")
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        body = encode(_Families(registry, names) if names else registry)  # type: ignore[arg-type]
        headers = {"Content-Type": content_type, "Vary": "Accept, Accept-Encoding"}
        if accepts_gzip(request.headers.get("accept-encoding", "")):
            body = gzip.compress(body, compresslevel=1)
            headers["Content-Encoding"] = "gzip"
        return Response(body, headers=headers)

    return router


def accepts_gzip(header: str) -> bool:
    """Say whether an `Accept-Encoding` allows gzip: named (or `*`) with a quality above zero."""
    for part in header.split(","):
        coding, *parameters = (piece.strip().lower() for piece in part.split(";"))
        if coding in ("gzip", "*"):
            quality = next((piece[2:] for piece in parameters if piece.startswith("q=")), "1")
            try:
                return float(quality) > 0
            except ValueError:
                return False
    return False
