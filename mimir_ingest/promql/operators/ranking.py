"""Aggregations that keep some of the series: `topk bottomk limitk limit_ratio`."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from mimir_ingest.errors import QueryError
from mimir_ingest.kernels import ranking
from mimir_ingest.kernels.hashing import xxh64_spans
from mimir_ingest.model.numbers import format_general
from mimir_ingest.promql import annotations as texts
from mimir_ingest.promql.operators.base import Evaluation, filled_rows
from mimir_ingest.promql.operators.sorting import go_order
from mimir_ingest.promql.plan_nodes import Aggregate
from mimir_ingest.promql.values import Steps, VectorBlock

_OPERATIONS = {"topk": ranking.TOP, "bottomk": ranking.BOTTOM, "limitk": ranking.FIRST, "limit_ratio": ranking.FIRST}
RANKINGS = frozenset(_OPERATIONS)
"""Names of the aggregations that `rank_series` evaluates."""

_INT64_EDGE = float(1 << 63)


def rank_series(
    evaluation: Evaluation,
    node: Aggregate,
    block: VectorBlock,
    groups: np.ndarray,
    group_count: int,
    param: np.ndarray,
    steps: Steps,
) -> VectorBlock:
    """Keep the series that the aggregation picks at each step.

    `groups` is int64[n], the group of each series, `param` float64[steps]. The result at a single instant is ordered
    as Prometheus lists it.
    """
    if node.op == "limit_ratio":
        block, limits = _limit_ratio(evaluation, node, block, param), np.full(len(param), len(groups))
        if not steps.at_once:
            return filled_rows(block)
    else:
        limits = _limits(param)
    if limits is None:
        return VectorBlock.empty(len(param))
    members = np.argsort(groups, kind="stable")
    bounds = np.searchsorted(groups[members], np.arange(group_count + 1))
    ranked = block.present if _OPERATIONS[node.op] == ranking.FIRST else block.float_present
    if ranked is not block.present and (block.histogram_present & (limits >= 1)).any():
        evaluation.annotations.inform(texts.ignored_in_aggregation(node.op), node.pos)
    values, position = block.values, np.empty(ranked.shape, np.int32)
    for at in evaluation.step_pieces(*ranked.shape):
        columns = (np.ascontiguousarray(column[:, at]) for column in (values, ranked))
        part = np.empty((len(values), at.stop - at.start), np.int32)
        ranking.rank_rows(members, bounds, *columns, limits[at], _OPERATIONS[node.op], part)
        position[:, at] = part
    kept = block.where(position > 0)
    if steps.at_once:
        return kept.take(_instant_order(evaluation, node.op, groups, values[:, 0], position[:, 0]))
    return filled_rows(kept)


def _limits(param: np.ndarray) -> np.ndarray | None:
    """Return int64[steps], k at each step; None if it is below 1 everywhere. QueryError if it is no such number."""
    if np.isnan(param).any():
        raise QueryError("Parameter value is NaN")
    if not len(param) or param.max() < 1:
        return None
    if param.min() <= -_INT64_EDGE:
        raise QueryError(f"Scalar value {format_general(float(param.min()))} underflows int64")
    if param.max() >= _INT64_EDGE:
        raise QueryError(f"Scalar value {format_general(float(param.max()))} overflows int64")
    return param.astype(np.int64)


def _instant_order(
    evaluation: Evaluation, op: str, groups: np.ndarray, values: np.ndarray, position: np.ndarray
) -> np.ndarray:
    """Return the rows that were kept: group after group, best first; for limits in the order of the heap."""
    rows = np.flatnonzero(position)
    rows = rows[np.lexsort((position[rows], groups[rows]))]
    if _OPERATIONS[op] == ranking.FIRST:
        return rows
    ordered = []
    for group in np.unique(groups[rows]):
        members = rows[groups[rows] == group]
        ordered.append(members[go_order(evaluation, values[members], descending=op == "topk")])
    return np.concatenate(ordered) if ordered else rows


def _limit_ratio(evaluation: Evaluation, node: Aggregate, block: VectorBlock, param: np.ndarray) -> VectorBlock:
    """Keep the series whose label hash lies in the first (or, if negative, last) part of the hash's range."""
    if not len(param) or not param.any():
        return block.where(np.zeros_like(block.present))
    if np.isnan(param).any():
        raise QueryError("Ratio value is NaN")
    for outermost, cap in ((float(param.max()), 1.0), (float(param.min()), -1.0)):
        if outermost * cap > 1.0:
            evaluation.annotations.warn(texts.invalid_ratio(outermost, cap), node.param.pos)
    ratio = np.clip(param, -1.0, 1.0)
    at = _hash_label_sets(evaluation.watched(block.labels.to_dicts())).astype(np.float64)[:, None] / float(
        (1 << 64) - 1
    )
    inside = np.where(ratio >= 0, at < ratio, at >= 1.0 + ratio) & (ratio != 0)
    return block.where(block.present & inside)


def _hash_label_sets(sets: Iterable[dict[str, str]]) -> np.ndarray:
    """Return uint64[n]: xxHash64 over the form in which Prometheus keeps labels.

    Source: Prometheus 3.14 `model/labels/labels_stringlabels.go`: each string after its size, one byte below 255, else
    255 and three bytes, little-endian.
    """
    spans = []
    for labels in sets:
        out = bytearray()
        for name, value in labels.items():
            for text in (name, value):
                encoded = text.encode("utf-8", "surrogateescape")
                size = len(encoded)
                out += bytes((size,)) if size < 255 else b"\xff" + size.to_bytes(3, "little")
                out += encoded
        spans.append(bytes(out))
    offsets = np.cumsum([0, *map(len, spans)], dtype=np.int64)
    hashes = np.empty(len(spans), np.uint64)
    xxh64_spans(np.frombuffer(b"".join(spans), np.uint8), offsets, hashes)
    return hashes
