"""Whose data a request is about: the header `X-Scope-OrgID` (spec: http api 1.3 and 1.4)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from mimir_ingest.errors import TenantError

HEADER = b"x-scope-orgid"
MAX_TENANT_BYTES = 150
_ALLOWED = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!-_.*'()")
_RESERVED = "__mimir_cluster"  # why: Mimir keeps cluster-wide objects under this name in the bucket


class Request(Protocol):
    """Anything with an ASGI scope, such as Starlette's request."""

    @property
    def scope(self) -> dict:
        """The connection's ASGI scope."""


def check_tenant(tenant: str) -> str:
    """Return a tenant id without its sub-tenant. Raises TenantError (401) with Mimir's text."""
    tenant = tenant.partition(":")[0]
    for char in tenant:
        if char not in _ALLOWED:
            raise TenantError(f"tenant ID '{tenant}' contains unsupported character '{char}'")
    if len(tenant) > MAX_TENANT_BYTES:
        raise TenantError("tenant ID is too long: max 150 characters")
    if tenant in (".", ".."):
        raise TenantError("tenant ID is '.' or '..'")
    if not tenant:
        raise TenantError("no org id")
    if tenant == _RESERVED:
        raise TenantError(f"tenant ID '{tenant}' is reserved")
    return tenant


@dataclass(frozen=True, slots=True, kw_only=True)
class TenantResolver:
    """The tenants of a request, from its headers."""

    multitenancy_enabled: bool = True
    """`auth.multitenancy_enabled` (`multitenancy_enabled`): whether the header counts."""
    no_auth_tenant: str = "anonymous"
    """Everybody's tenant when it does not."""
    federation_enabled: bool = False
    """`tenant_federation.enabled`: whether a request may name several."""
    max_tenants: int = 0
    """`tenant_federation.max_tenants`; 0 is no limit."""

    def resolve(self, headers: Iterable[tuple[bytes, bytes]]) -> tuple[str, ...]:
        """Return the tenants, sorted and distinct, at least one.

        Raises
        ------
        TenantError
            401 for a missing or malformed id, 422 for too many.
        """
        if not self.multitenancy_enabled:
            return (self.no_auth_tenant,)
        text = next((value for name, value in headers if name == HEADER), b"").decode("utf-8", "replace")
        if not text:
            raise TenantError("no org id")
        if "|" not in text:
            return (check_tenant(text),)
        tenants = tuple(sorted({check_tenant(part) for part in text.split("|")}))
        allowed = self.max_tenants if self.federation_enabled else 1
        if 0 < allowed < len(tenants):
            raise TenantError(
                f"too many tenant IDs present in the request. max: {allowed} actual: {len(tenants)}", http_status=422
            )
        return tenants

    def single(self, headers: Iterable[tuple[bytes, bytes]], *, several_status: int = 500) -> str:
        """Return the one tenant of a request whose endpoint takes no more; `several_status` is its answer to more."""
        tenants = self.resolve(headers)
        if len(tenants) > 1:
            raise TenantError("multiple org IDs present", http_status=several_status)
        return tenants[0]

    def tenant_of(self, request: Request) -> str:
        """Return the one tenant of a Starlette request. Raises TenantError."""
        return self.single(request.scope["headers"])
