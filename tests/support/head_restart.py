"""A head as a snapshot brings it back."""

from __future__ import annotations

import numpy as np

from mimir_ingest.tsdb.head import Head


def restarted(head: Head, **options: int) -> Head:
    """Return another head with all that a snapshot of this one would hold."""
    head.seal(force=True)
    last_ts, last_value = head.series_state()
    refs = np.arange(head.table.count, dtype=np.int32)
    return Head.restore(
        head.tenant,
        head.table.view().label_bytes(refs),
        last_ts,
        last_value,
        max_ts=head.max_ts,
        window_ms=head.window_ms,
        held=head.held,
        segments=head.segments,
        totals=head.delta_totals(),
        **options,
    )
