"""Classic histograms: how many repaired samples an info names."""

from __future__ import annotations

import numpy as np
import pytest

from mimir_ingest.promql.operators.histograms import doubled_sum


@pytest.mark.parametrize(
    ("counts", "total"),
    [
        ([3], 3),
        ([0, 3], 3),
        ([1, 1, 1, 1, 1], 46),
        ([0, 1, 0, 2], 8),
        ([1] * 200, -2),
        ([5] + [0] * 63, -(2**63)),
        ([5] + [0] * 64, 0),
    ],
)
def test_the_sum_is_doubled_at_every_step_after_the_first_and_overflows(counts: list[int], total: int) -> None:
    assert doubled_sum(np.array(counts)) == total
