"""The walk of spec section 3.2, token by token."""

from __future__ import annotations


def lookup(ring: list[tuple[int, int, bool]], key: int) -> int | None:
    """`ring` holds (token, partition, active), ascending."""
    after = [i for i, (token, _, _) in enumerate(ring) if token > key]
    start = after[0] if after else 0
    for step in range(len(ring)):
        _, partition, active = ring[(start + step) % len(ring)]
        if active:
            return partition
    return None
