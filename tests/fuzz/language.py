"""Decoders of texts in languages of their own: PromQL, selectors, names, regular expressions, durations."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from mimir_ingest.api.query import unescape_label_name
from mimir_ingest.config.durations import parse_int, parse_limit_duration
from mimir_ingest.errors import QueryError
from mimir_ingest.model.matchers import Matcher, MatchType, check_regexp
from mimir_ingest.promql.ast_json import to_json
from mimir_ingest.promql.nodes import walk
from mimir_ingest.promql.parse_error import ParseError
from mimir_ingest.promql.parser import encode_query, parse_expr, parse_metric_selector
from mimir_ingest.promql.prettier import prettify
from mimir_ingest.promql.printer import format_expr
from tests.fuzz.decoder import Decoder
from tests.support.engine_target import EngineTarget
from tests.support.promqltest import Sample

_INPUTS = Path(__file__).parents[1] / "conformance" / "promql-parser" / "promql-parser.jsonl"
QUERIES = [
    json.loads(line)["input"].encode("utf-8", "surrogatepass")
    for line in _INPUTS.read_text(encoding="utf-8").splitlines()
]
EVALUATED = [
    b"sum by (a) (rate(m[5m]))",
    b"histogram_quantile(0.9, sum by (le) (rate(b[1m])))",
    b'label_replace(m, "x", "$1", "a", "(.*)")',
    b"topk(2, m) / on (a) group_left (b) m",
    b"max_over_time(rate(m[1m])[10m:30s] offset 1m)",
    b"quantile_over_time(0.5, m[5m]) > bool 1 or absent(n)",
    b"m @ end() - m @ 1000 unless m{a=~'x.*'}",
    b'count_values("v", m) + scalar(m) ^ 2',
    b"predict_linear(m[10m], 60) and double_exponential_smoothing(m[5m], 0.5, 0.5)",
    b"day_of_week(timestamp(m)) % 3 atan2 clamp(m, 1, 2)",
]


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")


def _read_query(data: bytes) -> None:
    text = _text(data)
    node = parse_expr(text)
    size = len(encode_query(text))
    format_expr(node)
    prettify(node)
    json.dumps(to_json(node))
    for inner in walk(node):
        assert 0 <= inner.pos.start <= inner.pos.end <= size


def _engine() -> EngineTarget:
    target = EngineTarget()
    for i in range(4):
        labels = {"__name__": "m", "a": f"x{i}", "b": str(i % 2)}
        target.append(labels, [Sample(t * 15_000, float(t * i % 7)) for t in range(80)])
        target.append(
            {"__name__": "b", "le": ("1", "2", "5", "+Inf")[i]},
            [Sample(t * 15_000, float(t * (i + 1))) for t in range(80)],
        )
    return target


def _evaluate(data: bytes) -> None:
    text = _text(data)
    ENGINE.query(text, 900_000, 900_000, 0, max_samples=200_000)
    ENGINE.query(text, 600_000, 1_200_000, 60_000, max_samples=200_000)


def _match(data: bytes) -> None:
    pattern, _, value = _text(data).partition("\x00")
    if reason := check_regexp(pattern):
        raise ValueError(reason)
    for kind in MatchType:
        Matcher(kind, "a", pattern).matches(value)


def _name(data: bytes) -> object:
    return unescape_label_name(_text(data))


def _any_of(*readers: Callable[[str], object]) -> Callable[[bytes], object]:
    def read(data: bytes) -> object:
        refused: list[ValueError] = []
        for reader in readers:
            try:
                return reader(_text(data))
            except ValueError as error:
                refused.append(error)
        raise refused[0]

    return read


ENGINE = _engine()
DECODERS = {
    "PromQL": Decoder(_read_query, QUERIES, (ParseError,)),
    "PromQL, evaluated": Decoder(_evaluate, EVALUATED, (QueryError,)),
    "selectors": Decoder(
        lambda data: parse_metric_selector(_text(data)), [b'{a="b",c!~"d.*"}', b"up", b'{"a b"="c\\n"}'], (ParseError,)
    ),
    "regular expressions": Decoder(
        _match, [b"a.*|b\x00ab", b"(?i)x[a-z]{2,5}\x00X", b"\\pL+\\x{10FFFF}\x00a"], (ValueError,)
    ),
    "escaped names": Decoder(_name, [b"U__a_2E_b__c", b"U__", b"a", b"U___1F600_"]),
    "durations": Decoder(
        _any_of(parse_limit_duration, parse_int), [b"1h30m", b"1.5h2ms", b"16MiB", b"0x1f"], (ValueError,)
    ),
}
