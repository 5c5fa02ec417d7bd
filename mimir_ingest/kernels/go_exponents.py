"""Exponential, logarithms and powers to the last bit as Go's (see `go_math`)."""

from __future__ import annotations

import math

import numpy as np
from numba import types
from numba.extending import intrinsic

from mimir_ingest.kernels._jit import inline

LN2 = math.log(2)
_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
_LOG_ODD = (1.479819860511658591e-01, 1.818357216161805012e-01, 2.857142874366239149e-01, 6.666666666666735130e-01)
_LOG_EVEN = (1.531383769920937332e-01, 2.222219843214978396e-01, 3.999999999940941908e-01)
_LOG1P = (
    *(1.479819860511658591e-01, 1.531383769920937332e-01, 1.818357216161805012e-01, 2.222219843214978396e-01),
    *(2.857142874366239149e-01, 3.999999999940941908e-01, 6.666666666666735130e-01),
)
_EXP_LN2_HIGH, _EXP_LN2_LOW = (
    0.69314718055966295651160180568695068359375,
    0.28235290563031577122588448175013436025525e-12,
)
_EXP_OVERFLOW = 7.09782712893384e02
_EXP = (
    *(2.4801587301587301587e-5, 1.9841269841269841270e-4, 1.3888888888888888889e-3, 8.3333333333333333333e-3),
    *(4.1666666666666666667e-2, 1.6666666666666666667e-1, 0.5, 1.0),
)
MANTISSA = np.uint64((1 << 52) - 1)


@intrinsic
def _fma(_context, a, b, c):
    """`a * b + c`, rounded once."""

    def generate(_context, builder, _signature, arguments):
        return builder.fma(*arguments)

    return types.float64(types.float64, types.float64, types.float64), generate


@inline
def bits_of(x):
    """Return the bits of a float64."""
    return np.float64(x).view(np.uint64)


@inline
def from_bits(bits):
    """Return the float64 of some bits."""
    return np.uint64(bits).view(np.float64)


@inline
def horner(coefficients, x):
    """Return a polynomial of x, the coefficient of the highest power first."""
    total = coefficients[0]
    for i in range(1, len(coefficients)):
        total = total * x + coefficients[i]
    return total


@inline
def exp(x):
    """Return e to the power of x (Shibata, with fused multiplication and addition)."""
    if math.isnan(x) or x == math.inf:
        return x
    if x > _EXP_OVERFLOW:
        return math.inf
    scaled = x * 1.4426950408889634
    if scaled < -1100.0:
        return 0.0
    power = np.rint(scaled)
    r = _fma(-power, _EXP_LN2_HIGH, x)
    r = _fma(-power, _EXP_LN2_LOW, r) * 0.0625
    series = _EXP[0]
    for i in range(1, 8):
        series = _fma(series, r, _EXP[i])
    # exp(16 r) - 1 from exp(r) - 1: four times y (y + 2).
    y = r * series
    for _ in range(3):
        y = y * (y + 2.0)
    y = _fma(y + 2.0, y, 1.0)
    if power >= 1024.0:
        return math.inf
    return math.ldexp(y, np.int32(power))


@inline
def log(x):
    """Return the natural logarithm (msun) as the amd64 routine does.

    It takes the exponent as it stands, also that of a subnormal number.
    """
    if x == 0.0:
        return -math.inf
    if x < 0.0:
        return math.nan
    if math.isnan(x) or x == math.inf:
        return x
    bits = bits_of(x)
    fraction = from_bits((bits & MANTISSA) | np.uint64(0x3FE << 52))
    k = np.float64(np.int64(bits >> np.uint64(52)) - 0x3FE)
    if fraction <= 0.7071067811865476:
        k -= 1.0
        fraction *= 2.0
    f = fraction - 1.0
    s = f / (2.0 + f)
    s2 = s * s
    s4 = s2 * s2
    rest = s2 * horner(_LOG_ODD, s4) + s4 * horner(_LOG_EVEN, s4)
    half = 0.5 * f * f
    return k * _LN2_HIGH - ((half - (s * (rest + half) + k * _LN2_LOW)) - f)


@inline
def log2(x):
    """Return the logarithm to base 2."""
    if x == 0.0 or math.isnan(x) or math.isinf(x):
        return log(x)
    fraction, exponent = math.frexp(x)
    if fraction == 0.5:
        return np.float64(exponent - 1)
    return log(fraction) * (1.0 / LN2) + np.float64(exponent)


@inline
def log1p(x):
    """Return the logarithm of 1 + x (msun)."""
    if x < -1.0 or math.isnan(x):
        return math.nan
    if x == -1.0:
        return -math.inf
    if x == math.inf:
        return x
    size = abs(x)
    if size < 2.0**-29:
        return x if size < 2.0**-54 else x - x * x * 0.5
    k, lost, near_one = np.int64(0), 0.0, False
    f = x
    if not (size < 4.142135623730950488017e-01 and x > -2.928932188134524755992e-01):
        u = 1.0 + x if size < 2.0**53 else x
        k = np.int64(bits_of(u) >> np.uint64(52)) - 1023
        if size < 2.0**53:
            lost = (1.0 - (u - x) if k > 0 else x - (u - 1.0)) / u
        mantissa = bits_of(u) & MANTISSA
        if mantissa < np.uint64(0x0006A09E667F3BCD):
            u = from_bits(mantissa | np.uint64(0x3FF << 52))
        else:
            k += 1
            u = from_bits(mantissa | np.uint64(0x3FE << 52))
            mantissa = (np.uint64(1 << 52) - mantissa) >> np.uint64(2)
        f = u - 1.0
        near_one = mantissa == np.uint64(0)
    power = np.float64(k)
    half = 0.5 * f * f
    if near_one:
        if f == 0.0:
            return 0.0 if k == 0 else power * _LN2_HIGH + (lost + power * _LN2_LOW)
        rest = half * (1.0 - 0.66666666666666666 * f)
        return f - rest if k == 0 else power * _LN2_HIGH - ((rest - (power * _LN2_LOW + lost)) - f)
    s = f / (2.0 + f)
    z = s * s
    rest = z * horner(_LOG1P, z)
    if k == 0:
        return f - (half - s * (half + rest))
    return power * _LN2_HIGH - ((half - (s * (half + rest) + (power * _LN2_LOW + lost))) - f)


@inline
def _power_of_extremes(x, y):
    """Return a power of or with zero or an infinity."""
    odd = abs(y) < 2.0**53 and y == np.floor(y) and np.int64(y) & 1 == 1
    if x == 0.0:
        size = math.inf if y < 0.0 else 0.0
        return math.copysign(size, x) if odd else size
    if math.isinf(y):
        return 1.0 if x == -1.0 else (0.0 if (abs(x) < 1.0) == (y > 0.0) else math.inf)
    size = math.inf if y > 0.0 else 0.0
    return -size if odd and x < 0.0 else size


@inline
def power_of(x, y):
    """Return x to the power of y: by squaring, and by exp for the fraction of y."""
    if y == 0.0 or x == 1.0:
        return 1.0
    if y == 1.0:
        return x
    if math.isnan(x) or math.isnan(y):
        return math.nan
    if x == 0.0 or math.isinf(x) or math.isinf(y):
        return _power_of_extremes(x, y)
    if y == 0.5:
        return math.sqrt(x)
    if y == -0.5:
        return 1.0 / math.sqrt(x)
    whole = np.floor(abs(y))
    part = abs(y) - whole
    if part != 0.0 and x < 0.0:
        return math.nan
    if whole >= 2.0**63:
        return 1.0 if x == -1.0 else (0.0 if (abs(x) < 1.0) == (y > 0.0) else math.inf)
    result, exponent = 1.0, np.int64(0)
    if part != 0.0:
        if part > 0.5:
            part -= 1.0
            whole += 1.0
        result = exp(part * log(x))
    base, power = math.frexp(x)
    power = np.int64(power)
    rest = np.int64(whole)
    while rest != 0:
        if power < -4096 or power > 4096:
            exponent += power
            break
        if rest & 1:
            result *= base
            exponent += power
        base *= base
        power <<= 1
        if base < 0.5:
            base += base
            power -= 1
        rest >>= 1
    if y < 0.0:
        result = 1.0 / result
        exponent = -exponent
    return math.ldexp(result, np.int32(min(max(exponent, -5000), 5000)))
