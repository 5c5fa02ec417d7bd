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


def wrapped_int64(number: int) -> int:
    """Return what is left of a sum in an int64 of Go."""
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)


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
    """As Prometheus counts them: an int64 that may have overflowed."""

    def merge(self, other: MonotonicityRepair) -> MonotonicityRepair:
        """Return both together."""
        return MonotonicityRepair(
            min(self.start_ms, other.start_ms),
            max(self.end_ms, other.end_ms),
            min(self.lowest, other.lowest),
            max(self.highest, other.highest),
            max(self.largest_drop, other.largest_drop),
            wrapped_int64(self.samples + other.samples),
        )

    def __str__(self) -> str:
        start, end = (datetime.fromtimestamp(int(ms / 1000), UTC) for ms in (self.start_ms, self.end_ms))
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


def incompatible_layouts(operator: str) -> str:
    """Return the warning for a binary operator between exponential and custom buckets."""
    return f"incompatible bucket layout encountered for binary operator {operator}"


def mixed_samples(metric_name: str) -> str:
    """Return the warning for a range of floats and histograms where all should be of one kind."""
    return f"encountered a mix of histograms and floats for metric name {go_quote(metric_name)}"


MIXED_AGGREGATION = "encountered a mix of histograms and floats for aggregation"


def mixed_schemas(metric_name: str) -> str:
    """Return the warning for exponential and custom buckets where all should be of one kind."""
    return (
        "vector contains a mix of histograms with exponential and custom buckets schemas for metric name "
        f"{go_quote(metric_name)}"
    )


def mixed_histograms(metric_name: str) -> str:
    """Return the warning for classic and native histograms of equal labels."""
    return _for_metric("vector contains a mix of classic and native histograms", metric_name)


def not_a_counter(metric_name: str) -> str:
    """Return the warning for a gauge histogram where a counter is due."""
    return f"this native histogram metric is not a counter: {go_quote(metric_name)}"


def not_a_gauge(metric_name: str) -> str:
    """Return the warning for a counter histogram where a gauge is due."""
    return f"this native histogram metric is not a gauge: {go_quote(metric_name)}"


def conflicting_resets(operation: str) -> str:
    """Return the warning for histograms with a reset put together with others without; `addition` and the like."""
    return f"conflicting counter resets during histogram {operation}"


def reconciled_bounds(operation: str) -> str:
    """Return the info for custom bounds that were intersected."""
    return f"mismatched custom buckets were reconciled during {operation}"


def ignored_in_aggregation(aggregation: str) -> str:
    """Return the info for histograms in an aggregation of floats."""
    return f"ignored histogram in {aggregation} aggregation"


def ignored_in_range(metric_name: str) -> str:
    """Return the info for histograms in a range whose floats alone count."""
    return (
        f"ignored histograms in a range containing both floats and histograms for metric name {go_quote(metric_name)}"
    )


def nan_result(metric_name: str) -> str:
    """Return the info for a quantile that lies among observations of NaN."""
    return _for_metric("input to histogram_quantile has NaN observations, result is NaN", metric_name)


def nan_skew(metric_name: str) -> str:
    """Return the info for a quantile that observations of NaN move."""
    return _for_metric("input to histogram_quantile has NaN observations, result is skewed higher", metric_name)


def nan_excluded(metric_name: str) -> str:
    """Return the info for a fraction of observations some of which are NaN."""
    text = "input to histogram_fraction has NaN observations, which are excluded from all fractions"
    return _for_metric(text, metric_name)


SORT_IN_RANGE_QUERY = "sort is ineffective for range queries since results are always ordered by labels"


def _for_metric(text: str, metric_name: str) -> str:
    return f"{text} for metric name {go_quote(metric_name)}" if metric_name else text
