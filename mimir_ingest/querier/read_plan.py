"""Whom to ask for which partitions: a pure choice, made again without those that failed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from partitions.model import InstanceDesc

Targets = Mapping[int, Sequence[InstanceDesc]]
Tried = frozenset[tuple[str, int]]
"""(Instance, partition) pairs that failed or are being waited for."""


def plan_reads(
    targets: Targets, partitions: Collection[int], *, local: Collection[int], tried: Tried, local_id: str
) -> tuple[dict[str, frozenset[int]], frozenset[int]]:
    """Choose whom to ask.

    Parameters
    ----------
    targets
        Healthy owners of each partition in the order to try them.
    partitions
        What is to be read.
    local
        Partitions that this process has in memory; it is asked first.
    tried
        Who is not asked again.
    local_id
        This process's instance id.

    Returns
    -------
    (instance → its partitions, partitions that nobody is left for)
    """
    groups: dict[str, set[int]] = {}
    nobody: set[int] = set()
    for partition in sorted(partitions):
        if partition in local and (local_id, partition) not in tried:
            groups.setdefault(local_id, set()).add(partition)
            continue
        owner = next((i.id for i in targets.get(partition, ()) if (i.id, partition) not in tried), None)
        if owner is None:
            nobody.add(partition)
        else:
            groups.setdefault(owner, set()).add(partition)
    return {instance: frozenset(parts) for instance, parts in groups.items()}, frozenset(nobody)
