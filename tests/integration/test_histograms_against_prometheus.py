"""Native histograms in the query engine and in a real Prometheus: equal answers, annotations, errors and counts."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from mimir_ingest.api.render import result_json
from mimir_ingest.errors import QueryError
from tests.support import histogram_corpus as corpus
from tests.support.engine_target import EngineTarget
from tests.support.prometheus import EVERY_PROMQL_OPTION, run_prometheus
from tests.support.promqltest import Sample

pytestmark = pytest.mark.peer

_END_MS = corpus.START_MS + corpus.SAMPLES * corpus.INTERVAL_MS
INSTANTS = (corpus.START_MS + 700_123, corpus.START_MS + 1_530_000, _END_MS + 100_000)
RANGES = {
    "minutes": (corpus.START_MS + 300_000, corpus.START_MS + 2_900_500, 60_000),
    "wide": (corpus.START_MS - 60_000, _END_MS + 400_000, 457_000),
}
_HEADERS = {
    "Content-Encoding": "snappy",
    "Content-Type": "application/x-protobuf",
    "X-Prometheus-Remote-Write-Version": "0.1.0",
}


@pytest.fixture(scope="module", params=["names dropped at once", "names dropped at the end"])
def judged(
    request: pytest.FixtureRequest, prometheus_bin: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[httpx.Client, EngineTarget]]:
    """A Prometheus that holds the corpus, and our engine over the same samples."""
    delayed = request.param == "names dropped at the end"
    features = EVERY_PROMQL_OPTION + (",promql-delayed-name-removal" if delayed else "")
    flags = (
        "--storage.tsdb.retention.time=100y",
        "--web.enable-remote-write-receiver",
        f"--enable-feature={features}",
    )
    series = corpus.make_series()
    target = EngineTarget(delayed_name_removal=delayed)
    for labels, samples in series:
        target.append(labels, [Sample(at, value) for at, value in samples])
    with run_prometheus(prometheus_bin, tmp_path_factory.mktemp("prometheus"), *flags) as client:
        for one in series:
            answer = client.post("/api/v1/write", content=corpus.body([one]), headers=_HEADERS)
            assert answer.status_code // 100 == 2, (one[0], answer.text)
        yield client, target


def _expressions(engine: EngineTarget) -> list[str]:
    """Return all expressions; where names are dropped at the end, every third."""
    return corpus.make_expressions()[:: 3 if engine.delayed_name_removal else 1]


def _notes(texts: list[str]) -> list[str]:
    return sorted(re.sub(r"over \d+ samples", "over some samples", text) for text in texts)


def _theirs(client: httpx.Client, path: str, **parameters: object) -> dict:
    answer = client.get(path, params={**parameters, "stats": "all"}).json()
    if answer["status"] == "error":
        return {"error": answer["error"].removeprefix('invalid parameter "query": ')}
    samples = answer["data"]["stats"]["samples"]
    return {
        "type": answer["data"]["resultType"],
        "result": answer["data"]["result"],
        "warnings": _notes(answer.get("warnings", [])),
        "infos": _notes(answer.get("infos", [])),
        "counts": (samples["totalQueryableSamples"], samples["samplesRead"]),
    }


def _ours(engine: EngineTarget, expr: str, start_ms: int, end_ms: int, step_ms: int) -> dict:
    try:
        result = engine.query(expr, start_ms, end_ms, step_ms)
    except QueryError as error:
        return {"error": error.message}
    warnings, infos = result.annotations.render(expr)
    answer = json.loads(f"{{{result_json(result.value)}}}")
    return {
        "type": answer["resultType"],
        "result": answer["result"],
        "warnings": _notes(warnings),
        "infos": _notes(infos),
        "counts": (result.stats.total_queryable_samples, result.stats.samples_read),
    }


def _close(a: object, b: object) -> bool:
    """Whether two parts of an answer are equal, numbers up to the last digits of a sum in another order."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_close(a[key], b[key]) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(_close, a, b))
    if a == b:
        return True
    if not isinstance(a, str) or not isinstance(b, str):
        return False
    try:
        x, y = float(a), float(b)
    except ValueError:
        return False
    return math.isclose(x, y, rel_tol=1e-11) or (math.isnan(x) and math.isnan(y))


def _difference(expr: str, ours: dict, theirs: dict) -> str | None:
    """Return how two answers differ, None if they do not."""
    if "error" in ours or "error" in theirs:
        same = ours.get("error") == theirs.get("error")
        return None if same else f"ours: {ours.get('error', 'an answer')}; theirs: {theirs.get('error', 'an answer')}"
    for key in ("type", "warnings", "infos"):
        if ours[key] != theirs[key]:
            return f"{key}: ours {ours[key]}; theirs {theirs[key]}"
    mine, other = ours["result"], theirs["result"]
    if ours["type"] == "vector" and not expr.startswith(("sort", "topk", "bottomk", "limit_ratio")):
        mine, other = (sorted(v, key=lambda item: sorted(item["metric"].items())) for v in (mine, other))
    if ours["type"] in ("vector", "matrix") and [m["metric"] for m in mine] != [m["metric"] for m in other]:
        return f"series: ours {[m['metric'] for m in mine][:4]}; theirs {[m['metric'] for m in other][:4]}"
    for a, b in zip(mine, other, strict=True):
        if not _close(a, b):
            return f"ours {json.dumps(a)[:1500]}\n   theirs {json.dumps(b)[:1500]}"
    # Between windows, a subquery's reads are counted here and not there.
    gaps = ":" in expr and ours["counts"][0] == theirs["counts"][0] and ours["counts"][1] > theirs["counts"][1]
    if ours["counts"] != theirs["counts"] and not gaps:
        return f"counts: ours {ours['counts']}; theirs {theirs['counts']}"
    return None


def test_instant_queries_of_histograms_are_answered_like_prometheus(judged) -> None:
    """Histograms as JSON with all buckets, numbers, order, annotations, errors and sample counts."""
    client, engine = judged
    problems = []
    for expr in (*_expressions(engine), *corpus.INSTANT_ONLY):
        for at_ms in INSTANTS:
            theirs = _theirs(client, "/api/v1/query", query=expr, time=at_ms / 1000)
            difference = _difference(expr, _ours(engine, expr, at_ms, at_ms, 0), theirs)
            if difference:
                problems.append(f"{expr} at {at_ms}: {difference}")
    assert not problems, f"{len(problems)} differences\n" + "\n".join(problems)


@pytest.mark.parametrize("span", RANGES)
def test_range_queries_of_histograms_are_answered_like_prometheus(judged, span: str) -> None:
    """The same over ranges, dense, and sparse and reaching past the samples on both sides."""
    client, engine = judged
    start_ms, end_ms, step_ms = RANGES[span]
    problems = []
    for expr in _expressions(engine):
        theirs = _theirs(
            client,
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
