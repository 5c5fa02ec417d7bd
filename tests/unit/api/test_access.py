"""Who reaches which route, and as which tenant."""

from __future__ import annotations

import httpx
import pytest

from mimir_ingest.api.access import Authenticate, Only, tenant_paths
from mimir_ingest.api.credentials import Identity
from mimir_ingest.api.errors import Answer
from mimir_ingest.api.tenant import TenantResolver

IDENTITIES = {
    "one": Identity("one", frozenset({"a"})),
    "two": Identity("two", frozenset({"a", "b"})),
    "all": Identity("all", None),
}
IS_TENANT = tenant_paths("/prometheus")
SEVERAL = {"federation_enabled": True}
NONE = {"multitenancy_enabled": False, "no_auth_tenant": "a"}


async def tenant_headers(scope, receive, send):
    """Answer with every tenant header that arrives."""
    named = [value for name, value in scope["headers"] if name == b"x-scope-orgid"]
    await Answer(200, b" and ".join(named)).send(send)


async def identify(header):
    return IDENTITIES.get(header)


async def ask(path: str, *headers: tuple[str, str], **resolver: object) -> tuple[int, str]:
    tenants = TenantResolver(**resolver)
    application = Authenticate(tenant_headers, identify, tenants=tenants, is_tenant_path=IS_TENANT)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(application), base_url="http://x") as client:
        answer = await client.get(path, headers=list(headers))
        return answer.status_code, answer.text


PUSH = "/api/v1/push"
ORG = "X-Scope-OrgID"


@pytest.mark.parametrize(
    ("who", "headers", "resolver", "status", "text"),
    [
        ("one", [], {}, 200, "a"),
        ("one", [(ORG, "a")], {}, 200, "a"),
        ("one", [(ORG, "a:part")], {}, 200, "a"),
        ("one", [(ORG, "b")], {}, 403, "one may not act as tenant 'b'\n"),
        ("one", [(ORG, "a"), (ORG, "b")], {}, 200, "a"),
        ("one", [(ORG, "b"), (ORG, "a")], {}, 403, "one may not act as tenant 'b'\n"),
        ("one", [(ORG, "")], {}, 401, "no org id\n"),
        ("one", [(ORG, "a/b")], {}, 401, "tenant ID 'a/b' contains unsupported character '/'\n"),
        ("two", [], {}, 200, ""),
        ("two", [(ORG, "b|a")], SEVERAL, 200, "a|b"),
        ("two", [(ORG, "a|b|c")], SEVERAL, 403, "two may not act as tenant 'c'\n"),
        ("two", [(ORG, "a|b")], {}, 422, "too many tenant IDs present in the request. max: 1 actual: 2\n"),
        ("all", [(ORG, "c")], {}, 200, "c"),
        ("all", [], {}, 200, ""),
        ("two", [], NONE, 200, "a"),
        ("two", [(ORG, "b")], NONE | {"no_auth_tenant": "c"}, 403, "two may not act as tenant 'c'\n"),
        ("nobody", [(ORG, "a")], {}, 401, "unauthorized\n"),
    ],
)  # fmt: skip
async def test_an_identity_acts_as_its_own_tenants(who, headers, resolver, status, text):
    assert await ask(PUSH, ("Authorization", who), *headers, **resolver) == (status, text)


async def test_readiness_needs_no_credentials_and_everything_else_does():
    assert (await ask("/ready"))[0] == 200
    for path in ("/ready/", "/ready?x", "/metrics", PUSH, "/", "/none"):
        assert (await ask(path))[0] == (200 if path == "/ready?x" else 401)
    assert (await ask(PUSH, ("Authorization", "one"), ("Authorization", "one")))[0] == 401


@pytest.mark.parametrize(
    "path", ["/metrics", "/config", "/", "/ingester/flush", "/apix", "/prometheus", "/otlp", "/debug/x"]
)
async def test_operators_routes_are_for_those_who_may_act_as_every_tenant(path):
    assert (await ask(path, ("Authorization", "all")))[0] == 200
    assert await ask(path, ("Authorization", "two"), (ORG, "a")) == (403, "two may not use operators' routes\n")
    assert not IS_TENANT(path.encode())


async def test_a_listener_of_its_own_serves_its_paths_and_readiness_and_knows_no_others():
    application = Only(tenant_headers, IS_TENANT)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(application), base_url="http://x") as client:
        for path in (PUSH, "/otlp/v1/metrics", "/prometheus/api/v1/query", "/ready"):
            assert (await client.get(path)).status_code == 200
        for path in ("/metrics", "/", "/config", "/ready/", "/Api/v1/push", "/api%2Fv1/push"):
            answer = await client.get(path)
            assert (answer.status_code, answer.text) == (404, "404 page not found\n")
