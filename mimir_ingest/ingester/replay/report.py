"""What a replay has found: one finding a block of the cuts that were compared."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field

from mimir_ingest.ingester.replay.plan import ReplayPlan


class Verdict(enum.StrEnum):
    """What became of one block."""

    SAME = "same"
    MERGED = "merged"
    SHIPPED = "shipped"
    MISSING = "missing"
    DIFFERS = "differs"
    UNEXPECTED = "unexpected"

    @property
    def is_sound(self) -> bool:
        """Whether the bucket now has what the log says."""
        return self in (Verdict.SAME, Verdict.MERGED, Verdict.SHIPPED)


@dataclass(frozen=True, slots=True)
class BlockFinding:
    """One block that was compared."""

    verdict: Verdict
    tenant: str
    ulid: str
    cut_offset: int
    min_time_ms: int
    max_time_ms: int
    """Time after the last sample."""
    sample_count: int
    problems: tuple[str, ...] = ()
    """A sentence a file that differs or was missing; for MERGED, the block that it lives on in."""


@dataclass(slots=True)
class ReplayReport:
    """What a replay has found."""

    plan: ReplayPlan
    blocks: list[BlockFinding] = field(default_factory=list)
    checkpoint_problems: list[str] = field(default_factory=list)
    """A sentence a checkpoint whose bytes are not what the log gives."""
    cut_offsets: list[int] = field(default_factory=list)
    """Cuts that were compared."""
    checkpoints_shipped: int = 0
    records: int = 0
    samples: int = 0
    """Accepted."""
    corrupt_records: int = 0
    not_cut_samples: int = 0
    """Accepted and in no block yet, because no cut point has come since."""

    @property
    def is_sound(self) -> bool:
        """Whether everything compared is as the log says."""
        return all(b.verdict.is_sound for b in self.blocks) and not self.checkpoint_problems

    def count(self, verdict: Verdict) -> int:
        """Return how many blocks have a verdict."""
        return sum(block.verdict is verdict for block in self.blocks)
