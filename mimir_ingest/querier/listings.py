"""How old each tenant's list of blocks is, and who makes it anew."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from mimir_ingest.bucket.discover import BlockCatalog

MAX_TENANTS = 10_000
"""why: a tenant id is whatever a request names, so what is kept of each must be bounded; an entry takes 400 bytes."""


@dataclass(slots=True)
class _Listing:
    at_s: float = float("-inf")
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting: int = 0


class BlockListings:
    """Refreshes lists of blocks, one refresh of a tenant at a time. Used from one event loop."""

    def __init__(self, catalog: BlockCatalog, *, clock: Callable[[], float], max_tenants: int = MAX_TENANTS) -> None:
        self._catalog = catalog
        self._clock = clock
        self._max_tenants = max_tenants
        self._tenants: OrderedDict[str, _Listing] = OrderedDict()

    def is_newer(self, tenant: str, oldest_s: float) -> bool:
        """Whether a tenant's list is not older than `oldest_s`; then it counts as asked for."""
        listing = self._tenants.get(tenant)
        if listing is None or not self._is_fresh(tenant, listing, oldest_s):
            return False
        self._tenants.move_to_end(tenant)
        return True

    async def refresh(self, tenant: str, *, oldest_s: float) -> None:
        """Make sure that a tenant's list is not older than `oldest_s` on the clock. Raises StoreUnavailable."""
        listing = self._tenants.setdefault(tenant, _Listing())
        self._tenants.move_to_end(tenant)
        if self._is_fresh(tenant, listing, oldest_s):
            return
        listing.waiting += 1
        try:
            async with listing.lock:
                if not self._is_fresh(tenant, listing, oldest_s):
                    began = self._clock()
                    await asyncio.to_thread(self._catalog.refresh, tenant)
                    listing.at_s = began
        finally:
            listing.waiting -= 1
            self._forget()

    def _is_fresh(self, tenant: str, listing: _Listing, oldest_s: float) -> bool:
        return listing.at_s >= oldest_s and self._catalog.is_listed(tenant)

    def _forget(self) -> None:
        """Drop the tenants asked for longest ago: those that the catalog let go, and what are too many."""
        while self._tenants:
            tenant, listing = next(iter(self._tenants.items()))
            kept = len(self._tenants) <= self._max_tenants and self._catalog.is_listed(tenant)
            if kept or listing.waiting:
                break
            del self._tenants[tenant]
            self._catalog.forget_empty(tenant)
