"""Random and mutated queries, read by us and by a real Prometheus: the same tree and print, or the same error."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mimir_ingest.promql.ast_json import to_json
from mimir_ingest.promql.parse_error import ParseError
from mimir_ingest.promql.parser import parse_expr, parse_metric_selector
from mimir_ingest.promql.prettier import prettify
from tests.support.prometheus import EVERY_PROMQL_OPTION, run_prometheus
from tests.support.query_texts import QUERIES

pytestmark = pytest.mark.peer

CORPUS = Path(__file__).parents[1] / "conformance" / "promql-parser" / "promql-parser.jsonl"
INPUTS = [json.loads(line)["input"] for line in CORPUS.read_text().splitlines()]
PIECES = sorted({piece for text in INPUTS for piece in re.findall(r"\w+|\s+|[^\w\s]", text)})
MUTATIONS = st.lists(
    st.tuples(st.integers(0, 200), st.integers(0, 6), st.one_of(st.just(""), st.sampled_from(PIECES))),
    min_size=1,
    max_size=4,
)
LITERALS = st.one_of(
    st.text(alphabet="0123456789._eExXabfmshdwy+-", min_size=1, max_size=8),
    st.text(alphabet="\\xuU0179afn\"'`é\ufffd\n", max_size=8).map(lambda text: f'"{text}"'),
    st.text(alphabet="ab()[]*+?{},|\\dpL:^$-12", max_size=8).map(lambda text: f"x{{a=~`{text}`}}"),
)
DIFFERENTIAL = settings(
    max_examples=600, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@pytest.fixture(scope="module")
def prometheus(prometheus_bin: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("prometheus")
    with run_prometheus(prometheus_bin, folder, f"--enable-feature={EVERY_PROMQL_OPTION}") as client:
        yield client


def judge(prometheus: httpx.Client, text: str) -> tuple[object, object] | None:
    """Return Prometheus's tree and pretty print, or (error, None); None where its JSON cannot hold the tree (Inf)."""
    answer = prometheus.post("/api/v1/parse_query", data={"query": text})
    if not answer.headers.get("Content-Type", "").startswith("application/json"):
        return None
    parsed = answer.json()
    if parsed["status"] == "error":
        return parsed["error"].removeprefix('invalid parameter "query": '), None
    return parsed["data"], prometheus.post("/api/v1/format_query", data={"query": text}).json()["data"]


def ours(text: str) -> tuple[object, object]:
    try:
        node = parse_expr(text)
    except ParseError as error:
        return error.message, None
    return to_json(node), prettify(node)


def same(prometheus: httpx.Client, text: str) -> None:
    expected = judge(prometheus, text) if text.strip() else None
    if expected is not None:
        assert ours(text) == expected


@DIFFERENTIAL
@given(text=QUERIES)
def test_queries_from_a_grammar_are_read_as_prometheus_reads_them(prometheus, text):
    same(prometheus, text)


@DIFFERENTIAL
@given(text=st.one_of(QUERIES, st.sampled_from(INPUTS)), mutations=MUTATIONS)
def test_mutated_queries_are_read_or_refused_as_prometheus_does(prometheus, text, mutations):
    for at, length, piece in mutations:
        at = min(at, len(text))
        text = text[:at] + piece + text[at + length :]
    same(prometheus, text)


@DIFFERENTIAL
@given(text=LITERALS)
def test_numbers_strings_and_regular_expressions_are_read_or_refused_as_prometheus_does(prometheus, text):
    same(prometheus, text)


@DIFFERENTIAL
@given(text=st.lists(st.sampled_from(PIECES), max_size=6).map("".join))
def test_selectors_are_read_or_refused_as_prometheus_does(prometheus, text):
    answer = prometheus.get("/api/v1/series", params={"match[]": text}).json()
    expected = answer.get("error", "").removeprefix('invalid parameter "match[]": ')
    if expected.startswith("match[] must contain at least one non-empty"):
        expected = ""
    message = ""
    try:
        parse_metric_selector(text)
    except ParseError as error:
        message = error.message
    assert message == expected
