"""Bounds of native-histogram buckets, and Go's logarithm and power of two, which interpolation between them uses.

Source: Prometheus 3.14 `model/histogram/generic.go` `getBound`; the standard library's `math.Log2`, `math.Exp2` of Go
on amd64, with the polynomials of FreeBSD's `e_log.c` and `e_exp.c`. Twin: `tests/reference/native_bounds.py`.
"""

from __future__ import annotations

import math
from decimal import Decimal, localcontext

import numpy as np

from mimir_ingest.kernels._jit import inline
from mimir_ingest.kernels.native_columns import CUSTOM

_LARGEST = 1.7976931348623157e308

_BELOW = (
    "222222322232222222342233333333332232223223332233223321332233223322222233334432432232223222232222"
    "222321223244223323332232324433333232334433433233333333434344434422332232334432443344323343443343"
    "3354334344544454444444555566546533433444435533444354334444654455"
)


def _power_table() -> np.ndarray:
    """Return float64[256], the bounds in [0.5, 1) at schema 8, with the rounding errors that Prometheus's table has.

    Coarser schemas use every 2nd, 4th, … entry. `_BELOW` says by how many ulps, plus 2, an entry is too low.
    """
    with localcontext() as context:
        context.prec = 40
        exact = [float(Decimal(2) ** (Decimal(i) / 256 - 1)) for i in range(256)]
    return np.array([value - (int(ulps) - 2) * 2.0**-53 for value, ulps in zip(exact, _BELOW, strict=True)])


_POWERS = _power_table()


@inline
def exponential_bound(index, schema):
    """Return the upper bound of the bucket `index` of an exponential schema."""
    if schema < 0:
        exponent = index << -schema
        if exponent == 1024:
            return _LARGEST
        return math.ldexp(1.0, np.int32(min(max(exponent, -3000), 3000)))
    fraction = _POWERS[(index & ((1 << schema) - 1)) << (8 - schema)]
    exponent = (index >> schema) + 1
    if fraction == 0.5 and exponent == 1025:
        return _LARGEST
    return math.ldexp(fraction, np.int32(min(max(exponent, -3000), 3000)))


@inline
def bucket_bound(index, schema, custom, start, bounds):
    """Return the upper bound of a positive bucket; custom bounds are `custom[start:start + bounds]`."""
    if schema != CUSTOM:
        return exponential_bound(index, schema)
    if index >= bounds:
        return math.inf
    if index < 0:
        return -math.inf
    return custom[start + index]


@inline
def log_of(x):
    """Return the natural logarithm of a finite number above 0, no subnormal, as Go computes it on amd64."""
    fraction, exponent = math.frexp(x)
    k = float(exponent)
    if fraction < 0.7071067811865476:
        fraction *= 2.0
        k -= 1.0
    f = fraction - 1.0
    s = f / (2.0 + f)
    s2 = s * s
    s4 = s2 * s2
    t1 = s2 * (
        6.666666666666735130e-01
        + s4 * (2.857142874366239149e-01 + s4 * (1.818357216161805012e-01 + s4 * 1.479819860511658591e-01))
    )
    t2 = s4 * (3.999999999940941908e-01 + s4 * (2.222219843214978396e-01 + s4 * 1.531383769920937332e-01))
    half = 0.5 * f * f
    low = s * (half + (t1 + t2)) + k * 1.90821492927058770002e-10
    return k * 6.93147180369123816490e-01 - ((half - low) - f)


@inline
def log2_of(x):
    """Return the binary logarithm of a number that is not negative, as Go's `math.Log2`."""
    if x == 0.0:
        return -math.inf
    if math.isnan(x) or math.isinf(x):
        return x
    fraction, exponent = math.frexp(x)
    if fraction == 0.5:
        return float(exponent - 1)
    return log_of(fraction) * 1.4426950408889634 + float(exponent)


@inline
def exp2_of(x):
    """Return 2**x as Go's `math.Exp2`."""
    if math.isnan(x):
        return x
    if x > 1.0239999999999999e03:
        return math.inf
    if x < -1.0740e03:
        return 0.0
    k = 0
    if x > 0.0:
        k = int(x + 0.5)
    elif x < 0.0:
        k = int(x - 0.5)
    t = x - float(k)
    high = t * 6.93147180369123816490e-01
    low = -t * 1.90821492927058770002e-10
    r = high - low
    rr = r * r
    c = r - rr * (
        1.66666666666666657415e-01
        + rr
        * (
            -2.77777777770155933842e-03
            + rr * (6.61375632143793436117e-05 + rr * (-1.65339022054652515390e-06 + rr * 4.13813679705723846039e-08))
        )
    )
    y = 1.0 - ((low - (r * c) / (2.0 - c)) - high)
    return math.ldexp(y, np.int32(k))


@inline
def fraction_below(value, lower, upper, linear):
    """Return which part of a bucket with finite bounds lies below a value inside it."""
    if linear:
        return (value - lower) / (upper - lower)
    log_lower = log2_of(abs(lower))
    log_upper = log2_of(abs(upper))
    log_value = log2_of(abs(value))
    if value > 0.0:
        return (log_value - log_lower) / (log_upper - log_lower)
    return 1.0 - (log_value - log_upper) / (log_lower - log_upper)
