"""Asking every ingester of the ring about every tenant: what the distributor's statistics page adds up.

Sums over all ingesters, so a partition counts once an owner (spec http-api.md 4.5); one that does not answer fails it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from mimir_ingest.errors import OwnerUnavailable
from mimir_ingest.ingester.census import TenantTotals
from mimir_ingest.querier.concurrency import run_all
from mimir_ingest.querier.ingester_client import IngesterClient
from mimir_ingest.querier.owner import LocalOwner, Owner
from partitions.errors import EmptyRing
from partitions.model import InstanceDesc, RingDesc
from partitions.owners import healthy

TIMEOUT_S = 10.0
"""How long an ingester may take; it counts for microseconds a tenant."""


class AllIngesters:
    """The ingesters of a ring, this process's own one among them."""

    def __init__(
        self,
        view: Callable[[], RingDesc],
        client: IngesterClient,
        *,
        local_id: str,
        local: LocalOwner | None,
        heartbeat_timeout_ms: int,
        now_ms: Callable[[], int],
    ) -> None:
        self._view, self._client = view, client
        self._local_id, self._local = local_id, local
        self._heartbeat_timeout_ms, self._now_ms = heartbeat_timeout_ms, now_ms

    async def tenant_totals(self) -> dict[str, TenantTotals]:
        """Return tenant → series and rates of all ingesters together.

        Raises EmptyRing, OwnerUnavailable and OwnerError.
        """
        instances = self._view().instances("ingester").values()
        if not instances:
            raise EmptyRing
        now_ms = self._now_ms()
        if not all(healthy(instance, now_ms, self._heartbeat_timeout_ms) for instance in instances):
            raise OwnerUnavailable("too many unhealthy instances in the ring")
        totals: dict[str, TenantTotals] = {}
        for found in await run_all(map(self._ask, instances)):
            for tenant, own in found.items():
                totals[tenant] = totals.get(tenant, TenantTotals()).plus(own)
        return totals

    async def _ask(self, instance: InstanceDesc) -> dict[str, TenantTotals]:
        owner: Owner = self._client.owner(instance.id, instance.address)
        if instance.id == self._local_id and self._local is not None:
            owner = self._local
        try:
            async with asyncio.timeout(TIMEOUT_S):
                return await owner.tenant_totals()
        except TimeoutError as error:
            raise OwnerUnavailable(f"{instance.id} did not answer within {TIMEOUT_S:g} s") from error
