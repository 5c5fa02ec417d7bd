"""Requests of several tenants against the running program: whose each series is, and what several cannot ask."""

from __future__ import annotations

import time
from collections.abc import Iterator

import cramjam
import httpx
import pytest

from tests.support.program import Program
from tests.support.protobuf_schema import WriteRequest
from tests.support.remote_read import EQ, RE, compressed, read_request, read_samples

AT_MS = int(time.time() * 1000)
ALL = "c|a|b|a"
SERIES = {
    "a": {"m": [{"job": "x"}], "own": [{"__tenant_id__": "mine"}]},
    "b": {"m": [{"job": "x"}, {"job": "y"}]},
    "c": {"other": [{}]},
}


def body(tenant: str) -> bytes:
    request = WriteRequest()
    for name, sets in SERIES[tenant].items():
        for labels in sets:
            row = request.timeseries.add()
            for key, value in sorted({"__name__": name, **labels}.items()):
                row.labels.add(name=key.encode(), value=value.encode())
            row.samples.add(timestamp=AT_MS, value=len(row.labels))
            exemplar = row.exemplars.add(value=1, timestamp=AT_MS)
            exemplar.labels.add(name=b"trace_id", value=tenant.encode())
        request.metadata.add(type=2, metric_family_name=name.encode(), help=tenant.encode())
    return bytes(cramjam.snappy.compress_raw(request.SerializeToString()))


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    flags = ["-tenant-federation.enabled=true", "-tenant-federation.max-tenants=3"]
    flags.append("-ingester.max-global-exemplars-per-user=100")
    with Program(tmp_path_factory.mktemp("federation"), *flags, multitenancy=True).start() as running:
        for tenant in SERIES:
            assert running.push(body(tenant), tenant=tenant).status_code == 200
        yield running


def get(program: Program, path: str, tenant: str = ALL, **params: object) -> httpx.Response:
    params = {name.replace("match", "match[]"): value for name, value in params.items()}
    return program.http.get(f"/prometheus/api/v1/{path}", params=params, headers={"X-Scope-OrgID": tenant})


def data(program: Program, path: str, tenant: str = ALL, **params: object):
    answer = get(program, path, tenant, **params)
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


def labels(program: Program, query: str, tenant: str = ALL) -> list[dict]:
    return [one["metric"] for one in data(program, "query", tenant, query=query, time=AT_MS / 1000)["result"]]


def test_every_series_says_whose_it_is_and_a_label_of_that_name_is_kept(program):
    m = {"__name__": "m"}
    assert labels(program, "m") == [
        {**m, "__tenant_id__": "a", "job": "x"},
        {**m, "__tenant_id__": "b", "job": "x"},
        {**m, "__tenant_id__": "b", "job": "y"},
    ]
    assert labels(program, "own") == [{"__name__": "own", "__tenant_id__": "a", "original___tenant_id__": "mine"}]
    assert labels(program, "m", "a|a") == [{**m, "job": "x"}]


def test_matchers_on_the_tenant_choose_tenants_in_each_selector_of_its_own(program):
    assert [one["__tenant_id__"] for one in labels(program, 'm{__tenant_id__!="b"}')] == ["a"]
    assert [one["__name__"] for one in labels(program, '{__tenant_id__="a"}')] == ["m", "own"]
    assert labels(program, 'm{__tenant_id__="nobody"}') == []
    both = 'm{__tenant_id__="b"} and on (job) m{__tenant_id__="a"}'
    assert labels(program, both) == [{"__name__": "m", "__tenant_id__": "b", "job": "x"}]
    ranges = data(
        program, "query_range", query="count by (__tenant_id__) (m)", start=AT_MS / 1000, end=AT_MS / 1000, step=1
    )
    found = [(one["metric"]["__tenant_id__"], one["values"][0][1]) for one in ranges["result"]]
    assert found == [("a", "1"), ("b", "2")]


def test_series_names_and_values_are_those_of_all(program):
    assert data(program, "labels") == ["__name__", "__tenant_id__", "job", "original___tenant_id__"]
    assert data(program, "labels", "b|c") == ["__name__", "__tenant_id__", "job"]
    assert data(program, "label/__tenant_id__/values") == ["a", "b", "c"]
    assert data(program, "label/__tenant_id__/values", match='{__tenant_id__=~"b|c",job="x"}') == ["b", "c"]
    assert data(program, "label/original___tenant_id__/values") == ["mine"]
    assert data(program, "label/__name__/values", match='{__tenant_id__="b"}') == ["m"]
    assert [one["__tenant_id__"] for one in data(program, "series", match='{job="x"}')] == ["a", "b"]


def test_exemplars_and_metadata_are_those_of_all(program):
    asked = {"query": "m", "start": AT_MS / 1000 - 60, "end": AT_MS / 1000 + 60}
    found = data(program, "query_exemplars", **asked)
    assert [(one["seriesLabels"]["__tenant_id__"], one["exemplars"][0]["labels"]["trace_id"]) for one in found] == [
        ("a", "a"),
        ("b", "b"),
        ("b", "b"),
    ]
    families = data(program, "metadata")
    assert {family: [item["help"] for item in items] for family, items in families.items()} == {
        "m": ["a", "b"],
        "other": ["c"],
        "own": ["a"],
    }


def test_remote_read_reads_all(program):
    content = compressed(read_request((AT_MS, AT_MS, [(EQ, "__name__", "m"), (RE, "__tenant_id__", "a|c")])))
    answer = program.http.post("/prometheus/api/v1/read", content=content, headers={"X-Scope-OrgID": ALL})
    [series] = read_samples(bytes(cramjam.snappy.decompress_raw(answer.content)))
    assert [found for found, _ in series] == [{"__name__": "m", "__tenant_id__": "a", "job": "x"}]


def test_what_cannot_be_asked_of_several_is_refused(program):
    too_many = get(program, "query", "a|b|c|d", query="m")
    text = "too many tenant IDs present in the request. max: 3 actual: 4\n"
    assert (too_many.status_code, too_many.text) == (422, text)
    pushed = program.push(body("a"), tenant="a|b")
    assert (pushed.status_code, pushed.text) == (500, "multiple org IDs present\n")
    failed = get(program, "query", query='m + on () {__name__=~"m|own"}', time=AT_MS / 1000)
    assert failed.status_code == 422
