"""The query API judged by a real Prometheus that was sent the same bodies; Mimir's texts where they differ."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.support.program import Program
from tests.support.prometheus import EVERY_PROMQL_OPTION, run_prometheus
from tests.support.query_api_cases import END, Request, requests, stored_series
from tests.support.remote_write import body

PREFIX = "/prometheus/api/v1/"


@dataclass(frozen=True)
class Both:
    """The program and its judge, holding the same samples."""

    ours: Program
    theirs: httpx.Client


@pytest.fixture(scope="module")
def both(prometheus_bin: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    folder = tmp_path_factory.mktemp("judge")
    flags = [
        "-validation.name-validation-scheme=utf8",
        "-query-frontend.enabled-promql-experimental-functions=all",
        "-query-frontend.enabled-promql-extended-range-selectors=all",
    ]
    options = ["--web.enable-remote-write-receiver", f"--enable-feature={EVERY_PROMQL_OPTION}"]
    sent = body(stored_series())
    with (
        run_prometheus(prometheus_bin, folder, *options) as theirs,
        Program(tmp_path_factory.mktemp("program"), *flags).start() as ours,
    ):
        headers = {
            "Content-Encoding": "snappy",
            "Content-Type": "application/x-protobuf",
            "X-Prometheus-Remote-Write-Version": "0.1.0",
        }
        answer = theirs.post("/api/v1/write", content=sent, headers=headers)
        assert answer.status_code == 204, answer.text
        answer = ours.push(sent)
        assert answer.status_code == 200, answer.text
        deadline = time.monotonic() + 120
        while not ours.query("requests_total", at_ms=END * 1000):
            assert time.monotonic() < deadline, ours.log_tail()
            time.sleep(0.05)
        yield Both(ours, theirs)


def send(client: httpx.Client, prefix: str, request: Request, method: str) -> httpx.Response:
    url = f"{prefix}{request.path}"
    query = request.raw_query
    if method == "GET":
        query = b"&".join(part for part in (str(httpx.QueryParams(list(request.params))).encode(), query) if part)
        return client.get(httpx.URL(client.base_url.join(url), query=query))
    form = str(httpx.QueryParams(list(request.params))).encode()
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    return client.post(httpx.URL(client.base_url.join(url), query=query), content=form, headers=headers)


def comparable(response: httpx.Response) -> object:
    """An answer without what may differ: the order of series that has no meaning, and times taken."""
    try:
        # Prometheus passes bytes on that are no UTF-8; a reader of JSON makes them U+FFFD.
        document = json.loads(response.content.decode("utf-8", "replace"))
    except ValueError:
        return response.text
    data = document.get("data")
    if response.url.path.endswith("/series") and isinstance(data, list):
        data.sort(key=json.dumps)
    if isinstance(data, dict) and data.get("resultType") == "vector":
        data["result"].sort(key=json.dumps)
    if isinstance(data, dict) and "stats" in data:
        data["stats"]["timings"] = sorted(data["stats"]["timings"])
    return document


@pytest.mark.peer
@pytest.mark.parametrize("request_", requests(), ids=str)
def test_the_answer_is_the_one_of_prometheus_or_the_one_that_mimir_specifies(both: Both, request_: Request):
    for method in request_.methods:
        ours = send(both.ours.http, PREFIX, request_, method)
        if request_.ours is not None:
            status, document = request_.ours
            assert (ours.status_code, comparable(ours)) == (status, document), method
            continue
        theirs = send(both.theirs, "/api/v1/", request_, method)
        assert comparable(ours) == comparable(theirs), method
        assert ours.status_code == theirs.status_code, method


@pytest.mark.peer
@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({}, {"a": ["counter", "gauge"], "b": ["histogram"]}),
        ({"metric": "b"}, {"b": ["histogram"]}),
        ({"metric": "nothing"}, {}),
        ({"limit": "1"}, {"a": ["counter", "gauge"]}),
        ({"limit": "0"}, {}),
        ({"limit": "-1", "limit_per_metric": "1"}, {"a": ["counter"], "b": ["histogram"]}),
        ({"limit_per_metric": "0"}, {"a": ["counter", "gauge"], "b": ["histogram"]}),
    ],
)
def test_metadata_that_was_pushed_is_listed_by_family(both: Both, params: dict, expected: dict):
    metadata = [(1, "a", 'Help "a"\n.', "s"), (2, "a", "Other help.", ""), (3, "b", "", "")]
    answer = both.ours.push(body([], metadata))
    assert answer.status_code == 200, answer.text
    deadline = time.monotonic() + 120
    while len(both.ours.http.get(f"{PREFIX}metadata").json()["data"].get("a", [])) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    answer = both.ours.http.get(f"{PREFIX}metadata", params=params)
    data = answer.json()["data"]
    assert {family: sorted(item["type"] for item in items)[: len(items)] for family, items in data.items()} == expected
    if params == {}:
        assert {"type": "counter", "help": 'Help "a"\n.', "unit": "s"} in data["a"]


@pytest.mark.peer
@pytest.mark.parametrize("kind", ["Application/X-WWW-Form-URLencoded", "application/x-www-form-urlencoded; charset=x"])
def test_a_form_is_one_however_its_content_type_is_written(both: Both, kind: str):
    for client, prefix in ((both.ours.http, PREFIX), (both.theirs, "/api/v1/")):
        answer = client.post(f"{prefix}query?query=1", content=b"query=2&time=3", headers={"Content-Type": kind})
        assert answer.json()["data"] == {"resultType": "scalar", "result": [3, "2"]}


def test_a_form_over_the_bound_is_413_in_plain_text(both: Both):
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = both.ours.http.post(f"{PREFIX}query", content=b"query=" + b"1" * 10_485_760, headers=headers)
    assert (answer.status_code, answer.text) == (413, "http: request body too large\n")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"


def test_answers_to_another_origin_say_who_may_read_them(both: Both):
    for query in ("1", "sum("):
        answer = both.ours.http.get(f"{PREFIX}query", params={"query": query}, headers={"Origin": "http://a.example"})
        assert answer.headers["access-control-allow-origin"] == "http://a.example"
        assert answer.headers["access-control-expose-headers"] == "Date"


def test_statistics_say_where_the_time_went(both: Both):
    params = {"query": "sum(rate(requests_total[5m]))", "time": END, "stats": "all"}
    timings = both.ours.http.get(f"{PREFIX}query", params=params).json()["data"]["stats"]["timings"]
    assert 0 < timings["innerEvalTime"] < timings["evalTotalTime"] <= timings["execTotalTime"] < 30
    assert timings["queryPreparationTime"] > 0
    assert timings["execQueueTime"] >= 0


ENDLESS = {"query": "stddev_over_time(vector(time())[3d:1s])", "start": END, "end": END + 10_000, "step": 1}
"""A series whose windows hold 2.6 thousand million samples in all: no machine is done with it in a second."""


def test_a_query_stops_at_its_own_time_out_in_the_middle_of_one_series(both: Both):
    answer = both.ours.http.get(f"{PREFIX}query_range", params={**ENDLESS, "timeout": "300ms"}, timeout=120)
    assert answer.status_code == 503
    assert answer.json()["errorType"] == "timeout"
    # On a slow machine the time may be over before the evaluation begins.
    assert re.fullmatch("query timed out in (expression evaluation|query execution)", answer.json()["error"])


def given_up(program: Program) -> int:
    """Return how many range queries were answered 499."""
    labels = r'[^}]*route="prometheus_api_v1_query_range"[^}]*status_code="499"[^}]*'
    metrics = program.http.get("/metrics").text
    found = re.findall(rf"^cortex_request_duration_seconds_count{{{labels}}} (\S+)$", metrics, re.MULTILINE)
    return int(float(found[0])) if found else 0


def test_a_query_whose_client_has_gone_is_stopped_and_counted_as_499(both: Both):
    before = given_up(both.ours)
    with pytest.raises(httpx.ReadTimeout):
        both.ours.http.get(f"{PREFIX}query_range", params=ENDLESS, timeout=httpx.Timeout(60, read=0.5))
    until = time.monotonic() + 120
    while given_up(both.ours) == before:
        assert time.monotonic() < until, both.ours.log_tail()
        time.sleep(0.1)
    assert given_up(both.ours) == before + 1
