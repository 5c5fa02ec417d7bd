"""The query engine over a head: samples go through remote write, the log's record, segments and their reading."""

from __future__ import annotations

import cramjam

from mimir_ingest.model.samples import SeriesSamples
from mimir_ingest.promql.plan_nodes import Select
from mimir_ingest.tsdb.head import Head
from mimir_ingest.tsdb.series_limits import SeriesLimits
from mimir_ingest.wire import remote_write_v1
from tests.support.engine_target import EngineTarget

_RANGE_MS = 7_200_000


class StoreTarget(EngineTarget):
    """Holds what bodies of remote write bring."""

    def __init__(self, *, delayed_name_removal: bool = True, seal_samples: int = 1 << 20) -> None:
        super().__init__(delayed_name_removal=delayed_name_removal)
        self.head = Head("t", seal_samples=seal_samples)
        self._offset = 0

    def push(self, body: bytes) -> None:
        """Take a body of remote write 1.0; all of its samples must be good."""
        decoded = remote_write_v1.decode(bytes(cramjam.snappy.decompress_raw(body)))
        self.head.append(
            decoded.batch,
            offset=self._offset,
            newest_ms=1 << 60,
            range_ms=_RANGE_MS,
            limits=SeriesLimits(),
            window_ms=0,
        )
        self._offset += 1
        self.head.seal()

    def _read(self, select: Select) -> SeriesSamples:
        matchers, newest_only = list(select.matchers), select.hints.newest_only
        view = self.head.view(matchers)
        answers = view.select(matchers, select.start_ms, select.end_ms, newest_only=newest_only)
        return answers[0] if answers else SeriesSamples.empty()
