"""Which series of a write request may go on, and what the sender is told about the first one that may not.

Pure: a kernel judges all series at once; only the first series that fails, and those whose values are shortened, are
ever looked at one by one. Rules, order, ids and reasons: spec ingest-storage 8.5; texts: spec http-api 15.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from mimir_ingest.distributor.histograms import (
    JudgedHistograms,
    judge_histograms,
    rule_error,
    rule_reason,
    without_repeated_times,
)
from mimir_ingest.distributor.limits import MIN_SHORTENED_BYTES, DistributorLimits
from mimir_ingest.distributor.messages import (
    MAX_QUOTED_BYTES,
    clean,
    cut,
    lenient,
    read_labels,
    read_metric_name,
    series_text,
    with_id,
    with_tenant_flags,
)
from mimir_ingest.errors import InvalidSeries, InvariantViolated
from mimir_ingest.kernels.hashing import xxh64_spans
from mimir_ingest.kernels.validate import (
    MAX_TIMESTAMP,
    MIN_TIMESTAMP,
    UNORDERED,
    WITHOUT_SAMPLES,
    SeriesRule,
    check_series,
)
from mimir_ingest.model.batch import SOURCE_OTLP, WriteBatch
from mimir_ingest.model.labels import put_uvarint
from mimir_ingest.wire.histograms import HistogramFacts

RULE_IDS = {
    SeriesRule.MISSING_METRIC_NAME: "err-mimir-missing-metric-name",
    SeriesRule.METRIC_NAME_INVALID: "err-mimir-metric-name-invalid",
    SeriesRule.MAX_LABEL_NAMES: "err-mimir-max-label-names-per-series",
    SeriesRule.MAX_LABEL_NAMES_INFO: "err-mimir-max-label-names-per-info-series",
    SeriesRule.LABEL_INVALID: "err-mimir-label-invalid",
    SeriesRule.LABEL_NAME_TOO_LONG: "err-mimir-label-name-too-long",
    SeriesRule.LABEL_VALUE_INVALID: "err-mimir-label-value-invalid",
    SeriesRule.LABEL_VALUE_TOO_LONG: "err-mimir-label-value-too-long",
    SeriesRule.DUPLICATE_LABEL_NAMES: "err-mimir-duplicate-label-names",
    SeriesRule.TOO_FAR_IN_FUTURE: "err-mimir-too-far-in-future",
    SeriesRule.TOO_FAR_IN_PAST: "err-mimir-too-far-in-past",
}
DUPLICATE_TIMESTAMP = "sample_duplicate_timestamp"
"""Discard reason of samples whose timestamp an earlier sample of the same series and request has."""

_OTLP_LIMITS_PAGE = (
    "https://grafana.com/docs/grafana-cloud/send-data/otlp/otlp-format-considerations/#metrics-ingestion-limits"
)
_NO_LOWER_BOUND = -(1 << 63)


def discard_reason(error_id: str) -> str:
    """Return the `reason` label of the discard counters for an error id."""
    return error_id.removeprefix("err-mimir-").replace("-", "_")


@dataclass(frozen=True, slots=True)
class ValidSeries:
    """What is left of a batch, and why the rest is not."""

    batch: WriteBatch
    """Series with at least one sample; metadata untouched."""
    first_error: InvalidSeries | None
    discarded: Mapping[str, int]
    """Discarded samples by reason. A series that fails without any sample counts as one."""
    shortened: int
    """Series with label values that were cut or replaced by their hash."""
    dropped_histograms: int
    """Valid native histograms of a tenant that stores none."""
    refused: np.ndarray
    """bool[n]: the series given that broke a rule."""
    rows: np.ndarray
    """int64[...]: the batch's series among those given."""


def validate_series(
    batch: WriteBatch,
    limits: DistributorLimits,
    *,
    now_ms: int,
    skip_label_names: bool = False,
    skip_label_count: bool = False,
    histogram_facts: HistogramFacts | None = None,
) -> ValidSeries:
    """Drop the series that break a rule, later samples of a repeated timestamp, and series that nothing is left of.

    `histogram_facts` belong to the batch's native histograms.
    """
    n = batch.series_count
    column = _limit_column(limits, now_ms, skip_label_names, skip_label_count)
    judged = None
    if batch.histograms is not None and histogram_facts is not None:
        judged = judge_histograms(
            batch.histograms,
            histogram_facts,
            limits,
            oldest_ms=int(column[MIN_TIMESTAMP]),
            newest_ms=int(column[MAX_TIMESTAMP]),
        )
        batch = replace(batch, histograms=judged.samples)
    codes, at, counts = np.empty(n, np.uint8), np.empty(n, np.int64), np.empty(2, np.int64)
    failed = check_series(
        batch.labels,
        batch.label_offsets,
        batch.sample_offsets,
        batch.timestamps,
        column,
        codes,
        at,
        counts,
    )
    if failed < 0:
        raise InvariantViolated(f"label bytes of a decoded batch of {n} series do not parse: status {failed}")
    first_error, discarded, shortened = None, {}, 0
    refused = np.zeros(n, bool)
    if failed or (judged is not None and judged.rules.any()):
        broken = (codes != SeriesRule.OK) & (codes != SeriesRule.VALUES_TO_SHORTEN)
        first_error, discarded, broken = _explain(batch, limits, codes, at, broken, judged)
        to_shorten = np.flatnonzero(codes == SeriesRule.VALUES_TO_SHORTEN)
        shortened = len(to_shorten)
        if shortened:
            batch = _shorten(batch, to_shorten, limits)
        stays, refused = ~broken, broken & (codes != SeriesRule.NO_LABELS)
    else:
        stays = np.ones(n, bool)
    dropped = 0
    if batch.histograms is not None and not limits.native_histograms_ingestion_enabled:
        dropped = int(np.diff(batch.histograms.offsets)[stays].sum())
        batch = replace(batch, histograms=None)
    if counts[WITHOUT_SAMPLES]:
        filled = np.diff(batch.sample_offsets) > 0
        if batch.histograms is not None:
            filled |= np.diff(batch.histograms.offsets) > 0
        if batch.exemplars is not None and limits.max_global_exemplars_per_user > 0:
            # Prometheus sends each exemplar as a series of its own, beside the one with the sample.
            filled |= np.diff(batch.exemplars.offsets) > 0
        stays &= filled
    rows = np.flatnonzero(stays)
    if len(rows) < n:
        batch = replace(batch.take(rows), metadata=batch.metadata)
    repeated = 0
    if counts[UNORDERED]:
        batch, repeated = _drop_repeated_timestamps(batch)
    if batch.histograms is not None:
        histograms, again = without_repeated_times(batch.histograms)
        batch, repeated = replace(batch, histograms=histograms), repeated + again
    if repeated:
        discarded[DUPLICATE_TIMESTAMP] = repeated
    return ValidSeries(batch, first_error, discarded, shortened, dropped, refused, rows)


def _limit_column(limits: DistributorLimits, now_ms: int, skip_label_names: bool, skip_label_count: bool) -> np.ndarray:
    """Return the limits as `check_series` takes them."""
    oldest = _NO_LOWER_BOUND
    if limits.past_grace_period_ms > 0:
        oldest = now_ms - limits.past_grace_period_ms - limits.out_of_order_time_window_ms
    return np.array(
        [
            limits.max_label_names_per_series,
            limits.max_label_names_per_info_series,
            limits.max_label_name_length,
            limits.max_label_value_length,
            limits.name_validation_scheme == "utf8",
            skip_label_names,
            skip_label_count,
            limits.label_value_length_over_limit_strategy != "error",
            oldest,
            now_ms + limits.creation_grace_period_ms,
        ],
        np.int64,
    )


def _explain(
    batch: WriteBatch,
    limits: DistributorLimits,
    codes: np.ndarray,
    at: np.ndarray,
    broken: np.ndarray,
    judged: JudgedHistograms | None,
) -> tuple[InvalidSeries | None, dict[str, int], np.ndarray]:
    """Return the error of the first series that breaks a rule, the discarded samples by reason, and all such series."""
    told = broken & (codes != SeriesRule.NO_LABELS)
    samples = np.diff(batch.sample_offsets)
    bad_histogram = np.full(len(codes), -1, np.int64)
    if judged is not None:
        samples = samples + np.diff(judged.samples.offsets)
        bad_histogram = np.where(broken, -1, judged.broken_series())
    samples = np.maximum(samples, 1)
    by_rule = np.bincount(codes[told], weights=samples[told], minlength=len(SeriesRule))
    discarded = {discard_reason(RULE_IDS[SeriesRule(r)]): int(by_rule[r]) for r in np.flatnonzero(by_rule)}
    rows = np.flatnonzero(told | (bad_histogram >= 0))
    if not len(rows):
        return None, {}, broken
    for row in np.flatnonzero(bad_histogram >= 0).tolist():
        reason = rule_reason(int(judged.rules[bad_histogram[row]]))
        discarded[reason] = discarded.get(reason, 0) + int(samples[row])
    row = int(rows[0])
    label_bytes = batch.labels[batch.label_offsets[row] : batch.label_offsets[row + 1]].tobytes()
    if bad_histogram[row] >= 0:
        error = rule_error(judged, int(bad_histogram[row]), label_bytes, limits)
    else:
        rule = SeriesRule(int(codes[row]))
        otlp = batch.source == SOURCE_OTLP
        text = rule_text(rule, int(at[row]), label_bytes, batch.timestamps, limits, otlp=otlp)
        error = InvalidSeries(text, error_id=RULE_IDS[rule])
    return error, discarded, broken | (bad_histogram >= 0)


def rule_text(
    rule: SeriesRule,
    at: int,
    label_bytes: bytes,
    timestamps: np.ndarray,
    limits: DistributorLimits,
    *,
    otlp: bool = False,
) -> str:
    """Return Mimir's text for one broken rule.

    Parameters
    ----------
    rule : SeriesRule
        One of `RULE_IDS`.
    at : int
        What the kernel says of the place: a label's number, a number of labels, or a sample's number.
    label_bytes : bytes
        The series.
    timestamps : int64[m]
        Of the whole batch.
    limits : DistributorLimits
        Those that were applied.
    otlp : bool
        Whether the sender speaks OTLP, for which one rule has its own words.
    """
    metric = read_metric_name(label_bytes)
    metric_text = clean(cut(lenient(metric[:MAX_QUOTED_BYTES])))
    error_id = RULE_IDS[rule]
    match rule:
        case SeriesRule.MISSING_METRIC_NAME:
            return with_id("received series has no metric name", error_id)
        case SeriesRule.METRIC_NAME_INVALID:
            name = metric.decode("ascii", "ignore")
            name += " (non-ascii characters removed)" * (len(name) != len(metric))
            return with_id(f"received a series with invalid metric name: '{cut(name)}'", error_id)
        case SeriesRule.MAX_LABEL_NAMES | SeriesRule.MAX_LABEL_NAMES_INFO:
            return _too_many_labels(metric, label_bytes, at, limits, info=rule == SeriesRule.MAX_LABEL_NAMES_INFO)
        case SeriesRule.TOO_FAR_IN_FUTURE | SeriesRule.TOO_FAR_IN_PAST:
            when, flag = ("future", "create") if rule == SeriesRule.TOO_FAR_IN_FUTURE else ("past", "past")
            return with_tenant_flags(
                f"received a sample whose timestamp is too far in the {when}, timestamp: {timestamps[at]} "
                f"series: '{metric_text}'",
                error_id,
                f"validation.{flag}-grace-period",
            )
    # Labels are judged in order, so those in front of this one have been shortened already.
    pairs = ((n, shorten_value(v, limits) if i < at else v) for i, (n, v) in enumerate(read_labels(label_bytes)))
    series = cut(series_text(metric, pairs))
    label, value = next(itertools.islice(read_labels(label_bytes), at, None))
    label_text = clean(cut(lenient(label[:MAX_QUOTED_BYTES])))
    value_text = lenient(value[:MAX_QUOTED_BYTES])
    match rule:
        case SeriesRule.LABEL_INVALID:
            return with_id(f"received a series with an invalid label: '{label_text}' series: '{series}'", error_id)
        case SeriesRule.LABEL_NAME_TOO_LONG:
            return with_tenant_flags(
                f"received a series whose label name length exceeds the limit, label: '{label_text}' "
                f"series: '{series}'",
                error_id,
                "validation.max-length-label-name",
            )
        case SeriesRule.LABEL_VALUE_INVALID:
            return with_id(
                f"received a series with invalid value in label '{label_text}': '{cut(clean(value_text))}' "
                f"metric: '{metric_text}'",
                error_id,
            )
        case SeriesRule.LABEL_VALUE_TOO_LONG:
            exceeds = f"value length of {len(value)} exceeds the limit of {limits.max_label_value_length}"
            shown = f"'{clean(lenient(label))}', value: '{clean(cut(value_text))}' (truncated)"
            if otlp:
                return (
                    f"received a metric whose attribute {exceeds}, attribute: {shown} metric: '{series}'. "
                    f"See: {_OTLP_LIMITS_PAGE}"
                )
            return with_tenant_flags(
                f"received a series whose label {exceeds}, label: {shown} series: '{series}'",
                error_id,
                "validation.max-length-label-value",
            )
        case SeriesRule.DUPLICATE_LABEL_NAMES:
            return with_id(
                f"received a series with duplicate label name, label: '{label_text}' series: '{series}'", error_id
            )
    raise InvariantViolated(f"rule {rule!r} has no text")


def _too_many_labels(metric: bytes, label_bytes: bytes, count: int, limits: DistributorLimits, *, info: bool) -> str:
    whole = series_text(metric, read_labels(label_bytes))
    series = cut(whole) + "…" * (len(whole) > len(cut(whole)))
    rule = SeriesRule.MAX_LABEL_NAMES_INFO if info else SeriesRule.MAX_LABEL_NAMES
    limit = limits.max_label_names_per_info_series if info else limits.max_label_names_per_series
    return with_tenant_flags(
        f"received {'an info' if info else 'a'} series whose number of labels exceeds the limit "
        f"(actual: {count}, limit: {limit}) series: '{series}'",
        RULE_IDS[rule],
        f"validation.max-label-names-per-{'info-' * info}series",
    )


def shortened_text(strategy: str) -> str:
    """Return what Mimir logs of label values that a strategy has shortened."""
    became = {"truncate": "truncated and appended their hash value", "drop": "replaced by their hash value"}[strategy]
    return with_tenant_flags(
        f"received some series whose label value lengths exceed the limit; label values were {became}",
        RULE_IDS[SeriesRule.LABEL_VALUE_TOO_LONG],
        "validation.max-length-label-value",
    )


def shorten_value(value: bytes, limits: DistributorLimits) -> bytes:
    """Return a label value that fits: cut with its hash behind, or only its hash; unchanged if it fits or may not.

    A character that does not fit wholly is left out, so that the value stays UTF-8.
    """
    limit, strategy = limits.max_label_value_length, limits.label_value_length_over_limit_strategy
    if len(value) <= limit or strategy == "error":
        return value
    digest = f"(hash:{hashlib.blake2b(value, digest_size=32).hexdigest()})".encode()
    if strategy == "drop":
        return digest
    return value[: max(limit - MIN_SHORTENED_BYTES, 0)].decode("utf-8", "ignore").encode() + digest


def _shorten(batch: WriteBatch, rows: np.ndarray, limits: DistributorLimits) -> WriteBatch:
    """Return the batch with the over-long values of some series shortened."""
    labels, offsets = memoryview(np.ascontiguousarray(batch.labels)), batch.label_offsets.tolist()
    sizes = np.diff(batch.label_offsets)
    pieces: list[bytes | memoryview] = []
    done = 0
    for row in rows.tolist():
        pieces.append(labels[offsets[done] : offsets[row]])
        out = bytearray()
        for pair in read_labels(bytes(labels[offsets[row] : offsets[row + 1]])):
            for text in (pair[0], shorten_value(pair[1], limits)):
                put_uvarint(out, len(text))
                out += text
        pieces.append(bytes(out))
        sizes[row] = len(out)
        done = row + 1
    pieces.append(labels[offsets[done] : offsets[-1]])
    joined = np.frombuffer(b"".join(pieces), np.uint8)
    label_offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
    hashes = np.empty(batch.series_count, np.uint64)
    xxh64_spans(joined, label_offsets, hashes)
    return replace(batch, labels=joined, label_offsets=label_offsets, hashes=hashes)


def _drop_repeated_timestamps(batch: WriteBatch) -> tuple[WriteBatch, int]:
    """Keep the first sample of each timestamp of a series; return the batch and the number of samples dropped."""
    n = batch.series_count
    row = np.repeat(np.arange(n), np.diff(batch.sample_offsets))
    order = np.lexsort((batch.timestamps, row))
    ts, by = batch.timestamps[order], row[order]
    again = order[1:][(ts[1:] == ts[:-1]) & (by[1:] == by[:-1])]
    if not len(again):
        return batch, 0
    keep = np.ones(batch.sample_count, bool)
    keep[again] = False
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.bincount(row[keep], minlength=n))])
    starts = batch.starts[keep] if batch.starts is not None else None
    kept = replace(
        batch, sample_offsets=offsets, timestamps=batch.timestamps[keep], values=batch.values[keep], starts=starts
    )
    return kept, len(again)
