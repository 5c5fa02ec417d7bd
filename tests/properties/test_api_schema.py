"""Requests made up from the API's description: whatever is asked, the answer is one, in its form, and not a failure."""

from __future__ import annotations

import time
from pathlib import Path

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import content_type_conformance, response_schema_conformance

from tests.support import remote_write
from tests.support.openapi import document
from tests.support.program import Program

EXAMPLES = 3
"""A route and method. why: half a minute for all; hundreds of each were run once."""

schema = schemathesis.openapi.from_dict(document())


@schemathesis.serializer("application/x-protobuf", "application/x-protobuf;proto=io.prometheus.write.v2.Request")
def protobuf(context, value):
    return value.encode("utf-8", "surrogatepass") if isinstance(value, str) else bytes(value)


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    flags = ["-distributor.influx-endpoint-enabled=true", "-querier.cardinality-analysis-enabled=true"]
    with Program(tmp_path_factory.mktemp("program"), *flags).start() as program:
        now_ms = int(time.time() * 1000)
        samples = [(now_ms - k * 15_000, float(k)) for k in range(20, 0, -1)]
        series = [({"__name__": "up", "job": job}, samples) for job in "ab"]
        series += [({"__name__": "h", "le": le}, samples) for le in ("1", "2", "+Inf")]
        assert program.push(remote_write.body(series)).status_code == 200
        yield program
        assert program.http.get("/ready").status_code == 200
        assert program.query("count(up)", at_ms=now_ms)[0]["value"][1] == "2"
        failed = [line for line in Path(program.log_path).read_text().splitlines() if "Traceback" in line]
        assert not failed, failed[0]


def may_fail(case, response) -> bool:
    """Whether Mimir, too, answers so: a time-out that the request asked for, and what was never implemented."""
    return (response.status_code == 503 and "timed out" in response.text) or (
        case.method == "DELETE" and "not implemented" in response.text
    )


@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_every_route_answers_whatever_it_is_asked(case, program):
    response = case.call(base_url=program.url, timeout=60)
    if response.status_code == 204 or (not response.content and response.status_code in (400, 405, 501)):
        return
    checks = [content_type_conformance, response_schema_conformance]
    if not may_fail(case, response):
        checks.append(not_a_server_error)
    case.validate_response(response, checks=checks)


def test_methods_that_a_route_does_not_have_are_405_and_unknown_paths_404(program):
    for path, operations in document()["paths"].items():
        filled = path.replace("{name}", "x").replace("{tenant}", "x")
        for method in ("PATCH", "TRACE", "OPTIONS", "PROPFIND"):
            answer = program.http.request(method, filled)
            if path in ("/metrics", "/ready"):
                assert answer.status_code < 500
            else:
                assert (answer.status_code, answer.content) in ((405, b""), (404, b"404 page not found\n")), path
        assert set(operations) <= {"get", "post", "put", "delete"}


def test_a_form_of_megabytes_is_413(program):
    for path in ("/ingester/flush", "/ingester/ring", "/ingester/partition-ring"):
        for content in (b"x" * (2 << 20), iter([b"x" * 65_536] * 32)):
            answer = httpx.post(program.url + path, content=content, timeout=60)
            assert answer.status_code == 413


def test_a_flush_of_what_is_no_tenant_is_400(program):
    for tenant in ("%ff", "..", "a%2fb", "a%00"):
        assert program.http.post(f"/ingester/flush?tenant=a&tenant={tenant}").status_code == 400
