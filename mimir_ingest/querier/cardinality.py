"""Answers of the cardinality endpoints from what the owners of partitions have counted. Pure.

Label values are joined exactly; counts of series add up over partitions, each of which was asked of one owner. Source:
spec http-api.md 6.10 to 6.14, with the three orders.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence

import numpy as np

from mimir_ingest.ingester.census import CensusAsk, CensusPart, TenantTotals, census_too_large
from mimir_ingest.model.spans import Check
from mimir_ingest.tsdb.census import BUCKETS, LEAST_BUCKETS, MOST_BUCKETS, SERIES
from mimir_ingest.tsdb.series_table import TableView
from mimir_ingest.tsdb.tally import Tally

BATCH = 4096
"""Label sets rendered at a time. why: some 1 MB of JSON, 10 ms."""


def tally(parts: Sequence[CensusPart], ask: CensusAsk, check: Check | None = None) -> Tally:
    """Join what several owners counted; `check` is called between parts of the work.

    Raises QueryError when the labels are more than asked for.
    """
    columns, sums = ask.kind.columns
    joined = Tally.of([part.counted for part in parts], columns=columns, sums=sums, check=check)
    if 0 < ask.max_bytes < joined.nbytes:
        raise census_too_large(ask)
    return joined


def _names(table: TableView) -> list[str]:
    """Return the label names by their numbers."""
    used = table.pair_name[: table.pair_count]
    return [table.name(number) for number in range(int(used.max()) + 1 if len(used) else 0)]


def label_names(parts: Sequence[CensusPart], ask: CensusAsk, limit: int, check: Check | None = None) -> dict:
    """Return the JSON values of `label_names`: names with the most values first, then by name; `limit` of them.

    Raises QueryError (500) when names and values are more bytes than asked for.
    """
    table = tally(parts, ask, check).table
    names = _names(table)
    counts = np.bincount(table.pair_name[: table.pair_count], minlength=len(names)).tolist()
    rows = heapq.nsmallest(limit, zip(names, counts, strict=True), key=lambda row: (-row[1], row[0]))
    return {
        "label_values_count_total": table.pair_count,
        "label_names_count": len(names),
        "cardinality": [{"label_name": name, "label_values_count": count} for name, count in rows],
    }


def label_values(parts: Sequence[CensusPart], ask: CensusAsk, limit: int, check: Check | None = None) -> dict:
    """Return the JSON values of `label_values`: labels and values with the most series first, then by name or value.

    Each label lists `limit` values; a label that no series has is left out. The total is the tenant's, whatever the
    selector.
    """
    joined = tally(parts, ask, check)
    table, counts = joined.table, joined.counts[:, 0]
    labels = []
    for number, name in enumerate(_names(table)):
        if check is not None:
            check()
        pairs = np.flatnonzero(table.pair_name[: table.pair_count] == number)
        labels.append(
            {
                "label_name": name,
                "label_values_count": len(pairs),
                "series_count": int(counts[pairs].sum()),
                "cardinality": _most_series(table, pairs, counts[pairs], limit),
            }
        )
    labels.sort(key=lambda label: (-label["series_count"], label["label_name"]))
    return {"series_count_total": sum(part.series for part in parts), "labels": labels}


def _most_series(table: TableView, pairs: np.ndarray, counts: np.ndarray, limit: int) -> list[dict]:
    """Return the values with the most series; only those that may be among them become strings."""
    if limit < len(pairs):
        least = np.partition(counts, -limit)[-limit] if limit else counts.max() + 1
        candidates = np.flatnonzero(counts >= least)
        pairs, counts = pairs[candidates], counts[candidates]
    rows = ((table.value(pair), count) for pair, count in zip(pairs.tolist(), counts.tolist(), strict=True))
    found = heapq.nsmallest(limit, rows, key=lambda row: (-row[1], row[0]))
    return [{"label_value": value, "series_count": count} for value, count in found]


def active_series(
    parts: Sequence[CensusPart], ask: CensusAsk, check: Check | None = None
) -> Iterator[list[dict[str, str]]]:
    """Give the distinct label sets, BATCH at a time. Raises QueryError (413) for more bytes than asked for."""
    table = tally(parts, ask, check).table

    def batches() -> Iterator[list[dict[str, str]]]:
        for at in range(0, table.series_count, BATCH):
            refs = np.arange(at, min(at + BATCH, table.series_count), dtype=np.int32)
            yield table.frame(refs).to_dicts()

    return batches()


def active_histograms(parts: Sequence[CensusPart], ask: CensusAsk, check: Check | None = None) -> list[dict]:
    """Return the JSON values of `active_native_histogram_metrics`, by metric name."""
    joined = tally(parts, ask, check)
    rows = []
    for pair, counts in enumerate(joined.counts.tolist()):
        rows.append(
            {
                "metric": joined.table.value(pair),
                "series_count": counts[SERIES],
                "bucket_count": counts[BUCKETS],
                "avg_bucket_count": counts[BUCKETS] / counts[SERIES],
                "min_bucket_count": -counts[LEAST_BUCKETS],
                "max_bucket_count": counts[MOST_BUCKETS],
            }
        )
    return sorted(rows, key=lambda row: row["metric"])


def tenant_stats(totals: TenantTotals) -> dict:
    """Return a tenant's series and rates (samples a second) as the statistics pages name them."""
    return {
        "ingestionRate": totals.rates.api + totals.rates.rule,
        "numSeries": totals.series,
        "APIIngestionRate": totals.rates.api,
        "RuleIngestionRate": totals.rates.rule,
    }


def total(parts: Sequence[CensusPart]) -> TenantTotals:
    """Return a tenant's totals over the owners' answers."""
    found = TenantTotals()
    for part in parts:
        found = found.plus(TenantTotals(part.series, part.rates))
    return found
