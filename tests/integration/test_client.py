"""The Python client against a running program: frames there and back, offsets, errors."""

from __future__ import annotations

import json
import math
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta

import httpx
import numpy as np
import pandas as pd
import pytest

from mimir_ingest.client import ApiError, Client, ClientFailure, NotReached
from tests.support.program import Program

T = 1_767_225_600
START = datetime.fromtimestamp(T, UTC)


def make_frame() -> pd.DataFrame:
    """Two counters and a series of values that are hard to carry, one label missing in one of them."""
    times = [START + timedelta(seconds=15 * i) for i in range(40)]
    rows = [
        {"__name__": "requests_total", "code": code, "value": float(i * k), "timestamp": at}
        for k, code in ((1, "200"), (3, "500"))
        for i, at in enumerate(times)
    ]
    rows += [
        {"__name__": "odd", "dot.ted ü": "a/b", "value": value, "timestamp": at}
        for value, at in zip([0.1, math.nan, math.inf, -0.0, 5e-324], times, strict=False)
    ]
    return pd.DataFrame(rows).sample(frac=1, random_state=1)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    flags = ["-validation.name-validation-scheme=utf8", "-ingester.out-of-order-time-window=0s"]
    flags += ["-validation.past-grace-period=0s", "-querier.max-samples=100000"]
    flags += ["-querier.max-query-lookback=100y"]
    with Program(tmp_path_factory.mktemp("program"), *flags, multitenancy=True).start() as running:
        yield running


@pytest.fixture(scope="module")
def written(program: Program) -> tuple[Client, dict[int, int]]:
    client = Client(program.url, tenant="team-a", timeout_s=30)
    return client, client.push(make_frame())


def test_what_was_pushed_is_seen_by_a_query_that_demands_it(written):
    client, offsets = written
    assert offsets
    end = START + timedelta(seconds=15 * 39)
    result = client.query_range("requests_total", START, end, 15, after=offsets)
    assert result.result_type == "matrix"
    assert result.offsets.keys() >= offsets.keys()
    assert all(result.offsets[p] >= offset for p, offset in offsets.items())
    frame = result.to_pandas()
    sent = make_frame()
    sent = sent[sent["__name__"] == "requests_total"].sort_values(["code", "timestamp"])
    assert frame["value"].tolist() == sent["value"].tolist()
    assert frame["timestamp"].tolist() == sent["timestamp"].tolist()
    assert frame["code"].tolist() == sent["code"].tolist()
    wide = result.to_wide()
    assert wide[("requests_total", "500")].tolist() == [3.0 * i for i in range(40)]


@pytest.mark.parametrize(
    ("query", "labelled"),
    [("rate(requests_total[1m])", True), ("odd", True), ("sum(requests_total)", False), ("time()", False)],
)
def test_arrow_answers_hold_what_json_answers_hold(program, written, query, labelled):
    client, offsets = written
    result = client.query_range(query, T, T + 585, "15s", after=offsets, limit=10)
    asked = {"query": query, "start": T, "end": T + 585, "step": 15}
    answer = program.http.get(
        "/prometheus/api/v1/query_range", params=asked, headers={"X-Scope-OrgID": "team-a"}
    ).json()["data"]["result"]
    names = result.label_names
    assert bool(names) is labelled
    found: dict[str, list] = {}
    for row in result.table.to_pylist():
        metric = {label: row[column] for column, label in names.items() if row[column] is not None}
        found.setdefault(json.dumps(metric), []).append([row["timestamp"].timestamp(), row["value"]])
    wanted = {json.dumps(s["metric"]): [[t, float(v)] for t, v in s["values"]] for s in answer}
    assert list(found) == list(wanted)
    for metric, points in wanted.items():
        assert np.array_equal(np.array(found[metric]), np.array(points), equal_nan=True)


def test_an_instant_query_tells_warnings_statistics_and_scalars(written):
    client, offsets = written
    result = client.query("rate(odd[1m])", START + timedelta(seconds=60), after=offsets, stats="all")
    assert (result.result_type, result.warnings) == ("vector", [])
    assert "metric might not be a counter" in result.infos[0]
    assert result.stats["samples"]["totalQueryableSamples"] > 0
    assert client.query("1 + 1", T).table.to_pylist() == [{"timestamp": START, "value": 2.0}]
    assert client.query('"text"', T).table["value"].to_pylist() == ["text"]
    assert client.query("nothing", T).to_pandas().empty
    before_all = client.query("1", -4_000_000_000)
    assert (before_all.result_type, before_all.table.num_rows) == ("matrix", 0)


def test_series_and_labels_are_listed(written):
    client, offsets = written
    client.query("odd", T, after=offsets)
    codes = [{"__name__": "requests_total", "code": code} for code in ("200", "500")]
    assert client.series("requests_total", START, T + 600) == codes
    assert client.series(["requests_total", "odd"], limit=1)
    assert client.labels() == ["__name__", "code", "dot.ted ü"]
    assert client.label_values("code", 'requests_total{code=~"5.."}') == ["500"]
    assert client.label_values("dot.ted ü") == ["a/b"]


def test_errors_tell_status_type_and_id(program, written):
    client, _ = written
    with pytest.raises(ApiError, match="parse error") as error:
        client.query("sum(", T)
    assert (error.value.status, error.value.error_type) == (400, "bad_data")
    with pytest.raises(ApiError) as error:
        client.query_range("sum_over_time(requests_total[10m:1ms])", T, T + 600, 1)
    assert (error.value.status, error.value.error_type) == (422, "execution")
    bad = make_frame().assign(timestamp=datetime(2100, 1, 1, tzinfo=UTC))
    with pytest.raises(ApiError) as error:
        client.push(bad.tail(1))
    assert (error.value.status, error.value.error_id) == (400, "err-mimir-too-far-in-future")
    with pytest.raises(ApiError, match="no org id") as error:
        Client(program.url).query("1", T)
    assert (error.value.status, error.value.error_type) == (401, "")


def test_a_client_that_goes_away_stops_its_query_and_frees_its_slot(program, written):
    """Queries whose clients have left hold none of the 20 slots, and are counted as given up."""
    asked = httpx.QueryParams(query="sum_over_time((vector(1))[30d:1s])", time=T)
    request = f"GET /prometheus/api/v1/query?{asked} HTTP/1.1\r\nHost: x\r\nX-Scope-OrgID: team-b\r\n\r\n".encode()
    for _ in range(30):
        with closing(socket.create_connection(("127.0.0.1", program.port))) as connection:
            connection.sendall(request)
    assert written[0].query("1", T).table.num_rows == 1


def test_a_frame_that_cannot_be_written_is_refused_before_anything_is_sent():
    client = Client("http://127.0.0.1:1", tenant="a")
    frame = make_frame()
    with pytest.raises(ValueError, match="no column value"):
        client.push(frame.drop(columns=["value"]))
    with pytest.raises(ValueError, match="timestamp is missing"):
        client.push(frame.assign(timestamp=pd.NaT))
    with pytest.raises(ValueError, match="histograms cannot"):
        client.push(frame.assign(histogram=1))
    with pytest.raises(ValueError, match="is no http"):
        Client("localhost:9009")


def test_a_server_that_is_not_there_does_not_answer_in_time_or_is_another_one_is_told_apart():
    with pytest.raises(NotReached, match="refused"):
        Client("http://127.0.0.1:1").labels()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(NotReached, match="timed out"):
            Client(url, timeout_s=0.2).labels()

        def answer() -> None:
            listener.accept()[0].close()  # the one that gave up
            with listener.accept()[0] as connection:
                connection.recv(1 << 16)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: application/json\r\n\r\n{}")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(ClientFailure, match="Arrow"):
            Client(url, timeout_s=120).query("1")
        thread.join()
