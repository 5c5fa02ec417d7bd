"""The query engine and a real Prometheus over the same samples: equal answers, warnings, errors and sample counts."""

from __future__ import annotations

import math
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from mimir_ingest.errors import QueryError
from tests.support import query_corpus as corpus
from tests.support import remote_write
from tests.support.engine_target import EngineTarget
from tests.support.peers import pick_free_port
from tests.support.promqltest import Sample

pytestmark = pytest.mark.peer

_FEATURES = (
    "promql-experimental-functions,promql-duration-expr,promql-extended-range-selectors,promql-binop-fill-modifiers"
)
_END_MS = corpus.START_MS + corpus.SAMPLES * corpus.INTERVAL_MS
INSTANTS = (corpus.START_MS + 700_123, corpus.START_MS + 1_530_000, _END_MS + 100_000, _END_MS + 700_000)
RANGES = (
    (corpus.START_MS + 300_000, corpus.START_MS + 2_400_500, 60_000),
    (corpus.START_MS - 60_000, _END_MS + 400_000, 217_000),
    (corpus.START_MS + 900_000, corpus.START_MS + 960_000, 5_000),
)


@pytest.fixture(scope="module")
def prometheus(prometheus_bin: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A Prometheus that holds the corpus, sent to it by remote write."""
    folder = tmp_path_factory.mktemp("prometheus")
    (folder / "prometheus.yml").write_text("scrape_configs: []\n")
    port = pick_free_port()
    log = (folder / "log").open("w")
    process = subprocess.Popen(
        [
            prometheus_bin,
            f"--config.file={folder}/prometheus.yml",
            f"--storage.tsdb.path={folder}/data",
            "--storage.tsdb.retention.time=100y",
            f"--web.listen-address=127.0.0.1:{port}",
            "--web.enable-remote-write-receiver",
            f"--enable-feature={_FEATURES}",
        ],
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            _wait_ready(client, folder / "log")
            headers = {
                "Content-Encoding": "snappy",
                "Content-Type": "application/x-protobuf",
                "X-Prometheus-Remote-Write-Version": "0.1.0",
            }
            body = remote_write.body(corpus.make_series())
            client.post("/api/v1/write", content=body, headers=headers).raise_for_status()
            yield client
    finally:
        process.terminate()
        process.wait(30)
        log.close()


def _wait_ready(client: httpx.Client, log: Path) -> None:
    for _ in range(300):
        try:
            if client.get("/-/ready").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.1)
    pytest.fail(f"Prometheus did not become ready: {log.read_text()[-2000:]}")


@pytest.fixture(scope="module")
def engine() -> EngineTarget:
    """Our engine over the same samples, with Prometheus's defaults."""
    target = EngineTarget(delayed_name_removal=False)
    for labels, samples in corpus.make_series():
        target.append(labels, [Sample(at, value) for at, value in samples])
    return target


def _notes(texts: list[str]) -> list[str]:
    """Sort, without the number of repaired samples: Prometheus adds its sum so far to itself at every step."""
    return sorted(re.sub(r"over \d+ samples", "over some samples", text) for text in texts)


def _theirs(client: httpx.Client, path: str, **parameters: object) -> dict:
    answer = client.get(path, params={**parameters, "stats": "all"}).json()
    if answer["status"] == "error":
        return {"error": answer["error"].removeprefix('invalid parameter "query": ')}
    data = answer["data"]
    notes = {kind: _notes(answer.get(kind, [])) for kind in ("warnings", "infos")}
    counts = (data["stats"]["samples"]["totalQueryableSamples"], data["stats"]["samples"]["samplesRead"])
    result = data["result"]
    if data["resultType"] == "matrix":
        value: object = [(r["metric"], [(round(t * 1000), float(v)) for t, v in r["values"]]) for r in result]
    elif data["resultType"] == "vector":
        value = [(r["metric"], float(r["value"][1])) for r in result]
    else:
        value = result[1] if data["resultType"] == "string" else float(result[1])
    return {"type": data["resultType"], "value": value, **notes, "counts": counts}


def _ours(engine: EngineTarget, expr: str, start_ms: int, end_ms: int, step_ms: int) -> dict:
    try:
        result = engine.query(expr, start_ms, end_ms, step_ms)
    except QueryError as error:
        return {"error": error.message}
    answer = engine.answer(expr, result)
    kinds = {"matrix": answer.matrix, "vector": answer.vector, "scalar": answer.scalar, "string": answer.string}
    kind, value = next((k, v) for k, v in kinds.items() if v is not None)
    counts = (result.stats.total_queryable_samples, result.stats.samples_read)
    notes = {"warnings": _notes(answer.warnings), "infos": _notes(answer.infos)}
    return {"type": kind, "value": value, **notes, "counts": counts}


def _same_number(a: float, b: float, exact: bool) -> bool:
    if math.isnan(a) or math.isnan(b):
        return math.isnan(a) and math.isnan(b)
    return a == b or (not exact and math.isclose(a, b, rel_tol=1e-11))


def _difference(expr: str, ours: dict, theirs: dict) -> str | None:
    """Return how two answers differ, None if they do not."""
    if "error" in ours or "error" in theirs:
        same = ours.get("error") == theirs.get("error")
        return None if same else f"ours: {ours.get('error', 'an answer')}; theirs: {theirs.get('error', 'an answer')}"
    exact = not any(word in expr for word in corpus.INEXACT)
    for key in ("type", "warnings", "infos", "counts"):
        if ours[key] != theirs[key] and not (key == "counts" and _gaps_in_subquery(expr, ours, theirs)):
            return f"{key}: ours {ours[key]}; theirs {theirs[key]}"
    if ours["type"] == "string":
        return None if ours["value"] == theirs["value"] else f"ours {ours['value']!r}; theirs {theirs['value']!r}"
    if ours["type"] == "scalar":
        same = _same_number(ours["value"], theirs["value"], exact)
        return None if same else f"ours {ours['value']!r}; theirs {theirs['value']!r}"
    return _series_difference(expr, ours, theirs, exact)


def _gaps_in_subquery(expr: str, ours: dict, theirs: dict) -> bool:
    """Whether only samples read for a subquery's steps between windows differ; Prometheus reads them uncounted."""
    return ":]" in expr and ours["counts"][0] == theirs["counts"][0] and ours["counts"][1] > theirs["counts"][1]


def _series_difference(expr: str, ours: dict, theirs: dict, exact: bool) -> str | None:
    mine, other = ours["value"], theirs["value"]
    if ours["type"] == "vector" and not expr.startswith(("sort", "topk", "bottomk", "limit_ratio")):
        mine, other = (sorted(v, key=lambda item: sorted(item[0].items())) for v in (mine, other))
    if [m for m, _ in mine] != [m for m, _ in other]:
        return f"series: ours {[m for m, _ in mine][:4]}…; theirs {[m for m, _ in other][:4]}…"
    for (metric, a), (_, b) in zip(mine, other, strict=True):
        left, right = (a, b) if isinstance(a, list) else ([(0, a)], [(0, b)])
        if [t for t, _ in left] != [t for t, _ in right]:
            return f"{metric}: times differ: {len(left)} and {len(right)}"
        for (t, x), (_, y) in zip(left, right, strict=True):
            if not _same_number(x, y, exact):
                return f"{metric} at {t}: ours {x!r}; theirs {y!r}"
    return None


def test_instant_queries_are_answered_like_prometheus(prometheus: httpx.Client, engine: EngineTarget) -> None:
    """Values bit for bit (up to the mathematics library), order of sorts and rankings, warnings, errors, counts."""
    problems = []
    for expr in (*corpus.make_expressions(), *corpus.INSTANT_ONLY):
        for at_ms in INSTANTS:
            theirs = _theirs(prometheus, "/api/v1/query", query=expr, time=at_ms / 1000)
            difference = _difference(expr, _ours(engine, expr, at_ms, at_ms, 0), theirs)
            if difference:
                problems.append(f"{expr} at {at_ms}: {difference}")
    assert not problems, f"{len(problems)} differences\n" + "\n".join(problems)


@pytest.mark.parametrize("span", RANGES, ids=["minutes", "wide", "dense"])
def test_range_queries_are_answered_like_prometheus(
    prometheus: httpx.Client, engine: EngineTarget, span: tuple[int, int, int]
) -> None:
    """The same over ranges: dense, sparse, and reaching past the samples on both sides."""
    start_ms, end_ms, step_ms = span
    problems = []
    for expr in corpus.make_expressions():
        theirs = _theirs(
            prometheus,
            "/api/v1/query_range",
            query=expr,
            start=start_ms / 1000,
            end=end_ms / 1000,
            step=step_ms / 1000,
        )
        difference = _difference(expr, _ours(engine, expr, start_ms, end_ms, step_ms), theirs)
        if difference:
            problems.append(f"{expr}: {difference}")
    assert not problems, f"{len(problems)} differences\n" + "\n".join(problems)
