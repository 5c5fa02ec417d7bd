"""Eight bytes at a time, at any alignment: the loads, stores and copies inside the byte-walking kernels.

`load64` and `store64` do not check their position and are for kernels that have just compared it with the array's
length; everything else here checks. Words are little-endian, as on every platform numba compiles for.
Twin: none of its own, covered by the kernels that use it.
"""

from __future__ import annotations

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from mimir_ingest.kernels._jit import inline, inline_checked


@intrinsic
def load64(typing_context, array, index):
    """Return the eight bytes at `array[index:]` as uint64. The caller has checked `0 <= index <= len(array) - 8`."""

    def generate(context, builder, signature, arguments):
        view = context.make_array(signature.args[0])(context, builder, arguments[0])
        at = builder.gep(view.data, [arguments[1]])
        return builder.load(builder.bitcast(at, ir.IntType(64).as_pointer()), align=1)

    return types.uint64(array, types.int64), generate


@intrinsic
def load8(typing_context, array, index):
    """Return the byte at `array[index]` as uint32, with no test for a negative index. The caller has checked."""

    def generate(context, builder, signature, arguments):
        view = context.make_array(signature.args[0])(context, builder, arguments[0])
        return builder.zext(builder.load(builder.gep(view.data, [arguments[1]])), ir.IntType(32))

    return types.uint32(array, types.int64), generate


@intrinsic
def store64(typing_context, array, index, word):
    """Write a uint64 to `array[index:index + 8]`. The caller has checked `0 <= index <= len(array) - 8`."""

    def generate(context, builder, signature, arguments):
        view = context.make_array(signature.args[0])(context, builder, arguments[0])
        at = builder.gep(view.data, [arguments[1]])
        builder.store(arguments[2], builder.bitcast(at, ir.IntType(64).as_pointer()), align=1)
        return context.get_dummy_value()

    return types.void(array, types.int64, types.uint64), generate


@intrinsic
def copy_blocks(typing_context, source, at, size, target, to):
    """Copy `source[at:at + size]` to `target[to:]` in blocks of 16 bytes, the last one in full.

    The caller has checked that both ranges, rounded up to the next 16 bytes, lie within their arrays. An intrinsic and
    not a jitted helper: a helper that takes arrays costs two reference counts a call, more than a short copy.
    """

    def generate(context, builder, signature, arguments):
        block = ir.VectorType(ir.IntType(8), 16).as_pointer()
        source_type, _, _, target_type, _ = signature.args
        first = builder.gep(context.make_array(source_type)(context, builder, arguments[0]).data, [arguments[1]])
        into = builder.gep(context.make_array(target_type)(context, builder, arguments[3]).data, [arguments[4]])
        size, zero = arguments[2], ir.Constant(ir.IntType(64), 0)
        before = builder.block
        loop, after = builder.append_basic_block("copy.block"), builder.append_basic_block("copy.after")
        builder.cbranch(builder.icmp_signed(">", size, zero), loop, after)
        builder.position_at_end(loop)
        done = builder.phi(ir.IntType(64))
        word = builder.load(builder.bitcast(builder.gep(first, [done]), block), align=1)
        builder.store(word, builder.bitcast(builder.gep(into, [done]), block), align=1)
        following = builder.add(done, ir.Constant(ir.IntType(64), 16))
        done.add_incoming(zero, before)
        done.add_incoming(following, loop)
        builder.cbranch(builder.icmp_signed("<", following, size), loop, after)
        builder.position_at_end(after)
        return context.get_dummy_value()

    return types.void(source, types.int64, types.int64, target, types.int64), generate


@intrinsic
def byteswap64(typing_context, word):
    """Return the bytes of a uint64 in reverse: big-endian order, so that words compare as their bytes do."""

    def generate(context, builder, signature, arguments):
        return builder.bswap(arguments[0])

    return types.uint64(types.uint64), generate


@intrinsic
def as_float64(typing_context, word):
    """Return the float64 whose bits are `word`."""

    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.DoubleType())

    return types.float64(types.uint64), generate


@intrinsic
def as_bits(typing_context, value):
    """Return the bits of a float64 as uint64."""

    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.IntType(64))

    return types.uint64(types.float64), generate


@numba.njit(inline="always")
def copy_over(source, at, size, target, to):
    """Copy `source[at:at + size]` to `target[to:]`; may spoil up to 15 bytes of `target` behind it.

    For output that is written front to back. `IndexError` when either range passes its array.
    """
    room = min(len(source) - at, len(target) - to)
    if at < 0 or to < 0 or size > room:
        raise IndexError
    if size + 15 <= room:
        copy_blocks(source, at, size, target, to)
    else:
        for i in range(size):
            target[to + i] = source[at + i]


@inline
def sort_key(data, at, size):
    """Return the first eight bytes of `data[at:at + size]`, zero-padded, as a number that orders as they do.

    A smaller key means a smaller string; equal keys decide nothing.
    """
    if at + 8 <= len(data):
        word = byteswap64(load64(data, at))
        if size < 8:
            word &= ~(np.uint64(0xFFFFFFFFFFFFFFFF) >> np.uint64(8 * size))
        return word
    word = np.uint64(0)
    for i in range(min(size, 8)):
        word |= np.uint64(data[at + i]) << np.uint64(56 - 8 * i)
    return word


@inline_checked
def compare_bytes(data, left, left_size, right, right_size):
    """Compare two ranges of `data` as byte strings: negative, zero or positive."""
    for i in range(min(left_size, right_size)):
        if data[left + i] != data[right + i]:
            return np.int64(data[left + i]) - np.int64(data[right + i])
    return left_size - right_size
