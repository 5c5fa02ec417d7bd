"""The immutable view that maps a key's token to a partition (spec: ingest storage, section 3.2).

A key belongs to the first ring token strictly greater than it, wrapping at the end; tokens of partitions that are not
ACTIVE are passed over. Whoever watches the ring swaps the whole view; nobody edits one.

The order of all tokens depends on the set of numbers alone, and is kept for the last few sets: a change of state costs
a mask, not a sort.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from types import MappingProxyType

import numpy as np

from partitions.errors import NoActivePartition
from partitions.model import PartitionState
from partitions.tokens import partition_tokens

_RING = 1 << 32


@lru_cache(maxsize=4)
def _layout(numbers: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of these partitions, ascending, and the partition of each; read-only, shared by views."""
    columns = [partition_tokens(p) for p in numbers]
    tokens = np.concatenate(columns) if columns else np.empty(0, np.uint32)
    partition_of = np.repeat(np.array(numbers, np.int32), [len(c) for c in columns])
    order = np.argsort(tokens, kind="stable")
    tokens, partition_of = tokens[order], partition_of[order]
    tokens.flags.writeable = partition_of.flags.writeable = False
    return tokens, partition_of


@dataclass(frozen=True, eq=False)
class PartitionRing:
    """Tokens of all partitions, ascending, with the partition and the state behind each."""

    tokens: np.ndarray
    """uint32[n], ascending."""
    partition_of: np.ndarray
    """int32[n]: partition of each token."""
    active: np.ndarray
    """bool[n]: whether that partition is ACTIVE."""

    @classmethod
    def build(cls, states: Mapping[int, PartitionState]) -> PartitionRing:
        """Build from the state of each partition; tokens follow from the numbers."""
        tokens, partition_of = _layout(tuple(sorted(states)))
        active = [p for p, state in states.items() if state is PartitionState.ACTIVE]
        return cls(tokens, partition_of, np.isin(partition_of, np.array(active, np.int32)))

    @cached_property
    def _rows(self) -> Mapping[int, np.ndarray]:
        """Rows of each partition's tokens, ascending; partitions in the order of their numbers."""
        if not len(self.partition_of):
            return {}
        order = np.argsort(self.partition_of, kind="stable")
        starts = np.flatnonzero(np.diff(self.partition_of[order], prepend=-1))
        groups = np.split(order, starts[1:])
        return {int(self.partition_of[rows[0]]): rows for rows in groups}

    @property
    def partitions(self) -> tuple[int, ...]:
        """Numbers of all partitions, ascending."""
        return tuple(self._rows)

    @cached_property
    def active_partitions(self) -> tuple[int, ...]:
        """Numbers of the ACTIVE partitions, ascending."""
        return tuple(number for number, rows in self._rows.items() if self.active[rows[0]])

    @cached_property
    def _reachable(self) -> tuple[np.ndarray, np.ndarray]:
        """Tokens that a walk may stop at, and their partitions; the first one repeated at the end for the wrap."""
        owners = self.partition_of[self.active]
        return self.tokens[self.active], np.append(owners, owners[:1])

    def lookup(self, keys: np.ndarray) -> np.ndarray:
        """Return the int32[m] partition of each key.

        Parameters
        ----------
        keys : uint32[m]
            Tokens of series or metadata items.

        Raises
        ------
        NoActivePartition
            No partition of the ring is ACTIVE.
        """
        tokens, owners = self._reachable
        if not len(tokens):
            raise NoActivePartition
        return owners[np.searchsorted(tokens, keys, side="right")]

    def subring(self, partitions: Collection[int]) -> PartitionRing:
        """Return the view of some of its partitions: what a tenant's shard writes to. Numbers it lacks are ignored."""
        groups = [self._rows[number] for number in partitions if number in self._rows]
        kept = np.sort(np.concatenate(groups)) if groups else np.empty(0, np.int64)
        return PartitionRing(self.tokens[kept], self.partition_of[kept], self.active[kept])

    @cached_property
    def owned_keys(self) -> Mapping[int, int]:
        """How many of the 2^32 keys each partition owns, whatever the states; sums to 2^32 unless the ring is empty.

        Pages divide by 2^32 for the ownership; ranges of ACTIVE partitions alone come from a `subring`.
        """
        ends = self.tokens.astype(np.int64)
        sizes = np.diff(ends, prepend=ends[-1:] - _RING)
        return MappingProxyType({number: int(sizes[rows].sum()) for number, rows in self._rows.items()})
