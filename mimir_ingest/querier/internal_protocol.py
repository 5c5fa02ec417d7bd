"""What queriers and owners say to each other besides Prometheus's own formats: paths, headers, and the form of errors.

Both sides use this module, so that they cannot differ. An owner's answer says in headers how far each partition goes
(`X-Read-Consistency-Offsets`: last offsets) and what it has let go of (`X-Mimir-Cuts`: cut offsets); an error is a JSON
object with all that an error of this program has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import orjson

from mimir_ingest.errors import AnswerCorrupt, ClientError, IngestError, OwnerError, OwnerUnavailable, QueryError
from mimir_ingest.ingester.census import CensusKind, CensusPart, TenantTotals
from mimir_ingest.ingester.exemplars import Exemplar, SeriesExemplars
from mimir_ingest.ingester.ingestion_rates import Rates
from mimir_ingest.querier.owner import HeadAsk
from mimir_ingest.tsdb.columns_file import ColumnsFileCorrupt, decode_columns, encode_columns
from mimir_ingest.tsdb.tally import Counted
from mimir_ingest.wire.offsets_header import CUTS, READ_CONSISTENCY_OFFSETS, decode_offsets, encode_offsets
from partitions.errors import PartitionError

PREFIX = "/api/v1"
TENANT_HEADER = "X-Scope-OrgID"
PARTITIONS_HEADER = "X-Mimir-Partitions"
"""Partitions to read, `0,3`; without it all that are owned."""
MAX_DELAY_HEADER = "X-Read-Consistency-Max-Delay"
_CENSUS = "census"


def ask_headers(ask: HeadAsk) -> dict[str, str]:
    """Return the headers of a request: tenant, partitions, and what the answer has to contain."""
    headers = {
        TENANT_HEADER: ask.tenant,
        PARTITIONS_HEADER: ",".join(map(str, sorted(ask.partitions))),
    }
    waited = {p: offset - 1 for p, offset in ask.wait_offsets.items() if p in ask.partitions}
    if waited:
        headers[READ_CONSISTENCY_OFFSETS] = encode_offsets(waited)
    elif ask.max_delay_s is not None:
        headers[MAX_DELAY_HEADER] = f"{round(ask.max_delay_s * 1e9)}ns"
    return headers


def answer_headers(next_offsets: Mapping[int, int], cut_offsets: Mapping[int, int]) -> dict[str, str]:
    """Return the headers of an answer."""
    return {
        CUTS: encode_offsets(cut_offsets),
        READ_CONSISTENCY_OFFSETS: encode_offsets({p: offset - 1 for p, offset in next_offsets.items()}),
    }


def read_answer_headers(headers: Mapping[str, str]) -> tuple[dict[int, int], dict[int, int]]:
    """Return (next offsets, cut offsets). Raises InvalidRequest when they are missing or malformed."""
    last = decode_offsets(headers.get(READ_CONSISTENCY_OFFSETS, "")) or {}
    return {p: offset + 1 for p, offset in last.items()}, decode_offsets(headers.get(CUTS, "")) or {}


def encode_exemplars(parts: Sequence[SeriesExemplars]) -> bytes:
    """Return exemplars as JSON; values as text, since JSON has no NaN."""
    return orjson.dumps(
        [
            {"series": p.labels, "exemplars": [[e.timestamp_ms, repr(e.value), e.labels] for e in p.exemplars]}
            for p in parts
        ]
    )


def decode_exemplars(rows: list) -> list[SeriesExemplars]:
    """Read what `encode_exemplars` wrote, parsed. Raises ValueError, KeyError or TypeError."""
    return [
        SeriesExemplars(row["series"], [Exemplar(labels, float(value), at) for at, value, labels in row["exemplars"]])
        for row in rows
    ]


def encode_census(part: CensusPart) -> bytes:
    """Return a census as a columns file (docs/format/internal-listener.md)."""
    counted = part.counted
    meta = {"series": part.series, "api_rate": part.rates.api, "rule_rate": part.rates.rule}
    columns = {"labels": counted.labels, "offsets": counted.offsets, "counts": counted.counts.reshape(-1)}
    return encode_columns(_CENSUS, 1, meta, columns)


def decode_census(body: bytes, kind: CensusKind) -> CensusPart:
    """Read what `encode_census` wrote. Raises AnswerCorrupt."""
    try:
        file = decode_columns(body, kind=_CENSUS, versions=(1,))
        offsets, labels = file.columns["offsets"], file.columns["labels"]
        counts = file.columns["counts"].reshape(len(offsets) - 1, kind.columns[0])
        series, rates = int(file.meta["series"]), Rates(float(file.meta["api_rate"]), float(file.meta["rule_rate"]))
    except (ColumnsFileCorrupt, KeyError, TypeError, ValueError) as error:
        raise AnswerCorrupt(f"a census of an unexpected form: {error}") from error
    if offsets[0] != 0 or offsets[-1] != len(labels) or (np.diff(offsets) < 0).any():
        raise AnswerCorrupt("a census whose offsets do not ascend over its labels")
    return CensusPart(series, rates, Counted(labels, offsets, counts))


def encode_tenants(totals: Mapping[str, TenantTotals]) -> bytes:
    """Return tenants' series and rates as JSON."""
    return orjson.dumps({tenant: [t.series, t.rates.api, t.rates.rule] for tenant, t in totals.items()})


def decode_tenants(rows: Mapping[str, Sequence]) -> dict[str, TenantTotals]:
    """Read what `encode_tenants` wrote, parsed. Raises ValueError or TypeError."""
    return {tenant: TenantTotals(int(n), Rates(float(a), float(r))) for tenant, (n, a, r) in rows.items()}


def encode_error(error: IngestError | PartitionError) -> bytes:
    """Return an error as a JSON object, in Prometheus's envelope with id and retriability."""
    kind = error.error_type if isinstance(error, QueryError) else "internal" if error.blame == "server" else "bad_data"
    return orjson.dumps(
        {
            "status": "error",
            "errorType": kind,
            "error": error.message,
            "id": error.error_id,
            "blame": error.blame,
            "retriable": error.retriable,
        }
    )


def decode_error(status: int, body: bytes, owner: str) -> IngestError:
    """Return the error in an owner's answer; one that is not of our form is an OwnerError with its text."""
    try:
        document = orjson.loads(body)
        message, error_id, blame = document["error"], document["id"], document["blame"]
        kind, retriable = document["errorType"], document["retriable"]
    except (ValueError, KeyError, TypeError):
        text = body[:200].decode("utf-8", "replace").strip()
        return OwnerUnavailable(f"{owner} answered {status}: {text}")
    if error_id == QueryError.error_id:
        if kind in ("canceled", "timeout"):
            return OwnerUnavailable(f"{owner}: {message}")  # its time, not the query's
        return QueryError(message, error_type=kind, http_status=status)
    if blame == "client":
        return ClientError(message, error_id=error_id, http_status=status)
    error = OwnerError(message, error_id=error_id, http_status=status)
    error.retriable = bool(retriable)
    return error
