"""Damage: bytes that began as something valid, and numbers that nobody expects in them."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

NUMBERS = [
    0,
    1,
    127,
    128,
    255,
    2**14,
    2**16,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**32,
    2**53,
    2**62,
    2**63 - 1,
    2**63,
    2**64 - 1,
]


def varint(number: int) -> bytes:
    """Return a number as protobuf writes it."""
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def mutations(corpus: Sequence[bytes], count: int, seed: int = 0) -> Iterator[bytes]:
    """Give `count` damaged texts: cut, flipped, overwritten with odd numbers, repeated, joined with one another."""
    chance = random.Random(seed)
    for _ in range(count):
        data = bytearray(chance.choice(corpus))
        for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
            at = chance.randrange(len(data) + 1)
            match chance.randrange(8):
                case 0:
                    del data[at:]
                case 1 if at < len(data):
                    data[at] ^= 1 << chance.randrange(8)
                case 2:
                    data[at : at + chance.randrange(10)] = varint(chance.choice(NUMBERS))
                case 3:
                    size = chance.choice((1, 2, 4, 8))
                    number = chance.choice(NUMBERS) % (1 << 8 * size)
                    data[at : at + size] = number.to_bytes(size, chance.choice(("little", "big")))
                case 4:
                    del data[at : at + chance.randrange(1, 9)]
                case 5:
                    data[at:at] = data[at : at + chance.randrange(1, 40)] * chance.choice((1, 2, 50))
                case 6:
                    other = chance.choice(corpus)
                    cut = chance.randrange(len(other) + 1)
                    data[at:] = other[cut:]
                case _:
                    data[at : at + chance.randrange(4)] = chance.randbytes(chance.randrange(1, 9))
        yield bytes(data)
