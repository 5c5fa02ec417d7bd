"""Streams of bits, filled from the most significant bit of each byte: what chunks are made of.

A writer keeps up to 64 bits in a register and is passed around as (position in the output, register, bits used).

A reader looks through a window: eight bytes from the byte that holds the next bit, shifted to the top, have at least 57
valid bits; that covers every field but those of 64 bits.

`varbit` numbers are Prometheus's (tsdb/chunkenc/varbit.go): a prefix of one to eight bits says how many bits follow.
Twin: tests/reference/histogram_chunk.py.
"""

from __future__ import annotations

import numpy as np
from numba.cpython.unsafe.numbers import leading_zeros, trailing_zeros

from mimir_ingest.kernels._jit import inline, inline_checked

# Constants of bit arithmetic: uint64 with anything else is typed as int64.
_U0, _U1, _U2, _U3, _U4, _U5, _U6, _U7, _U8, _U9, _U11, _U12 = (
    np.uint64(n) for n in (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12)
)
_U16, _U18, _U24, _U25, _U31, _U32, _U40, _U48 = (np.uint64(n) for n in (16, 18, 24, 25, 31, 32, 40, 48))
_U56, _U57, _U63, _U64 = (np.uint64(n) for n in (56, 57, 63, 64))
_ALL = ~np.uint64(0)


@inline
def _store_be64(out, at, word):
    out[at] = word >> _U56
    out[at + 1] = word >> _U48
    out[at + 2] = word >> _U40
    out[at + 3] = word >> _U32
    out[at + 4] = word >> _U24
    out[at + 5] = word >> _U16
    out[at + 6] = word >> _U8
    out[at + 7] = word


@inline
def put_bits(out, at, register, used, value, count):
    """Append `count` (1 to 64) bits; `value` has no others. Return the new (at, register, used)."""
    free = _U64 - used
    if count < free:
        return at, (register << count) | value, used + count
    rest = count - free
    word = value >> rest
    if used > _U0:
        word |= register << free
    _store_be64(out, at, word)
    return at + 8, value & ((_U1 << rest) - _U1), rest


@inline
def bit_window(data, bit):
    """The bits from `bit` on, at the top of a word: at least 57 of them, zeros outside `data`.

    Checks its bounds itself, once; a check at each byte made decoding a quarter slower.
    """
    byte = bit >> 3
    if byte >= 0 and byte + 8 <= len(data):
        at = np.uint64(byte)  # an unsigned index spares the test for negative ones
        word = (
            (np.uint64(data[at]) << _U56)
            | (np.uint64(data[at + _U1]) << _U48)
            | (np.uint64(data[at + _U2]) << _U40)
            | (np.uint64(data[at + _U3]) << _U32)
            | (np.uint64(data[at + _U4]) << _U24)
            | (np.uint64(data[at + _U5]) << _U16)
            | (np.uint64(data[at + _U6]) << _U8)
            | np.uint64(data[at + _U7])
        )
    else:
        word = _U0
        for i in range(8):
            word <<= _U8
            if byte >= 0 and byte + i < len(data):
                word |= np.uint64(data[byte + i])
    return word << np.uint64(bit & 7)


@inline_checked
def take64(data, bit):
    """Return the 64 bits from `bit` on; zeros outside `data`."""
    return (bit_window(data, bit) & ~_U0 << _U32) | (bit_window(data, bit + 32) >> _U32)


@inline
def end_bits(out, at, register, used):
    """Write what is left in the register, padded with zeros; return the position behind it."""
    while used > _U0:
        if used >= _U8:
            used -= _U8
            out[at] = (register >> used) & np.uint64(0xFF)
        else:
            out[at] = (register << (_U8 - used)) & np.uint64(0xFF)
            used = _U0
        at += 1
    return at


@inline
def _put_varbit(out, at, register, used, bits, need):
    """Append the low bits of a number that takes `need` of them."""
    if need <= 3:
        return put_bits(out, at, register, used, np.uint64(0b10 << 3) | (bits & np.uint64(0x7)), _U5)
    if need <= 6:
        return put_bits(out, at, register, used, np.uint64(0b110 << 6) | (bits & np.uint64(0x3F)), _U9)
    if need <= 9:
        return put_bits(out, at, register, used, np.uint64(0b1110 << 9) | (bits & np.uint64(0x1FF)), np.uint64(13))
    if need <= 12:
        return put_bits(out, at, register, used, np.uint64(0b11110 << 12) | (bits & np.uint64(0xFFF)), np.uint64(17))
    if need <= 18:
        return put_bits(out, at, register, used, np.uint64(0b111110 << 18) | (bits & np.uint64(0x3FFFF)), _U24)
    if need <= 25:
        return put_bits(out, at, register, used, np.uint64(0b1111110 << 25) | (bits & np.uint64(0x1FFFFFF)), _U32)
    if need <= 56:
        return put_bits(out, at, register, used, (np.uint64(0xFE) << _U56) | (bits & (_ALL >> _U8)), _U64)
    at, register, used = put_bits(out, at, register, used, np.uint64(0xFF), _U8)
    return put_bits(out, at, register, used, bits, _U64)


@inline
def put_varbit_uint(out, at, register, used, value):
    """Append a uint64; at most 72 bits."""
    if value == _U0:
        return put_bits(out, at, register, used, _U0, _U1)
    return _put_varbit(out, at, register, used, value, 64 - np.int64(leading_zeros(value)))


@inline
def put_varbit_int(out, at, register, used, value):
    """Append an int64; at most 72 bits."""
    if value == 0:
        return put_bits(out, at, register, used, _U0, _U1)
    # n bits take -(2^(n-1) - 1) to 2^(n-1).
    distance = np.uint64(value - 1) if value > 0 else _U0 - np.uint64(value)
    return _put_varbit(out, at, register, used, np.uint64(value), 65 - np.int64(leading_zeros(distance)))


@inline
def put_xor(out, at, register, used, x, leading, trailing):
    """Append the difference `x` of two values' bits, as XOR chunks do; `leading` 0xff: there is no window yet.

    At most 77 bits. Returns (at, register, used, leading, trailing).
    """
    if x == _U0:
        at, register, used = put_bits(out, at, register, used, _U0, _U1)
        return at, register, used, leading, trailing
    new_leading = min(np.uint64(leading_zeros(x)), _U31)
    new_trailing = np.uint64(trailing_zeros(x))
    if leading != np.uint64(0xFF) and new_leading >= leading and new_trailing >= trailing:
        at, register, used = put_bits(out, at, register, used, _U2, _U2)
    else:
        leading, trailing = new_leading, new_trailing
        fields = (_U3 << _U11) | (leading << _U6) | ((_U64 - leading - trailing) & _U63)
        at, register, used = put_bits(out, at, register, used, fields, np.uint64(13))
    at, register, used = put_bits(out, at, register, used, x >> trailing, _U64 - leading - trailing)
    return at, register, used, leading, trailing


@inline_checked
def _take_varbit(data, bit):
    """Return (bits, how many there are, next bit)."""
    window = bit_window(data, bit)
    ones = min(np.int64(leading_zeros(~window | _U1)), 8)
    if ones == 0:
        return _U0, _U0, bit + 1
    if ones == 8:
        return take64(data, bit + 8), _U64, bit + 72
    if ones == 7:
        return bit_window(data, bit + 8) >> _U8, _U56, bit + 64
    size = np.uint64(3 * ones)
    if ones == 5:
        size = _U18
    elif ones == 6:
        size = _U25
    return (window << np.uint64(ones + 1)) >> (_U64 - size), size, bit + ones + 1 + np.int64(size)


@inline_checked
def take_varbit_uint(data, bit):
    """Return (uint64, next bit); the caller tests the position against its end."""
    bits, _, bit = _take_varbit(data, bit)
    return bits, bit


@inline_checked
def take_varbit_int(data, bit):
    """Return (int64, next bit); the caller tests the position against its end."""
    bits, size, bit = _take_varbit(data, bit)
    if _U0 < size < _U64 and bits > _U1 << (size - _U1):
        bits -= _U1 << size
    return np.int64(bits), bit


@inline_checked
def take_xor(data, bit, leading, trailing):
    """Return (difference, next bit, leading, trailing) of what `put_xor` wrote."""
    window = bit_window(data, bit)
    if window >> _U63 == _U0:
        return _U0, bit + 1, leading, trailing
    if (window >> np.uint64(62)) & _U1 == _U0:
        bit += 2
        size = _U64 - leading - trailing
    else:
        leading = (window >> _U57) & _U31
        size = (window >> np.uint64(51)) & _U63
        if size == _U0:
            size = _U64
        # Wraps around when leading + size > 64; Prometheus then shifts all bits out, too.
        trailing = _U64 - leading - size
        bit += 13
    if size == _U0 or size > _U64:
        return _U0, bit + 64, leading, trailing
    x = take64(data, bit) >> (_U64 - size)
    return (x << trailing) if trailing < _U64 else _U0, bit + np.int64(size), leading, trailing
