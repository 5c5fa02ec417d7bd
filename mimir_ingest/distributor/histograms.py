"""Which native histograms of a write request may go on: rules 9 to 12 of spec ingest-storage 8.5, and consistency.

Mimir's ingesters find inconsistent histograms after the sender has its answer (spec 9.2); here the sender is told,
in the ingester's words (spec http-api 15), and nothing of the kind reaches the log.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from mimir_ingest.distributor.limits import DistributorLimits
from mimir_ingest.distributor.messages import (
    clean,
    cut,
    lenient,
    read_labels,
    read_metric_name,
    rfc3339,
    whole_series_text,
    with_id,
    with_tenant_flags,
)
from mimir_ingest.errors import InvalidSeries
from mimir_ingest.kernels import histogram_wire
from mimir_ingest.kernels.histogram_check import HistogramFault, reduce_histograms
from mimir_ingest.model.histograms import CUSTOM_BUCKETS_SCHEMA, Histograms, HistogramSamples
from mimir_ingest.wire.histograms import HistogramFacts

(FUTURE, PAST, SCHEMA, TOO_MANY, TOO_MANY_CUSTOM, NOT_REDUCIBLE, SPAN_OFFSET, SPANS, FAULT) = range(1, 10)
"""Broken rules, in the order in which they are judged; from FAULT on, FAULT - 1 and a HistogramFault."""

_IDS = {
    FUTURE: "err-mimir-too-far-in-future",
    PAST: "err-mimir-too-far-in-past",
    SCHEMA: "err-mimir-invalid-native-histogram-schema",
    TOO_MANY: "err-mimir-max-native-histogram-buckets",
    TOO_MANY_CUSTOM: "err-mimir-native-histogram-custom-buckets-not-reducible",
    NOT_REDUCIBLE: "err-mimir-not-reducible-native-histogram",
    SPAN_OFFSET: "err-mimir-native-histogram-span-negative-offset",
    SPANS: "err-mimir-native-histogram-spans-buckets-mismatch",
}
_FAULT_IDS = {
    HistogramFault.CUSTOM_BUCKETS_INVALID: "err-mimir-native-histogram-custom-buckets-invalid",
    HistogramFault.CUSTOM_BUCKETS_INFINITE: "err-mimir-native-histogram-custom-buckets-infinite",
    HistogramFault.CUSTOM_BUCKETS_MISMATCH: "err-mimir-native-histogram-custom-buckets-mismatch",
    HistogramFault.CUSTOM_BUCKETS_BESIDES: "err-mimir-native-histogram-custom-buckets-invalid",
    HistogramFault.BOUNDS_WITHOUT_CUSTOM_BUCKETS: "err-mimir-native-histogram-custom-buckets-invalid",
    HistogramFault.NEGATIVE_BUCKET_COUNT: "err-mimir-native-histogram-negative-bucket-count",
    HistogramFault.COUNT_MISMATCH: "err-mimir-native-histogram-count-mismatch",
    HistogramFault.COUNT_NOT_BIG_ENOUGH: "err-mimir-native-histogram-count-not-big-enough",
}
_FAULT_TEXTS = {
    HistogramFault.CUSTOM_BUCKETS_INVALID: (
        "custom buckets: histogram custom bounds must be in strictly increasing order"
    ),
    HistogramFault.CUSTOM_BUCKETS_INFINITE: (
        "custom buckets: last +Inf bound must not be explicitly defined: histogram custom bounds must be finite"
    ),
    HistogramFault.CUSTOM_BUCKETS_MISMATCH: "custom buckets: histogram custom bounds are too few",
    HistogramFault.CUSTOM_BUCKETS_BESIDES: "custom buckets: must not have a zero bucket or negative buckets",
    HistogramFault.BOUNDS_WITHOUT_CUSTOM_BUCKETS: "histogram with exponential schema must not have custom bounds",
    HistogramFault.NEGATIVE_BUCKET_COUNT: "histogram has a bucket whose observation count is negative",
}
INCONSISTENT = "invalid-native-histogram"
"""Discard reason of histograms that contradict themselves (spec 9.2)."""


@dataclass(frozen=True, slots=True)
class JudgedHistograms:
    """What the rules say of each histogram."""

    samples: HistogramSamples
    """All of them; those over the bucket limit at a lower resolution."""
    rules: np.ndarray
    """uint8[m]: 0, or the first rule that is broken."""
    facts: HistogramFacts

    @property
    def series_of(self) -> np.ndarray:
        """int64[m]: series of each."""
        return np.repeat(np.arange(self.samples.series_count), np.diff(self.samples.offsets))

    def broken_series(self) -> np.ndarray:
        """Return int64[n]: the first histogram of each series that breaks a rule, -1 where none does."""
        first = np.full(self.samples.series_count, -1, np.int64)
        rows = np.flatnonzero(self.rules)[::-1]
        first[self.series_of[rows]] = rows
        return first


def judge_histograms(
    samples: HistogramSamples, facts: HistogramFacts, limits: DistributorLimits, *, oldest_ms: int, newest_ms: int
) -> JudgedHistograms:
    """Judge all histograms of a request; `oldest_ms` and `newest_ms` are the extreme timestamps allowed."""
    values, ts = samples.values, samples.timestamps
    known = ((facts.schema >= -4) & (facts.schema <= 8)) | (facts.schema == CUSTOM_BUCKETS_SCHEMA)
    limit = limits.max_native_histogram_buckets
    over = facts.buckets > limit if limit > 0 else np.zeros(len(ts), bool)
    custom = over & (facts.schema == CUSTOM_BUCKETS_SCHEMA)
    stuck = np.zeros(len(ts), bool)
    if (over & ~custom).any() and limits.reduce_native_histogram_over_max_buckets:
        values, stuck = _reduced(values, limit, over & ~custom & known)
    faults = values.faults()
    rules = np.select(
        [
            ts > newest_ms,
            ts < oldest_ms,
            ~known,
            over & ~custom & (not limits.reduce_native_histogram_over_max_buckets),
            custom,
            stuck,
            facts.problem == histogram_wire.SPAN_NEGATIVE_OFFSET,
            facts.problem == histogram_wire.SPANS_BUCKETS_MISMATCH,
            faults > 0,
        ],
        [
            FUTURE,
            PAST,
            SCHEMA,
            TOO_MANY,
            TOO_MANY_CUSTOM,
            NOT_REDUCIBLE,
            SPAN_OFFSET,
            SPANS,
            FAULT - 1 + faults.astype(np.int64),
        ],
        0,
    ).astype(np.uint8)
    return JudgedHistograms(replace(samples, values=values), rules, facts)


def _reduced(values: Histograms, limit: int, which: np.ndarray) -> tuple[Histograms, np.ndarray]:
    """Return the histograms, those of the mask at a lower resolution, and bool[m]: where that was not enough."""
    rows = np.flatnonzero(which)
    part = values.take(rows)
    m, b = len(part), len(part.bucket_index)
    schema, offsets, refused = np.empty(m, np.int8), np.empty(2 * m + 1, np.int64), np.empty(m, np.uint8)
    index, count = np.empty(b, np.int32), np.empty(b, np.float64)
    reduce_histograms(part.columns, limit, schema, offsets, index, count, refused)
    used = int(offsets[-1])
    lower = replace(part, schema=schema, bucket_offsets=offsets, bucket_index=index[:used], bucket_count=count[:used])
    place = np.arange(len(values))
    place[rows] = len(values) + np.arange(m)
    stuck = np.zeros(len(values), bool)
    stuck[rows[refused == 1]] = True
    return Histograms.concat([values, lower]).take(place), stuck


def rule_reason(rule: int) -> str:
    """Return the `reason` label of the discard counters."""
    return _IDS[rule].removeprefix("err-mimir-").replace("-", "_") if rule < SPAN_OFFSET else INCONSISTENT


def rule_error(judged: JudgedHistograms, row: int, label_bytes: bytes, limits: DistributorLimits) -> InvalidSeries:
    """Return the error about histogram `row` of the series with these label bytes."""
    rule, timestamp = int(judged.rules[row]), int(judged.samples.timestamps[row])
    if rule >= SPAN_OFFSET:
        return _inconsistent(judged, row, label_bytes)
    error_id = _IDS[rule]
    if rule in (FUTURE, PAST):
        when, flag = ("future", "create") if rule == FUTURE else ("past", "past")
        metric = clean(cut(lenient(read_metric_name(label_bytes))))
        text = f"received a sample whose timestamp is too far in the {when}, timestamp: {timestamp} series: '{metric}'"
        return InvalidSeries(with_tenant_flags(text, error_id, f"validation.{flag}-grace-period"), error_id=error_id)
    if rule == SCHEMA:
        text = f"received a native histogram sample with an invalid schema: {judged.facts.schema[row]}"
        return InvalidSeries(with_id(text, error_id), error_id=error_id)
    what = {
        TOO_MANY: "with too many buckets",
        TOO_MANY_CUSTOM: "with more custom buckets than the limit",
        NOT_REDUCIBLE: "with too many buckets and cannot reduce",
    }[rule]
    series = whole_series_text(label_bytes)
    text = (
        f"received a native histogram sample {what}, timestamp: {timestamp} series: {series}, "
        f"buckets: {judged.facts.buckets[row]}, limit: {limits.max_native_histogram_buckets}"
    )
    return InvalidSeries(with_id(text, error_id), error_id=error_id)


def _inconsistent(judged: JudgedHistograms, row: int, label_bytes: bytes) -> InvalidSeries:
    rule = int(judged.rules[row])
    if rule >= FAULT:
        fault = HistogramFault(rule - FAULT + 1)
        error_id, text = _FAULT_IDS[fault], _fault_text(fault, judged.samples.values, row)
    else:
        error_id = _IDS[rule]
        side, wanted, found = judged.facts.details[row].tolist()
        where = ("negative", "positive")[side] + " side"
        if judged.facts.schema[row] == CUSTOM_BUCKETS_SCHEMA:
            where = "custom buckets"
        text = (
            f"{where}: span number {wanted} with offset {found}: histogram has a span whose offset is negative"
            if rule == SPAN_OFFSET
            else f"{where}: spans need {wanted} buckets, have {found} buckets: "
            "histogram spans specify different number of buckets than provided"
        )
    labels = " ".join(f"{{{clean(lenient(name))} {clean(lenient(value))}}}" for name, value in read_labels(label_bytes))
    timestamp = rfc3339(int(judged.samples.timestamps[row]))
    return InvalidSeries(with_id(f"err: {text}. timestamp={timestamp}, series=[{labels}]", error_id), error_id=error_id)


def _fault_text(fault: HistogramFault, values: Histograms, row: int) -> str:
    if fault in _FAULT_TEXTS:
        return _FAULT_TEXTS[fault]
    buckets = slice(int(values.bucket_offsets[2 * row]), int(values.bucket_offsets[2 * row + 2]))
    found = int(values.zero_count[row] + values.bucket_count[buckets].sum())
    need = (
        "histogram's observation count should equal the number of observations found in the buckets (in absence of NaN)"
        if fault == HistogramFault.COUNT_MISMATCH
        else "histogram's observation count should be at least the number of observations found in the buckets"
    )
    return f"{found} observations found in buckets, but the Count field is {int(values.count[row])}: {need}"


def without_repeated_times(samples: HistogramSamples) -> tuple[HistogramSamples, int]:
    """Keep the first histogram of each timestamp of a series; return them, and the number that was dropped."""
    ts = samples.timestamps
    series = np.repeat(np.arange(samples.series_count), np.diff(samples.offsets))
    order = np.lexsort((ts, series))
    same = (ts[order][1:] == ts[order][:-1]) & (series[order][1:] == series[order][:-1])
    if not same.any():
        return samples, 0
    keep = np.ones(len(ts), bool)
    keep[order[1:][same]] = False
    return samples.keep(keep), int(same.sum())
