"""What the querier needs of the heads, wherever they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Generic, Protocol

from mimir_ingest.errors import IngestError
from mimir_ingest.ingester.census import CensusAsk, CensusPart
from mimir_ingest.ingester.exemplars import SeriesExemplars
from mimir_ingest.ingester.head_answer import PartitionCut
from mimir_ingest.ingester.lag import PartitionLag
from mimir_ingest.ingester.metadata import FamilyMetadata
from mimir_ingest.model.frozen import frozen
from mimir_ingest.model.labels import LabelFrame
from mimir_ingest.model.matchers import Matcher
from mimir_ingest.model.samples import SampleBudget, SeriesSamples
from mimir_ingest.querier.owner import Found
from mimir_ingest.querier.reading import Reading


@frozen
class HeadsAnswer(Generic[Found]):
    """What all partitions gave."""

    found: list[Found]
    """Parts in order of precedence."""
    cuts: list[PartitionCut]
    """What the bucket has to have."""
    listed_since_s: float = float("-inf")
    """Monotonic time (s) that the list of blocks must not be older than."""


class Heads(Protocol):
    """Reads of all partitions that may hold a tenant's data; times in `[start_ms, end_ms)`.

    Every call raises LogUnavailable, OwnerError, PartitionError, StoreUnavailable, ReadConsistencyUnmet and QueryError.
    """

    async def prepare(self, tenant: str, reading: Reading) -> None:
        """Work out what a request's reads have to contain; repeated calls do nothing. Comes before its reads."""

    async def select(
        self,
        tenant: str,
        reading: Reading,
        matchers: Sequence[Matcher],
        start_ms: int,
        end_ms: int,
        budget: SampleBudget,
        *,
        newest_only: bool = False,
    ) -> HeadsAnswer[SeriesSamples]:
        """Return the samples of the series that satisfy all matchers; `newest_only` as in `HeadAsk`."""

    def select_now(
        self,
        tenant: str,
        reading: Reading,
        matchers: Sequence[Matcher],
        start_ms: int,
        end_ms: int,
        budget: SampleBudget,
    ) -> HeadsAnswer[SeriesSamples] | None:
        """Return the same if all of it is in this process, at hand and small, else None. Raises QueryError."""

    async def label_frame(
        self, tenant: str, reading: Reading, matchers: Sequence[Matcher], start_ms: int, end_ms: int
    ) -> HeadsAnswer[LabelFrame]:
        """Return the label sets that satisfy all matchers."""

    async def label_names(
        self, tenant: str, reading: Reading, matchers: Sequence[Matcher], start_ms: int, end_ms: int
    ) -> HeadsAnswer[list[str]]:
        """Return the label names of those."""

    async def label_values(
        self, tenant: str, reading: Reading, name: str, matchers: Sequence[Matcher], start_ms: int, end_ms: int
    ) -> HeadsAnswer[list[str]]:
        """Return the values of a label of those."""

    async def metadata(self, tenant: str, reading: Reading) -> HeadsAnswer[dict[str, list[FamilyMetadata]]]:
        """Return what is known of metric families."""

    async def exemplars(
        self, tenant: str, reading: Reading, matchers: Sequence[Matcher], start_ms: int, end_ms: int
    ) -> HeadsAnswer[list[SeriesExemplars]]:
        """Return the exemplars of the series that satisfy all matchers."""

    async def census(
        self, tenant: str, reading: Reading, matchers: Sequence[Matcher], what: CensusAsk
    ) -> HeadsAnswer[CensusPart]:
        """Count the series in memory that satisfy all matchers, each partition once."""

    async def lags(self, tenant: str) -> dict[str, list[PartitionLag] | IngestError]:
        """Return, for each healthy owner of the tenant's partitions, how far it is behind in them, or why not."""
