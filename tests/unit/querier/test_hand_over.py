"""A query is complete only with every block that a head handed over."""

from dataclasses import dataclass, field

import pytest

from mimir_ingest.querier.hand_over import missing_blocks


@dataclass
class Block:
    ulid: str
    min_time_ms: int = 0
    max_time_ms: int = 10
    sources: list[str] = field(default_factory=list)


@pytest.mark.parametrize(
    ("required", "listed", "missing"),
    [
        ([Block("A")], [], ["A"]),
        ([Block("A")], [Block("A")], []),
        ([Block("A"), Block("B")], [Block("M", sources=["A", "B"])], []),
        ([Block("A", 10, 20)], [], []),
        ([Block("A", -5, 0)], [], []),
        ([Block("B", 9, 20), Block("A"), Block("A")], [], ["A", "B"]),
    ],
)
def test_blocks_that_overlap_and_are_neither_listed_nor_merged_are_missing(required, listed, missing):
    assert missing_blocks(required, listed, start_ms=0, end_ms=10) == missing
