"""`/metrics`: this process's metrics (http-api, section 3.7). Matches any method, needs no tenant."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from mimir_ingest.api.ready import ANY_METHOD
from mimir_ingest.obs.exposition import write_exposition


def metrics_router(registry: CollectorRegistry) -> APIRouter:
    """Build `/metrics`: text 0.0.4, or OpenMetrics when asked for; `name[]` picks families; gzip when accepted.

    Each piece is made in a thread, and between two of them the event loop has its turn.
    """
    router = APIRouter()

    @router.api_route("/metrics", methods=ANY_METHOD)
    async def metrics(request: Request) -> Response:
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        pieces = write_exposition(registry, encode, names=frozenset(request.query_params.getlist("name[]")))
        headers = {"Content-Type": content_type, "Vary": "Accept, Accept-Encoding"}
        if accepts_gzip(request.headers.get("accept-encoding", "")):
            pieces = _compressed(pieces)
            headers["Content-Encoding"] = "gzip"
        return StreamingResponse(pieces, headers=headers)

    return router


def _compressed(pieces: Iterator[bytes]) -> Iterator[bytes]:
    compressor = zlib.compressobj(1, zlib.DEFLATED, 31)
    for piece in pieces:
        if out := compressor.compress(piece):
            yield out
    yield compressor.flush()


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
