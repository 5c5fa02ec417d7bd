"""The heads of a process that owns every partition itself."""

from __future__ import annotations

from collections.abc import Sequence

from mimir_ingest.errors import IngestError
from mimir_ingest.ingester.lag import PartitionLag
from mimir_ingest.ingester.metadata import FamilyMetadata
from mimir_ingest.ingester.service import Ingester
from mimir_ingest.model.labels import LabelFrame
from mimir_ingest.model.matchers import Matcher
from mimir_ingest.model.samples import SampleBudget, SeriesSamples
from mimir_ingest.querier.heads import HeadsAnswer
from mimir_ingest.querier.owner import Found, HeadAsk, LocalOwner, OwnerAnswer
from mimir_ingest.querier.reading import Reading


class OwnHeads:
    """Reads this process's ingester, and nobody else; see `heads.Heads`."""

    def __init__(self, ingester: Ingester) -> None:
        self._ingester = ingester
        self._owner = LocalOwner(ingester)

    async def prepare(self, tenant: str, reading: Reading) -> None:
        """Wait for what the client presented, and for nothing else."""
        reading.wait_offsets = {p: last + 1 for p, last in reading.consistency.offsets.items()}
        reading.prepared = True

    async def select(
        self,
        tenant: str,
        reading: Reading,
        matchers: Sequence[Matcher],
        start_ms: int,
        end_ms: int,
        budget: SampleBudget,
    ) -> HeadsAnswer[SeriesSamples]:
        """See `heads.Heads`."""
        ask = self._ask(tenant, reading, matchers, start_ms, end_ms)
        return _whole(reading, await self._owner.select(ask, budget))

    async def label_frame(
        self, tenant: str, reading: Reading, matchers: Sequence[Matcher], start_ms: int, end_ms: int
    ) -> HeadsAnswer[LabelFrame]:
        """See `heads.Heads`."""
        ask = self._ask(tenant, reading, matchers, start_ms, end_ms)
        return _whole(reading, await self._owner.label_frame(ask))

    async def label_names(
        self, tenant: str, reading: Reading, matchers: Sequence[Matcher], start_ms: int, end_ms: int
    ) -> HeadsAnswer[list[str]]:
        """See `heads.Heads`."""
        ask = self._ask(tenant, reading, matchers, start_ms, end_ms)
        return _whole(reading, await self._owner.label_names(ask))

    async def label_values(
        self, tenant: str, reading: Reading, name: str, matchers: Sequence[Matcher], start_ms: int, end_ms: int
    ) -> HeadsAnswer[list[str]]:
        """See `heads.Heads`."""
        ask = self._ask(tenant, reading, matchers, start_ms, end_ms)
        return _whole(reading, await self._owner.label_values(ask, name))

    async def metadata(self, tenant: str, reading: Reading) -> HeadsAnswer[dict[str, list[FamilyMetadata]]]:
        """See `heads.Heads`."""
        return _whole(reading, await self._owner.metadata(self._ask(tenant, reading)))

    async def lags(self, tenant: str) -> dict[str, list[PartitionLag] | IngestError]:
        """See `heads.Heads`."""
        return {"": await self._owner.lags(tenant)}

    def _ask(
        self, tenant: str, reading: Reading, matchers: Sequence[Matcher] = (), start_ms: int = 0, end_ms: int = 0
    ) -> HeadAsk:
        return HeadAsk(
            tenant,
            self._ingester.owned,
            tuple(matchers),
            start_ms,
            end_ms,
            reading.wait_offsets,
            reading.consistency.max_delay_s,
        )


def _whole(reading: Reading, answer: OwnerAnswer[Found]) -> HeadsAnswer[Found]:
    reading.saw(answer.next_offsets)
    return HeadsAnswer(answer.found, answer.cuts)
