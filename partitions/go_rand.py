"""The generator behind Go's `rand.New(rand.NewSource(seed))`, bit for bit: shuffle sharding depends on its numbers.

An additive lagged Fibonacci generator over 64 bits: s[n] = s[n-607] + s[n-273]. A seed fills the first 607 words with
the Lehmer generator x -> 48271 x mod 2^31-1, mixed with 607 fixed words. Those are what the same generator holds after
7.8e12 steps from seed 1, so they are computed here and not listed: stepping is multiplication by x modulo
x^607 - x^334 - 1 (over the integers modulo 2^64), and x to the power 7.8e12 takes 43 squarings, some 20 ms once.

Source: the generator's definition in the documentation of Go's math/rand (rng.go, gen_cooked.go), stable since Go 1.0.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import numpy as np

_LENGTH = 607
_TAP = 273
_LAG = _LENGTH - _TAP
_LEHMER_FACTOR = 48271
_LEHMER_MODULUS = (1 << 31) - 1
_SKIPPED = 20
_COOKING_STEPS = 7_800_000_000_000
_ZERO_SEED = 89482311  # why: zero is a fixed point of the Lehmer generator


@cache
def _lehmer_powers() -> np.ndarray:
    """uint64[607, 3]: what the seed is multiplied with for each part of each word."""
    powers, power = [], 1
    for _ in range(_SKIPPED + 3 * _LENGTH):
        power = power * _LEHMER_FACTOR % _LEHMER_MODULUS
        powers.append(power)
    return np.array(powers[_SKIPPED:], np.uint64).reshape(_LENGTH, 3)


def _seed_words(seed: int, high_shift: int, middle_shift: int) -> np.ndarray:
    """uint64[607]: a word of three Lehmer numbers each."""
    x = np.uint64(seed % _LEHMER_MODULUS or _ZERO_SEED) * _lehmer_powers() % np.uint64(_LEHMER_MODULUS)
    return (x[:, 0] << np.uint64(high_shift)) ^ (x[:, 1] << np.uint64(middle_shift)) ^ x[:, 2]


def _reduced(polynomial: np.ndarray) -> np.ndarray:
    """Coefficients modulo x^607 - x^334 - 1, lowest first."""
    while len(polynomial) > _LENGTH:
        high = polynomial[_LENGTH:]
        lower = np.zeros(max(_LENGTH, _LAG + len(high)), np.uint64)
        lower[:_LENGTH] = polynomial[:_LENGTH]
        lower[: len(high)] += high
        lower[_LAG : _LAG + len(high)] += high
        polynomial = lower
    return polynomial


def _in_time(words: np.ndarray, steps: int) -> np.ndarray:
    """Between the words in their places and in the order of their age (an exchange, so also back)."""
    return words[(_LAG - 1 - steps - np.arange(_LENGTH)) % _LENGTH]


def _stepped(words: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The words 273 steps later, oldest first, and the 273 that the steps made."""
    added = words[:_TAP] + words[_LAG:]
    return np.concatenate((words[_TAP:], added)), added


@cache
def _cooked() -> np.ndarray:
    """uint64[607]: the generator's words after 7.8e12 steps from seed 1."""
    power = np.array([1], np.uint64)
    for bit in f"{_COOKING_STEPS:b}":
        power = _reduced(np.convolve(power, power))
        if bit == "1":
            power = _reduced(np.append(np.uint64(0), power))
    words = _in_time(_seed_words(1, 20, 10), 0)
    sequence = words
    while len(sequence) < 2 * _LENGTH:
        words, added = _stepped(words)
        sequence = np.append(sequence, added)
    after = np.array([np.dot(power, sequence[i : i + _LENGTH]) for i in range(_LENGTH)], np.uint64)
    return _in_time(after, _COOKING_STEPS)


def uint64s(seed: int) -> Iterator[int]:
    """Yield what `Source64.Uint64` returns after `NewSource(seed)`, for ever.

    Parameters
    ----------
    seed : int
        A signed 64-bit number.
    """
    words = _in_time(_seed_words(seed, 40, 20) ^ _cooked(), 0)
    while True:
        words, added = _stepped(words)
        yield from added.tolist()


def uint32s(seed: int) -> Iterator[int]:
    """Yield what `Rand.Uint32` returns after `New(NewSource(seed))`, for ever."""
    for word in uint64s(seed):
        yield (word & ((1 << 63) - 1)) >> 31
