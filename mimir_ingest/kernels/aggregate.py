"""Aggregations over series: all groups and all steps in one pass over the rows, in the order of the rows.

Source: Prometheus 3.14 `promql/engine.go` `aggregation`, `aggregationK`. Twin: `tests/reference/aggregate.py`.
"""

from __future__ import annotations

import math

import numpy as np

from mimir_ingest.kernels._jit import (
    bool_2d_in,
    bool_2d_out,
    f64_2d_in,
    f64_2d_out,
    f64_in,
    i64,
    i64_in,
    kernel,
)
from mimir_ingest.kernels.compensated import add
from mimir_ingest.kernels.over_time import order_values, quantile_of

MIN, MAX, COUNT, GROUP = range(4)
"""Operations of `fold_rows`."""


@kernel(i64(i64_in, f64_2d_in, bool_2d_in, f64_2d_out, bool_2d_out))
def sum_rows(groups, values, present, values_out, present_out):
    """Sum the rows of each group at each step, compensated.

    Parameters
    ----------
    groups : int64[n]
        Group of each row.
    values, present : float64[n, steps], bool[n, steps]
    values_out, present_out : float64[k, steps], bool[k, steps], written
        One row a group; absent where no row of the group is present.

    Returns
    -------
    int64
        Number of values.
    """
    k, steps = values_out.shape
    lost = np.zeros((k, steps), np.float64)
    values_out[:, :] = 0.0
    present_out[:, :] = False
    for i in range(len(groups)):
        g = groups[i]
        for s in range(steps):
            if present[i, s]:
                if present_out[g, s]:
                    values_out[g, s], lost[g, s] = add(values[i, s], values_out[g, s], lost[g, s])
                else:
                    present_out[g, s] = True
                    values_out[g, s] = values[i, s]
    found = 0
    for g in range(k):
        for s in range(steps):
            values_out[g, s] += lost[g, s]
            found += 1 if present_out[g, s] else 0
    return found


@kernel(i64(i64_in, f64_2d_in, bool_2d_in, f64_2d_out, bool_2d_out))
def average_rows(groups, values, present, values_out, present_out):
    """Average the rows of each group at each step; shapes as `sum_rows`.

    The mean of the compensated sum; from the value on that makes the sum overflow, an incremental mean.
    """
    k, steps = values_out.shape
    lost = np.zeros((k, steps), np.float64)
    count = np.zeros((k, steps), np.float64)
    incremental = np.zeros((k, steps), np.bool_)
    values_out[:, :] = 0.0
    for i in range(len(groups)):
        g = groups[i]
        for s in range(steps):
            if not present[i, s]:
                continue
            value = values[i, s]
            count[g, s] += 1.0
            seen = count[g, s]
            if seen == 1.0:
                values_out[g, s] = value
                continue
            if not incremental[g, s]:
                total, rest = add(value, values_out[g, s], lost[g, s])
                if not math.isinf(total):
                    values_out[g, s], lost[g, s] = total, rest
                    continue
                incremental[g, s] = True
                values_out[g, s] /= seen - 1.0
                lost[g, s] /= seen - 1.0
            weight = (seen - 1.0) / seen
            values_out[g, s], lost[g, s] = add(value / seen, weight * values_out[g, s], weight * lost[g, s])
    found = 0
    for g in range(k):
        for s in range(steps):
            present_out[g, s] = count[g, s] > 0.0
            if not present_out[g, s]:
                continue
            found += 1
            if incremental[g, s]:
                values_out[g, s] += lost[g, s]
            else:
                values_out[g, s] = values_out[g, s] / count[g, s] + lost[g, s] / count[g, s]
    return found


@kernel(i64(i64_in, f64_2d_in, bool_2d_in, i64, f64_2d_out, bool_2d_out))
def fold_rows(groups, values, present, operation, values_out, present_out):
    """Reduce the rows of each group at each step by MIN, MAX, COUNT or GROUP (1); shapes as `sum_rows`.

    NaN is neither smallest nor largest unless all values are NaN.
    """
    values_out[:, :] = 0.0
    present_out[:, :] = False
    found = 0
    for i in range(len(groups)):
        g = groups[i]
        for s in range(values.shape[1]):
            if not present[i, s]:
                continue
            value = values[i, s]
            kept = values_out[g, s]
            first = not present_out[g, s]
            if first:
                present_out[g, s] = True
                found += 1
            if operation == COUNT:
                values_out[g, s] = kept + 1.0
            elif operation == GROUP:
                values_out[g, s] = 1.0
            elif (
                first or math.isnan(kept) or (operation == MIN and kept > value) or (operation == MAX and kept < value)
            ):
                values_out[g, s] = value
    return found


@kernel(i64(i64_in, f64_2d_in, bool_2d_in, f64_2d_out, bool_2d_out))
def variance_rows(groups, values, present, values_out, present_out):
    """Compute the population variance of each group's rows at each step (Welford); shapes as `sum_rows`.

    A group whose first value is infinite or NaN has the variance NaN.
    """
    k, steps = values_out.shape
    mean = np.zeros((k, steps), np.float64)
    count = np.zeros((k, steps), np.float64)
    values_out[:, :] = 0.0
    for i in range(len(groups)):
        g = groups[i]
        for s in range(steps):
            if not present[i, s]:
                continue
            value = values[i, s]
            count[g, s] += 1.0
            if count[g, s] == 1.0:
                mean[g, s] = value
                if math.isnan(value) or math.isinf(value):
                    values_out[g, s] = math.nan
                continue
            delta = value - mean[g, s]
            mean[g, s] += delta / count[g, s]
            values_out[g, s] += delta * (value - mean[g, s])
    found = 0
    for g in range(k):
        for s in range(steps):
            present_out[g, s] = count[g, s] > 0.0
            if present_out[g, s]:
                found += 1
                values_out[g, s] /= count[g, s]
    return found


@kernel(i64(i64_in, i64_in, f64_2d_in, bool_2d_in, f64_in, f64_2d_out, bool_2d_out))
def quantile_rows(members, bounds, values, present, quantiles, values_out, present_out):
    """Compute a quantile of each group's rows at each step.

    Parameters
    ----------
    members : int64[n]
        Rows, those of group 0 first.
    bounds : int64[k + 1]
        Group g has the rows `members[bounds[g]:bounds[g + 1]]`.
    quantiles : float64[steps]

    Other parameters and the result as in `sum_rows`.
    """
    scratch = np.empty(len(members), np.float64)
    found = 0
    for g in range(len(bounds) - 1):
        for s in range(values.shape[1]):
            size = 0
            for j in range(bounds[g], bounds[g + 1]):
                if present[members[j], s]:
                    scratch[size] = values[members[j], s]
                    size += 1
            present_out[g, s] = size > 0
            values_out[g, s] = 0.0
            if size > 0:
                found += 1
                order_values(scratch, size)
                values_out[g, s] = quantile_of(scratch, 0, size, quantiles[s])
    return found
