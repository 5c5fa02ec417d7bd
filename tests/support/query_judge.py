"""The query engine judged by a real Prometheus over the same samples: one query, one verdict.

Results are compared as JSON, bit for bit, with order where it is defined, annotations, errors and counts of samples:
in all, by step, and the most held at a time. Where Prometheus's answer depends on the order of a Go map it is asked
again; if it contradicts itself, or bounds of exponential buckets are interpolated, numbers may differ in their last
digits.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from mimir_ingest.api.render import result_json
from mimir_ingest.errors import QueryError
from tests.support import histogram_corpus
from tests.support.engine_target import EngineTarget
from tests.support.prometheus import EVERY_PROMQL_OPTION, run_prometheus
from tests.support.promqltest import Sample

_RETRIES = 5
"""How often a Prometheus that contradicts itself is asked again."""
_ENOUGH = 40
"""How many equal answers show that Prometheus does not contradict itself: a walk over a small Go map starts at one of
eight slots, and with few keys most starts give the same order."""
_TOLERANCE = 1e-9
_INEXACT = re.compile(r"\bhistogram_(std|quan|frac)\w+")
"""What depends on exponents and logarithms to base 2 of a mathematics library in the last digits."""
_ORDERED = re.compile(r"\(*(sort|topk|bottomk|limit)")
HEADERS = {
    "Content-Encoding": "snappy",
    "Content-Type": "application/x-protobuf",
    "X-Prometheus-Remote-Write-Version": "0.1.0",
}
"""Of a request of remote write 1.0."""


@dataclass(frozen=True, slots=True)
class Span:
    """When a query is evaluated (ms); `step_ms` 0 is an instant query at the start."""

    start_ms: int
    end_ms_incl: int
    step_ms: int

    @classmethod
    def at(cls, time_ms: int) -> Span:
        """Return one instant."""
        return cls(time_ms, time_ms, 0)


class Judge:
    """A Prometheus and our engine, holding the same samples."""

    def __init__(self, client: httpx.Client, engine: EngineTarget) -> None:
        self.client, self.engine = client, engine

    def problems(self, asked: Iterable[tuple[str, Span]]) -> list[str]:
        """Return how the answers to some queries differ, an entry each."""
        verdicts = ((expr, span, self.difference(expr, span)) for expr, span in asked)
        return [f"{expr} {span}: {difference}" for expr, span, difference in verdicts if difference]

    def difference(self, expr: str, span: Span) -> str | None:
        """Return how two answers differ, None if they do not."""
        ours, theirs = self._ours(expr, span), self._theirs(expr, span)
        found = _difference(expr, ours, theirs, exact=True)
        if found is None:
            return None
        if _INEXACT.search(expr) and _difference(expr, ours, theirs, exact=False) is None:
            return None
        settled = True
        for asked in range(_ENOUGH):
            if asked >= _RETRIES and not settled:
                break
            other = self._theirs(expr, span)
            if _difference(expr, ours, other, exact=True) is None:
                return None
            settled = settled and _difference(expr, theirs, other, exact=True) is None
        if settled:
            return found
        # What is not settled by the query: which series an error names, the last digits of a sum.
        if "error" in theirs:
            return None if "error" in ours else found
        return _difference(expr, ours, theirs, exact=False)

    def _answer(self, expr: str, span: Span) -> dict:
        times = {"start": span.start_ms / 1000, "end": span.end_ms_incl / 1000, "step": span.step_ms / 1000}
        path, when = ("query_range", times) if span.step_ms else ("query", {"time": span.start_ms / 1000})
        return self.client.post(f"/api/v1/{path}", data={"query": expr, "stats": "all", **when}).json()

    def _theirs(self, expr: str, span: Span) -> dict:
        answer = self._answer(expr, span)
        if answer["status"] == "error":
            return {"error": answer["error"].removeprefix('invalid parameter "query": '), "kind": answer["errorType"]}
        samples = answer["data"]["stats"]["samples"]
        return {
            "type": answer["data"]["resultType"],
            "result": answer["data"]["result"],
            "warnings": sorted(answer.get("warnings", [])),
            "infos": sorted(answer.get("infos", [])),
            "counts": [samples["totalQueryableSamples"], samples["samplesRead"], samples["peakSamples"]],
            "total by step": [count for _, count in samples["totalQueryableSamplesPerStep"]],
            "read by step": [count for _, count in samples["samplesReadPerStep"]],
        }

    def _ours(self, expr: str, span: Span) -> dict:
        try:
            result = self.engine.query(expr, span.start_ms, span.end_ms_incl, span.step_ms, per_step_stats=True)
        except QueryError as error:
            return {"error": error.message, "kind": error.error_type}
        warnings, infos = result.annotations.render(expr)
        answer = json.loads(f"{{{result_json(result.value)}}}")
        stats = result.stats
        return {
            "type": answer["resultType"],
            "result": answer["result"],
            "warnings": sorted(warnings),
            "infos": sorted(infos),
            "counts": [stats.total_queryable_samples, stats.samples_read, stats.peak_samples],
            "total by step": stats.total_per_step.tolist(),
            "read by step": stats.read_per_step.tolist(),
        }


@contextmanager
def judge_of(
    binary: Path,
    folder: Path,
    series: Sequence[histogram_corpus.Series],
    *,
    delayed_name_removal: bool = False,
    batch: int = 1,
) -> Iterator[Judge]:
    """Run a Prometheus that holds the series, sent `batch` at a time, with every option of PromQL on."""
    engine = EngineTarget(delayed_name_removal=delayed_name_removal)
    for labels, samples in series:
        engine.append(labels, [Sample(at, value) for at, value in samples])
    options = EVERY_PROMQL_OPTION + (",promql-delayed-name-removal" if delayed_name_removal else "")
    flags = (
        "--storage.tsdb.retention.time=100y",
        "--web.enable-remote-write-receiver",
        f"--enable-feature={options}",
    )
    with run_prometheus(binary, folder, *flags) as client:
        for first in range(0, len(series), batch):
            content = histogram_corpus.body(series[first : first + batch])
            answer = client.post("/api/v1/write", content=content, headers=HEADERS)
            assert answer.status_code // 100 == 2, (series[first][0], answer.text)
        yield Judge(client, engine)


_SPANS_THAT_TOUCH = ("sum_over_time(rate(requests[2m])[5m:1m])", "avg_over_time((requests * 1e305)[10m:1m])")
"""Where Prometheus's sums have spans that touch, each of which weighs as half a sample: a known difference of peaks."""


def _difference(expr: str, ours: dict, theirs: dict, *, exact: bool) -> str | None:
    if "error" in ours or "error" in theirs:
        return (
            None
            if ours == theirs
            else f"ours: {ours.get('error', 'a value')}; theirs: {theirs.get('error', 'a value')}"
        )
    if expr in _SPANS_THAT_TOUCH and ours["counts"][2] <= theirs["counts"][2] <= ours["counts"][2] * 1.01:
        ours["counts"][2] = theirs["counts"][2]
    for key in ("type", "warnings", "infos", "counts", "total by step", "read by step"):
        if ours[key] != theirs[key]:
            return f"{key}: ours {ours[key]}; theirs {theirs[key]}"
    mine, other = ours["result"], theirs["result"]
    if ours["type"] == "vector" and not _ORDERED.match(expr):
        mine, other = (sorted(v, key=lambda item: sorted(item["metric"].items())) for v in (mine, other))
    if ours["type"] in ("vector", "matrix") and [m["metric"] for m in mine] != [m["metric"] for m in other]:
        return f"series: ours {[m['metric'] for m in mine][:4]}; theirs {[m['metric'] for m in other][:4]}"
    for a, b in zip(mine, other, strict=True):
        if not _close(a, b, exact=exact):
            return f"ours {json.dumps(a)[:1500]}\n   theirs {json.dumps(b)[:1500]}"
    return None


def _close(a: object, b: object, *, exact: bool) -> bool:
    """Whether two parts of an answer are equal, numbers up to their last digits unless `exact`."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(_close(a[key], b[key], exact=exact) for key in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(_close(x, y, exact=exact) for x, y in zip(a, b, strict=True))
    if a == b or exact or not isinstance(a, str) or not isinstance(b, str):
        return a == b
    try:
        return math.isclose(float(a), float(b), rel_tol=_TOLERANCE)
    except ValueError:
        return False
