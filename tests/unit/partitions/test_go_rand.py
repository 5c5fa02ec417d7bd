"""Numbers that programs in Go print, as published: the generator has been stable since Go 1.0."""

from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from partitions.go_rand import uint32s, uint64s

MASK_63 = (1 << 63) - 1


def int63s(seed):
    return (word & MASK_63 for word in uint64s(seed))


def intn(int63, n):
    """`Rand.Intn` for n below 2^31, of one draw that needs no second."""
    int31 = int63 >> 32
    return int31 & (n - 1) if n & (n - 1) == 0 else int31 % n


def test_rand_int_of_seed_1():
    assert list(islice(int63s(1), 5)) == [
        5577006791947779410,
        8674665223082153551,
        6129484611666145821,
        4037200794235010051,
        3916589616287113937,
    ]


@pytest.mark.parametrize(
    ("seed", "n", "printed"),
    [
        (1, 100, [81, 87, 47, 59, 81, 18, 25, 40, 56, 0]),
        (42, 100, [5, 87]),
        (21, 500, [300]),
    ],
)
def test_rand_intn_of_well_known_seeds(seed, n, printed):
    assert [intn(draw, n) for draw in islice(int63s(seed), len(printed))] == printed


@pytest.mark.parametrize(("seed", "printed"), [(1, 0.9405090880450124), (21, 0.8375676569149538)])
def test_rand_float64_as_the_second_draw(seed, printed):
    draws = int63s(seed)
    next(draws)
    assert next(draws) / (1 << 63) == printed


def test_uint32_is_the_top_of_int63():
    assert list(islice(uint32s(1), 3)) == [
        5577006791947779410 >> 31,
        8674665223082153551 >> 31,
        6129484611666145821 >> 31,
    ]


@settings(max_examples=25)
@given(st.integers(-(1 << 63), (1 << 63) - 1))
def test_the_numbers_go_on_by_the_recurrence_and_repeat_with_the_seed(seed):
    words = list(islice(uint64s(seed), 2000))
    assert all(words[n] == (words[n - 607] + words[n - 273]) % (1 << 64) for n in range(607, 2000))
    assert words[:10] == list(islice(uint64s(seed % ((1 << 31) - 1)), 10))


def test_seed_zero_has_numbers_of_its_own():
    assert list(islice(uint64s(0), 4)) == list(islice(uint64s(89482311), 4))
    assert len(set(islice(uint64s(0), 700))) == 700
