"""`GET /api/v1/ingestion_lag`: how far behind the log a tenant's queries may be, a partition at a time.

A query reads one owner of each partition; what stands for a partition is its owner that is furthest behind. An own
endpoint of this program: Mimir has none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import orjson
from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse

from mimir_ingest.api.render import failure, page, success
from mimir_ingest.errors import IngestError, TenantError
from mimir_ingest.ingester.lag import PartitionLag
from mimir_ingest.querier.service import Querier
from partitions.errors import PartitionError

PATH = "/api/v1/ingestion_lag"


def _seconds(time_ms: int | None) -> float | None:
    return None if time_ms is None else time_ms / 1000


def _describe(lag: PartitionLag, now_ms: int) -> dict:
    behind_ms = 0 if lag.oldest_record_ms is None else max(0, now_ms - lag.oldest_record_ms)
    return {
        "records_behind": lag.records_behind,
        "seconds_behind": behind_ms / 1000,
        "oldest_pending_sample": _seconds(lag.oldest_sample_ms),
        "pending_records_of_tenant": lag.tenant_records,
        "all_pending_records_seen": lag.complete,
        "next_offset": lag.next_offset,
        "end_offset": lag.end_offset,
    }


def describe_lags(owners: Mapping[str, Sequence[PartitionLag] | IngestError], now_ms: int) -> dict:
    """Return JSON values: partitions ascending, each as its owner that is furthest behind, with all owners below it.

    `owners` maps instance ids to what they said. Times are Unix seconds. `oldest_pending_sample` is the tenant's oldest
    sample that is in the log and not in an answer yet, null without one.
    """
    rows: dict[int, list[dict]] = {}
    for instance, lags in sorted(owners.items()):
        for lag in () if isinstance(lags, IngestError) else lags:
            rows.setdefault(lag.partition, []).append({"instance": instance, **_describe(lag, now_ms)})
    partitions = []
    for partition, found in sorted(rows.items()):
        worst = max(found, key=lambda row: (row["records_behind"], row["seconds_behind"]))
        oldest = [row["oldest_pending_sample"] for row in found if row["oldest_pending_sample"] is not None]
        partitions.append(
            {
                "partition": partition,
                "records_behind": worst["records_behind"],
                "seconds_behind": worst["seconds_behind"],
                "oldest_pending_sample": min(oldest, default=None),
                "owners": found,
            }
        )
    failed = {i: lags.message for i, lags in sorted(owners.items()) if isinstance(lags, IngestError)}
    return {"partitions": partitions, "unreachable": failed}


def ingestion_lag_router(
    querier: Querier, *, tenant_of: Callable[[Request], str], now_ms: Callable[[], int]
) -> APIRouter:
    """Build the route; `tenant_of` raises TenantError."""
    router = APIRouter()

    async def ingestion_lag(request: Request) -> Response:
        try:
            lags = await querier.lags(tenant_of(request))
        except TenantError as error:
            return PlainTextResponse(f"{error}\n", error.http_status, headers={"X-Content-Type-Options": "nosniff"})
        except (IngestError, PartitionError) as error:
            return page(failure(error))
        return page(success(orjson.dumps(describe_lags(lags, now_ms()))))

    router.add_api_route(PATH, ingestion_lag, methods=["GET"], name=PATH)
    return router
