"""Elementary functions to the last bit as Go's package `math` gives them on amd64, which PromQL's results show.

The methods and constants are the published ones that Go uses: Cephes (S. L. Moshier) for trigonometric functions and
`tanh`; FreeBSD msun (Sun Microsystems, 1993) for logarithms and inverse hyperbolic functions; Hart & Cheney 2029 for
`sinh`; N. Shibata's method (SLEEF) for `exp`, with fused multiplication and addition; Payne and Hanek's reduction of
large angles. Oracle: a real Prometheus (`tests/integration/test_go_math.py`).
"""

from __future__ import annotations

import math

from mimir_ingest.kernels._jit import f64_in, f64_out, i64, inline, kernel
from mimir_ingest.kernels.go_angles import PI, asin, atan, atan2, cos, sin, tan
from mimir_ingest.kernels.go_exponents import LN2, exp, horner, log, log1p, log2, power_of

(ACOS, ACOSH, ASIN, ASINH, ATAN, ATANH, COS, COSH, EXP, LOG, LOG10, LOG2, SIN, SINH, TAN, TANH) = range(16)
"""Operations of `apply_function`."""
POW, ATAN2 = 0, 1
"""Operations of `apply_pairs`."""

_SINH_P = (
    *(-0.2630563213397497062819489e2, -0.2894211355989563807284660366e4, -0.8991272022039509355398013511e5),
    -0.6307673640497716991184787251e6,
)
_SINH_Q = (1.0, -0.173678953558233699533450911e3, 0.1521517378790019070696485176e5, -0.6307673640497716991212077277e6)
_TANH_P = (-9.64399179425052238628e-1, -9.92877231001918586564e1, -1.61468768441708447952e3)
_TANH_Q = (1.0, 1.12811678491632931402e2, 2.23548839060100448583e3, 4.84406305325125486048e3)


@inline
def _sinh(x):
    if x == 0.0:
        return x
    size = abs(x)
    if size > 21.0:
        y = exp(size) * 0.5
    elif size > 0.5:
        e = exp(size)
        y = (e - 1.0 / e) * 0.5
    else:
        square = size * size
        y = horner(_SINH_P, square) * size / horner(_SINH_Q, square)
    return -y if x < 0.0 else y


@inline
def _cosh(x):
    e = exp(abs(x))
    return e * 0.5 if abs(x) > 21.0 else (e + 1.0 / e) * 0.5


@inline
def _tanh(x):
    size = abs(x)
    if size > 0.5 * 8.8029691931113054295988e01:
        return math.copysign(1.0, x)
    if size >= 0.625:
        return math.copysign(1.0 - 2.0 / (exp(2.0 * size) + 1.0), x)
    if x == 0.0:
        return x
    s = x * x
    return x + x * s * horner(_TANH_P, s) / horner(_TANH_Q, s)


@inline
def _asinh(x):
    if x == 0.0 or math.isnan(x) or math.isinf(x):
        return x
    size = abs(x)
    if size > 2.0**28:
        y = log(size) + LN2
    elif size > 2.0:
        y = log(2.0 * size + 1.0 / (math.sqrt(size * size + 1.0) + size))
    elif size < 2.0**-28:
        y = size
    else:
        y = log1p(size + size * size / (1.0 + math.sqrt(1.0 + size * size)))
    return -y if x < 0.0 else y


@inline
def _acosh(x):
    if x < 1.0 or math.isnan(x):
        return math.nan
    if x == 1.0:
        return 0.0
    if x >= 2.0**28:
        return log(x) + LN2
    if x > 2.0:
        return log(2.0 * x - 1.0 / (x + math.sqrt(x * x - 1.0)))
    t = x - 1.0
    return log1p(t + math.sqrt(2.0 * t + t * t))


@inline
def _atanh(x):
    size = abs(x)
    if size > 1.0 or math.isnan(x):
        return math.nan
    if size == 1.0:
        return math.copysign(math.inf, x)
    if size < 2.0**-28:
        return x
    y = size + size
    y = 0.5 * log1p(y + y * size / (1.0 - size)) if size < 0.5 else 0.5 * log1p(y / (1.0 - size))
    return -y if x < 0.0 else y


@kernel(i64(i64, f64_in, f64_out))
def apply_function(operation, values, out):
    """Write a function of each of float64[n]; returns n."""
    for i in range(len(values)):
        x = values[i]
        if operation == ACOS:
            y = PI / 2 - asin(x)
        elif operation == ACOSH:
            y = _acosh(x)
        elif operation == ASIN:
            y = asin(x)
        elif operation == ASINH:
            y = _asinh(x)
        elif operation == ATAN:
            y = atan(x)
        elif operation == ATANH:
            y = _atanh(x)
        elif operation == COS:
            y = cos(x)
        elif operation == COSH:
            y = _cosh(x)
        elif operation == EXP:
            y = exp(x)
        elif operation == LOG:
            y = log(x)
        elif operation == LOG10:
            y = log(x) * 0.43429448190325182765
        elif operation == LOG2:
            y = log2(x)
        elif operation == SIN:
            y = sin(x)
        elif operation == SINH:
            y = _sinh(x)
        elif operation == TAN:
            y = tan(x)
        else:
            y = _tanh(x)
        out[i] = y
    return len(values)


@kernel(i64(i64, f64_in, f64_in, f64_out))
def apply_pairs(operation, left, right, out):
    """Write `left[i] ** right[i]` (POW) or the angle of (right[i], left[i]) (ATAN2) of float64[n]; returns n."""
    for i in range(len(left)):
        out[i] = power_of(left[i], right[i]) if operation == POW else atan2(left[i], right[i])
    return len(left)
