"""`/query_exemplars`: which selectors an expression has, and exemplars as JSON (spec http-api.md 6.5)."""

from __future__ import annotations

from collections.abc import Sequence

import orjson

from mimir_ingest.api.params import MAX_TIME_MS, MIN_TIME_MS, Params
from mimir_ingest.api.render import clean
from mimir_ingest.errors import QueryError
from mimir_ingest.ingester.exemplars import PART_SERIES, SeriesExemplars
from mimir_ingest.model.matchers import Matcher
from mimir_ingest.model.numbers import format_time, format_value
from mimir_ingest.model.spans import Check, even_spans
from mimir_ingest.promql.nodes import Expr, VectorSelector, walk


def exemplar_range(params: Params) -> tuple[int, int]:
    """Return the inclusive (start, end) of a request for exemplars, by default all time. Raises QueryError."""
    start, end = params.time_ms("start", MIN_TIME_MS), params.time_ms("end", MAX_TIME_MS)
    if end < start:
        raise QueryError("end timestamp must not be before start timestamp", error_type="bad_data")
    return start, end


def selectors_of(expression: Expr) -> list[tuple[Matcher, ...]]:
    """Return the matchers of each selector in an expression."""
    return [node.matchers for node in walk(expression) if isinstance(node, VectorSelector)]


def exemplars_json(found: Sequence[SeriesExemplars], check: Check | None = None) -> str:
    """Return series with their exemplars as Prometheus's JSON; `check` is called between parts of the work."""
    spans = even_spans(len(found), PART_SERIES, check)
    return "[" + ",".join(text for first, last in spans for text in map(_series, found[first:last])) + "]"


def _series(series: SeriesExemplars) -> str:
    exemplars = ",".join(
        f'{{"labels":{_labels(e.labels)},"value":"{format_value(e.value)}","timestamp":{format_time(e.timestamp_ms)}}}'
        for e in series.exemplars
    )
    return f'{{"seriesLabels":{_labels(series.labels)},"exemplars":[{exemplars}]}}'


def _labels(labels: dict[str, str]) -> str:
    return orjson.dumps({clean(name): clean(value) for name, value in labels.items()}).decode()
