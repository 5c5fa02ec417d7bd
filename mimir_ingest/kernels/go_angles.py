"""Trigonometric functions and their inverses to the last bit as Go's (see `go_math`)."""

from __future__ import annotations

import math

import numpy as np

from mimir_ingest.kernels._jit import inline
from mimir_ingest.kernels.go_exponents import MANTISSA, bits_of, from_bits, horner

PI = math.pi
_SIN = (
    *(1.58962301576546568060e-10, -2.50507477628578072866e-8, 2.75573136213857245213e-6, -1.98412698295895385996e-4),
    *(8.33333333332211858878e-3, -1.66666666666666307295e-1),
)
_COS = (
    *(-1.13585365213876817300e-11, 2.08757008419747316778e-9, -2.75573141792967388112e-7, 2.48015872888517045348e-5),
    *(-1.38888888888730564116e-3, 4.16666666666665929218e-2),
)
_TAN_P = (-1.30936939181383777646e4, 1.15351664838587416140e6, -1.79565251976484877988e7)
_TAN_Q = (1.0, 1.36812963470692954678e4, -1.32089234440210967447e6, 2.50083801823357915839e7, -5.38695755929454629881e7)
_ATAN_P = (
    *(-8.750608600031904122785e-01, -1.615753718733365076637e01, -7.500855792314704667340e01),
    *(-1.228866684490136173410e02, -6.485021904942025371773e01),
)
_ATAN_Q = (
    *(1.0, 2.485846490142306297962e01, 1.650270098316988542046e02, 4.328810604912902668951e02),
    *(4.853903996359136964868e02, 1.945506571482613964425e02),
)
_QUARTER_PI = (7.85398125648498535156e-1, 3.77489470793079817668e-8, 2.69515142907905952645e-15)
"""Pi / 4 in three parts, the first two with room for a factor below 2 ** 30."""
_LARGE_ANGLE = float(1 << 29)
_MORE_BITS = 6.123233995736765886130e-17
"""What a float64 lacks of Pi / 2."""
_TAN_3_PI_8 = 2.41421356237309504880


def _four_over_pi(words: int) -> np.ndarray:
    """Return uint64[words], 4 / Pi in binary, with one bit before the point in the first word (Machin's formula)."""
    bits = 64 * words + 64
    pi = 0
    for sign, factor, x in ((1, 16, 5), (-1, 4, 239)):
        term, n, total = (1 << bits) // x, 1, 0
        while term:
            total += (term // n) * (1 if n % 4 == 1 else -1)
            term //= x * x
            n += 2
        pi += sign * factor * total
    value = (4 << (2 * bits)) // pi >> (bits - 64 * (words - 1))
    return np.array([value >> 64 * i & ((1 << 64) - 1) for i in reversed(range(words))], np.uint64)


_FOUR_OVER_PI = _four_over_pi(20)


@inline
def _multiply(a, b):
    """Return (high, low) of the product of two uint64."""
    mask, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    low_a, high_a, low_b, high_b = a & mask, a >> half, b & mask, b >> half
    first = low_a * low_b
    middle = high_a * low_b + (first >> half)
    second = low_a * high_b + (middle & mask)
    return high_a * high_b + (middle >> half) + (second >> half), a * b


@inline
def _digits(word, shift):
    """Return 64 bits of 4 / Pi from bit `shift` of a word on."""
    if shift == np.uint64(0):
        return _FOUR_OVER_PI[word]
    return (_FOUR_OVER_PI[word] << shift) | (_FOUR_OVER_PI[word + 1] >> (np.uint64(64) - shift))


@inline
def _reduce_large(x):
    """Return (octant, angle) of a large x: `x = octant Pi / 4 + angle`, the octant even (Payne, Hanek)."""
    bits = bits_of(x)
    place = np.int64(bits >> np.uint64(52)) - 1023 - 52 + 61
    mantissa = (bits & MANTISSA) | np.uint64(1 << 52)
    word, shift = place // 64, np.uint64(place % 64)
    third = _multiply(_digits(word + 2, shift), mantissa)[0]
    second, low = _multiply(_digits(word + 1, shift), mantissa)
    low += third
    carry = np.uint64(1) if low < third else np.uint64(0)
    high = _digits(word, shift) * mantissa + second + carry
    octant = np.int64(high >> np.uint64(61))
    high = (high << np.uint64(3)) | (low >> np.uint64(61))
    zeros = np.uint64(0)
    while zeros < np.uint64(63) and (high >> (np.uint64(63) - zeros)) & np.uint64(1) == np.uint64(0):
        zeros += np.uint64(1)
    exponent = np.uint64(1023) - (zeros + np.uint64(1))
    high = (high << (zeros + np.uint64(1))) | (low >> (np.uint64(63) - zeros))
    z = from_bits((high >> np.uint64(12)) | (exponent << np.uint64(52)))
    if octant & 1:
        octant = (octant + 1) & 7
        z -= 1.0
    return octant, z * (PI / 4)


@inline
def _reduce(x):
    """Return (octant, angle) of x >= 0, the octant even and below 8."""
    if x >= _LARGE_ANGLE:
        return _reduce_large(x)
    octant = np.int64(x * (4 / PI))
    octant += octant & 1
    y = np.float64(octant)
    return octant & 7, ((x - y * _QUARTER_PI[0]) - y * _QUARTER_PI[1]) - y * _QUARTER_PI[2]


@inline
def _small_sin(z):
    square = z * z
    return z + z * square * horner(_SIN, square)


@inline
def _small_cos(z):
    square = z * z
    return 1.0 - 0.5 * square + square * square * horner(_COS, square)


@inline
def sin(x):
    """Return the sine (Cephes)."""
    if x == 0.0 or math.isnan(x):
        return x
    if math.isinf(x):
        return math.nan
    octant, z = _reduce(abs(x))
    y = _small_cos(z) if octant & 3 else _small_sin(z)
    return -y if (octant > 3) != (x < 0.0) else y


@inline
def cos(x):
    """Return the cosine (Cephes)."""
    if math.isnan(x) or math.isinf(x):
        return math.nan
    octant, z = _reduce(abs(x))
    y = _small_sin(z) if octant & 3 else _small_cos(z)
    return -y if octant == 2 or octant == 4 else y


@inline
def tan(x):
    """Return the tangent (Cephes)."""
    if x == 0.0 or math.isnan(x):
        return x
    if math.isinf(x):
        return math.nan
    octant, z = _reduce(abs(x))
    square = z * z
    y = z
    if square > 1e-14:
        y = z + z * (square * horner(_TAN_P, square) / horner(_TAN_Q, square))
    if octant & 2:
        y = -1.0 / y
    return -y if x < 0.0 else y


@inline
def _small_atan(x):
    z = x * x
    return x * (z * horner(_ATAN_P, z) / horner(_ATAN_Q, z)) + x


@inline
def atan(x):
    """Return the arc tangent (Cephes)."""
    if x == 0.0:
        return x
    size = abs(x)
    if size <= 0.66:
        y = _small_atan(size)
    elif size > _TAN_3_PI_8:
        y = PI / 2 - _small_atan(1.0 / size) + _MORE_BITS
    else:
        y = PI / 4 + _small_atan((size - 1.0) / (size + 1.0)) + 0.5 * _MORE_BITS
    return y if x > 0.0 else -y


@inline
def asin(x):
    """Return the arc sine (Cephes)."""
    if x == 0.0:
        return x
    size = abs(x)
    if size > 1.0:
        return math.nan
    other = math.sqrt(1.0 - size * size)
    y = PI / 2 - atan(other / size) if size > 0.7 else atan(size / other)
    return -y if x < 0.0 else y


@inline
def atan2(y, x):
    """Return the angle of the point (x, y)."""
    if math.isnan(y) or math.isnan(x):
        return math.nan
    ahead = math.copysign(1.0, x) > 0.0
    if y == 0.0:
        return math.copysign(0.0 if ahead else PI, y)
    if x == 0.0:
        return math.copysign(PI / 2, y)
    if math.isinf(x):
        if math.isinf(y):
            return math.copysign(PI / 4 if ahead else 3 * PI / 4, y)
        return math.copysign(0.0 if ahead else PI, y)
    if math.isinf(y):
        return math.copysign(PI / 2, y)
    q = atan(y / x)
    if ahead:
        return q
    return q + PI if q <= 0.0 else q - PI
