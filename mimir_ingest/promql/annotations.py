"""Warnings and infos of a query, with Prometheus's texts.

Equal texts are one annotation, whatever their positions; the one added last gives the position. Positions become
`(line:column)` only when the API renders them, because that needs the query's text.
Source: Prometheus 3.14 `util/annotations`, `promql/parser/posrange`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal

from mimir_ingest.model.labels import go_quote
from mimir_ingest.model.numbers import format_general
from mimir_ingest.promql.nodes import PosRange
from mimir_ingest.promql.parse_error import line_column

_HISTOGRAM_QUANTILE_PAGE = "https://prometheus.io/docs/prometheus/latest/querying/functions/#histogram_quantile"


@dataclass(frozen=True, slots=True)
class MonotonicityRepair:
    """What was repaired in classic histograms."""

    start_ms: int
    end_ms: int
    """First and last step (ms)."""
    lowest: float
    highest: float
    """Upper bounds of the outermost buckets that were raised."""
    largest_drop: float
    samples: int

    def merge(self, other: MonotonicityRepair) -> MonotonicityRepair:
        """Return both together."""
        return MonotonicityRepair(
            min(self.start_ms, other.start_ms),
            max(self.end_ms, other.end_ms),
            min(self.lowest, other.lowest),
            max(self.highest, other.highest),
            max(self.largest_drop, other.largest_drop),
            self.samples + other.samples,
        )

    def __str__(self) -> str:
        start, end = (datetime.fromtimestamp(ms // 1000, UTC) for ms in (self.start_ms, self.end_ms))
        return (
            f"from buckets {format_general(self.lowest)} to {format_general(self.highest)}, with a max diff of "
            f"{self.largest_drop:.2g}, over {self.samples} samples from {start:%Y-%m-%dT%H:%M:%SZ} to "
            f"{end:%Y-%m-%dT%H:%M:%SZ}"
        )


@dataclass(frozen=True, slots=True)
class Annotation:
    """One warning or info."""

    kind: Literal["warning", "info"]
    text: str
    """Without the leading `PromQL warning: ` or `PromQL info: `."""
    pos: PosRange
    repair: MonotonicityRepair | None = None

    def render(self, query: str) -> str:
        """Return the text as the API shows it."""
        detail = f", {self.repair}" if self.repair else ""
        position = line_column(query.encode("utf-8", "surrogateescape"), self.pos.start)
        return f"PromQL {self.kind}: {self.text}{detail} ({position})"


class Annotations:
    """The annotations of one evaluation."""

    def __init__(self) -> None:
        self._by_text: dict[tuple[str, str], Annotation] = {}

    def __len__(self) -> int:
        return len(self._by_text)

    def __iter__(self):
        return iter(self._by_text.values())

    def add(self, annotation: Annotation) -> None:
        """Add one; of equal texts the newest stays, repairs add up."""
        key = (annotation.kind, annotation.text)
        known = self._by_text.get(key)
        if known is not None and known.repair and annotation.repair:
            annotation = replace(known, repair=known.repair.merge(annotation.repair))
        self._by_text[key] = annotation

    def warn(self, text: str, pos: PosRange) -> None:
        """Add a warning."""
        self.add(Annotation("warning", text, pos))

    def inform(self, text: str, pos: PosRange) -> None:
        """Add an info."""
        self.add(Annotation("info", text, pos))

    def render(self, query: str, *, limit: int = 0) -> tuple[list[str], list[str]]:
        """Return (warnings, infos) with positions, at most `limit` each (0: all), then how many were left out."""
        lists: dict[str, list[str]] = {"warning": [], "info": []}
        for annotation in self:
            lists[annotation.kind].append(annotation.render(query))
        for kind, texts in lists.items():
            if limit and len(texts) > limit:
                texts[limit:] = [f"{len(texts) - limit} more {kind} annotations omitted"]
        return lists["warning"], lists["info"]


def invalid_quantile(q: float) -> str:
    """Return the warning for a quantile outside [0, 1]."""
    return f"quantile value should be between 0 and 1, got {format_general(q)}"


def invalid_ratio(ratio: float, cap: float) -> str:
    """Return the warning for a ratio outside [-1, 1]."""
    return f"ratio value should be between -1 and 1, got {format_general(ratio)}, capping to {format_general(cap)}"


def bad_bucket_label(label: str, metric_name: str) -> str:
    """Return the warning for a bucket whose `le` is missing or no number."""
    return _for_metric(f'bucket label "le" is missing or has a malformed value of {go_quote(label)}', metric_name)


def forced_monotonicity(metric_name: str) -> str:
    """Return the info for classic histograms whose counts fell with rising bounds."""
    text = f"input to histogram_quantile needed to be fixed for monotonicity (see {_HISTOGRAM_QUANTILE_PAGE})"
    return _for_metric(text, metric_name)


def possible_non_counter(metric_name: str) -> str:
    """Return the info for a rate over a metric that is not named like a counter."""
    return "metric might not be a counter, name does not end in _total/_sum/_count/_bucket: " + go_quote(metric_name)


def possible_non_counter_type(metric_name: str, type_label: str) -> str:
    """Return the info for a rate over a metric whose `__type__` is no counter's."""
    return (
        'metric might not be a counter, __type__ label is not set to "counter" or "histogram", got '
        f"{go_quote(type_label)}: {go_quote(metric_name)}"
    )


def incompatible_types(left: str, operator: str, right: str) -> str:
    """Return the info for a binary operator that is not defined on two sample types."""
    return f"incompatible sample types encountered for binary operator {go_quote(operator)}: {left} {operator} {right}"


SORT_IN_RANGE_QUERY = "sort is ineffective for range queries since results are always ordered by labels"


def _for_metric(text: str, metric_name: str) -> str:
    return f"{text} for metric name {go_quote(metric_name)}" if metric_name else text
