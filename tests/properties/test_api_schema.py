"""Requests made up from the API's description: whatever is asked, the answer is one, in its form, and not a failure."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, settings

from tests.fuzz.described import check, push_samples
from tests.support.openapi import document
from tests.support.program import Program

EXAMPLES = 3
"""A route and method. why: half a minute for all; hundreds of each were run once."""

schema = schemathesis.openapi.from_dict(document())


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    flags = ["-distributor.influx-endpoint-enabled=true", "-querier.cardinality-analysis-enabled=true"]
    with Program(tmp_path_factory.mktemp("program"), *flags).start() as program:
        now_ms = push_samples(program)
        yield program
        assert program.http.get("/ready").status_code == 200
        assert program.query("count(up)", at_ms=now_ms)[0]["value"][1] == "2"
        failed = [line for line in Path(program.log_path).read_text().splitlines() if "Traceback" in line]
        assert not failed, failed[0]


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
    check(case, response)


def test_methods_that_a_route_does_not_have_are_405_and_unknown_paths_404(program):
    for path, operations in document()["paths"].items():
        filled = re.sub(r"{\w+}", "x", path)
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
