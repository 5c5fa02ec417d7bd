"""The immutable view that maps a key's token to a partition (spec: ingest storage, section 3.2).

A key belongs to the first ring token strictly greater than it, wrapping at the end; tokens of partitions that are not
ACTIVE are passed over. Whoever watches the ring swaps the whole view; nobody edits one.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from partitions.errors import NoActivePartition
from partitions.model import PartitionState
from partitions.tokens import partition_tokens


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
        numbers = sorted(states)
        columns = [partition_tokens(p) for p in numbers]
        tokens = np.concatenate(columns) if columns else np.empty(0, np.uint32)
        partition_of = np.repeat(np.array(numbers, np.int32), [len(c) for c in columns])
        states_of = np.repeat(np.array([states[p] for p in numbers], np.int32), [len(c) for c in columns])
        order = np.argsort(tokens, kind="stable")
        return cls(tokens[order], partition_of[order], states_of[order] == PartitionState.ACTIVE)

    @cached_property
    def active_partitions(self) -> tuple[int, ...]:
        """Numbers of the ACTIVE partitions, ascending."""
        return tuple(np.unique(self.partition_of[self.active]).tolist())

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
