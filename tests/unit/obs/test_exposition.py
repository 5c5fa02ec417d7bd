"""The exposition text is the library's, in pieces."""

import math

import pytest
from prometheus_client import Counter, Gauge, Histogram
from prometheus_client.exposition import choose_encoder

from mimir_ingest.obs.exposition import write_exposition
from mimir_ingest.obs.metrics import DistributorMetrics, ProcessMetrics, ServerMetrics, new_registry

ACCEPTS = ["", "text/plain; version=1.0.0", "application/openmetrics-text; version=1.0.0"]


def filled():
    """A registry with every kind of family that the program has, and odd labels and values."""
    registry = new_registry()
    ServerMetrics.create(registry).request_duration_seconds.labels("GET", "a_b", "200", "false").observe(0.1)
    distributor = DistributorMetrics.create(registry)
    for tenant, count in (("a", 1), ("b-c.d", 2.5), ('quote"', 1e6), ("back\\slash\nline", 123456789.125)):
        distributor.samples_in.labels(tenant).inc(count)
        distributor.samples_per_request.labels(tenant).observe(count)
        distributor.uncompressed_request_body_size_bytes.labels(tenant, "push").observe(count)
        distributor.discarded_samples.labels(tenant, "", "why").inc()
    gauge = Gauge("odd", 'A "text"\nof two \\ lines.', ["zone", "alpha"], registry=registry)
    numbers = (-math.inf, math.inf, math.nan, -1e9, -0.0, 1e-9, 999999.5, 1e6, 1e22)
    for i, value in enumerate((*numbers, 7)):
        gauge.labels(i, "é").set(value)
    gauge.labels("function", "").set_function(lambda: 42)
    Histogram("below", "Bounds below zero.", ["job", "z"], buckets=(-1, 0, 1), registry=registry).labels(
        "j", "k"
    ).observe(5)
    Counter("childless", "None yet.", ["user"], registry=registry)
    return registry


@pytest.mark.parametrize("accept", ACCEPTS)
def test_the_text_is_what_the_library_writes(accept):
    registry = filled()
    encode, _ = choose_encoder(accept)
    assert b"".join(write_exposition(registry, encode)) == encode(registry)


@pytest.mark.parametrize("accept", ACCEPTS)
def test_pieces_are_small_whatever_the_number_of_tenants(accept):
    registry = new_registry()
    metrics = DistributorMetrics.create(registry)
    for tenant in range(500):
        metrics.samples_per_request.labels(f"t{tenant}").observe(1)
    encode, _ = choose_encoder(accept)
    pieces = list(write_exposition(registry, encode, piece_lines=100))
    assert b"".join(pieces) == encode(registry)
    assert len(pieces) > 50
    assert max(piece.count(b"\n") for piece in pieces) < 300


def test_what_the_library_collects_itself_is_there():
    registry = new_registry()
    ProcessMetrics.create(registry, version="1", revision="r", branch="b")
    text = b"".join(write_exposition(registry, choose_encoder("")[0]))
    assert b"\nprocess_open_fds " in text
    assert b'\ncortex_build_info{branch="b",' in text
