"""Who reaches which routes: operators' and tenants' routes told apart, and authentication in front of both.

    CleanPath ─► Only ─► Authenticate ─► Router

A path is a tenant's below `/api/`, `/otlp/` and the query API's prefix; everything else is for operators: pages, rings,
control endpoints, `/metrics`, `/config`. `/ready` is for both, and for probes that have no credentials.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from mimir_ingest.api.credentials import Identity
from mimir_ingest.api.errors import NOT_FOUND, Answer, Application, Headers, Receive, Scope, Send, text_answer
from mimir_ingest.api.middleware import raw_path
from mimir_ingest.api.tenant import HEADER, TenantResolver
from mimir_ingest.errors import TenantError

READY = b"/ready"
_CHALLENGES = tuple((b"www-authenticate", b'%s realm="mimir-ingest"' % scheme) for scheme in (b"Basic", b"Bearer"))


def tenant_paths(prometheus: str) -> Callable[[bytes], bool]:
    """Return a function that says whether a clean raw path is a tenant's; `prometheus` is the query API's prefix."""
    prefixes = (b"/api/", b"/otlp/", prometheus.encode() + b"/")
    return lambda path: path.startswith(prefixes)


class Only:
    """Passes on the paths that a listener serves, and `/ready`; the others are unknown to it (404)."""

    def __init__(self, application: Application, serves: Callable[[bytes], bool]) -> None:
        self._application, self._serves = application, serves

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on or answer 404."""
        if scope["type"] == "http":
            path = raw_path(scope)
            if path != READY and not self._serves(path):
                await NOT_FOUND.send(send)
                return
        await self._application(scope, receive, send)


class Authenticate:
    """Asks everybody but readiness probes for credentials, and lets them act as their own tenants only.

    Whoever has exactly one tenant need not name it. Whoever has some tenants only does not reach operators' routes.
    """

    def __init__(
        self,
        application: Application,
        identify: Callable[[str], Awaitable[Identity | None]],
        *,
        tenants: TenantResolver,
        is_tenant_path: Callable[[bytes], bool],
    ) -> None:
        self._application, self._identify = application, identify
        self._tenants, self._is_tenant_path = tenants, is_tenant_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on as its identity may make it, or answer 401 or 403."""
        if scope["type"] != "http" or raw_path(scope) == READY:
            await self._application(scope, receive, send)
            return
        found = [value for name, value in scope["headers"] if name == b"authorization"]
        identity = await self._identify(found[0].decode("utf-8", "surrogateescape")) if len(found) == 1 else None
        if identity is None:
            refused = text_answer(401, "unauthorized")
            await Answer(refused.status, refused.body, refused.headers + _CHALLENGES).send(send)
        elif identity.tenants is None:
            await self._application(scope, receive, send)
        elif not self._is_tenant_path(raw_path(scope)):
            await text_answer(403, f"{identity.name} may not use operators' routes").send(send)
        else:
            await self._as_tenant(identity, scope, receive, send)

    async def _as_tenant(self, identity: Identity, scope: Scope, receive: Receive, send: Send) -> None:
        assert identity.tenants is not None
        headers: Headers = list(scope["headers"])
        if not any(name == HEADER for name, _ in headers):
            if len(identity.tenants) == 1:
                headers.append((HEADER, next(iter(identity.tenants)).encode()))
            elif self._tenants.multitenancy_enabled:  # routes without a tenant answer, the others ask for the header
                await self._application(scope, receive, send)
                return
        try:
            tenants = self._tenants.resolve(headers)
        except TenantError as error:
            await text_answer(error.http_status, error.message).send(send)
            return
        foreign = sorted(set(tenants) - identity.tenants)
        if foreign:
            await text_answer(403, f"{identity.name} may not act as tenant '{foreign[0]}'").send(send)
            return
        # One header with what was checked, so that nothing behind can read it another way.
        kept = [(name, value) for name, value in headers if name != HEADER]
        named = [*kept, (HEADER, "|".join(tenants).encode())]
        await self._application({**scope, "headers": named}, receive, send)
