"""Results of queries: an Arrow table, and what the server said about it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from mimir_ingest.client.errors import ClientFailure

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class QueryResult:
    """The result of a query; its schema is docs/format/arrow.md's."""

    table: pa.Table
    """One row a sample: a column for each label, `timestamp`, `value`, and `histogram` where there are some."""
    result_type: str
    """`vector`, `matrix`, `scalar` or `string`."""
    warnings: list[str]
    infos: list[str]
    stats: dict | None
    """Where the query asked for them."""
    offsets: Mapping[int, int]
    """Partition → last offset that the query saw, where it demanded something; for queries that must see no less."""

    @classmethod
    def of(cls, stream: bytes, offsets: Mapping[int, int]) -> QueryResult:
        """Read an Arrow stream. Raises ClientFailure for what is none."""
        try:
            with pa.ipc.open_stream(stream) as reader:
                table = reader.read_all()
            facts = {key.decode(): value for key, value in (table.schema.metadata or {}).items()}
            return cls(
                table,
                facts.get("resultType", b"").decode(),
                json.loads(facts.get("warnings", b"[]")),
                json.loads(facts.get("infos", b"[]")),
                json.loads(facts["stats"]) if "stats" in facts else None,
                offsets,
            )
        except (pa.ArrowException, OSError, ValueError) as error:
            raise ClientFailure(f"the answer is a damaged Arrow stream: {error}") from error

    @property
    def label_names(self) -> dict[str, str]:
        """Column → label; they differ for labels called `timestamp`, `value` or `histogram`."""
        return {
            f.name: f.metadata[b"label"].decode() for f in self.table.schema if f.metadata and b"label" in f.metadata
        }

    def to_pandas(self) -> pd.DataFrame:
        """Return the table as a frame: labels as categories, times in UTC, a row a sample."""
        return self.table.to_pandas()

    def to_wide(self) -> pd.DataFrame:
        """Return numbers by time (the index) and series: a column a series, with a level for each label."""
        frame = self.to_pandas()
        labels = list(self.label_names)
        if not labels:
            return frame.set_index("timestamp")[["value"]]
        names = frame[labels].astype(object).fillna("")
        return frame[["timestamp", "value"]].join(names).pivot(index="timestamp", columns=labels, values="value")
