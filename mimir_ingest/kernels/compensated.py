"""Compensated summation, in the order and with the rules of Prometheus.

Source: Prometheus 3.14 `util/kahansum`: Kahan summation with Neumaier's improvement; the compensation is dropped once
the sum is infinite. Twin: `tests/reference/compensated.py`.
"""

from __future__ import annotations

import math

from mimir_ingest.kernels._jit import inline


@inline
def add(term, total, lost):
    """Return (total, lost) after adding `term`; the sum is `total + lost`."""
    new = total + term
    if math.isinf(new):
        lost = 0.0
    elif abs(total) >= abs(term):
        lost += (total - new) + term
    else:
        lost += (term - new) + total
    return new, lost


@inline
def mean_of(values, lo, hi):
    """Return the mean of `values[lo:hi]`: of the sum, or incremental from the value on that makes it overflow."""
    total = values[lo]
    lost = 0.0
    mean = 0.0
    count = 1.0
    incremental = False
    for i in range(lo + 1, hi):
        count += 1.0
        if not incremental:
            new_total, new_lost = add(values[i], total, lost)
            if not math.isinf(new_total):
                total, lost = new_total, new_lost
                continue
            incremental = True
            mean = total / (count - 1.0)
            lost /= count - 1.0
        weight = (count - 1.0) / count
        mean, lost = add(values[i] / count, weight * mean, weight * lost)
    if incremental:
        return mean + lost
    return total / count + lost / count
