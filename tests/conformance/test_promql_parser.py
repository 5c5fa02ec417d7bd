"""Every input of the parser corpus gives what Prometheus 3.14 gives: error, or print, pretty print and syntax tree."""

import json
from pathlib import Path

import pytest

from mimir_ingest.promql.ast_json import to_json
from mimir_ingest.promql.parse_error import ParseError
from mimir_ingest.promql.parser import parse_expr
from mimir_ingest.promql.prettier import prettify
from mimir_ingest.promql.printer import format_expr
from tests.support.known_differences import read_known_differences

CORPUS = Path(__file__).parent / "promql-parser" / "promql-parser.jsonl"
CASES = [json.loads(line) for line in CORPUS.read_text().splitlines()]
KNOWN = read_known_differences("promql-parser")


def answer(text):
    try:
        node = parse_expr(text)
    except ParseError as error:
        return {"input": text, "error": error.message}
    return {
        "input": text,
        "type": str(node.type),
        "string": format_expr(node),
        "pretty": prettify(node),
        "ast": to_json(node),
    }


def test_the_corpus_is_whole():
    assert len(CASES) == 2661
    assert {case["input"] for case in CASES} >= KNOWN.keys()


@pytest.mark.parametrize("case", CASES, ids=[f"line {i}" for i in range(1, len(CASES) + 1)])
def test_an_input_gives_what_prometheus_gives(case):
    if case["input"] in KNOWN:
        assert answer(case["input"]) != case, "listed as a known difference, but passes"
    else:
        assert answer(case["input"]) == case
