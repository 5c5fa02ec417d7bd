import pytest

from mimir_ingest.api.tenant import TenantResolver
from mimir_ingest.errors import TenantError

ONE = TenantResolver()
FEDERATED = TenantResolver(federation_enabled=True)


def headers(value: str | bytes) -> list[tuple[bytes, bytes]]:
    return [(b"host", b"x"), (b"x-scope-orgid", value if isinstance(value, bytes) else value.encode())]


@pytest.mark.parametrize(
    ("value", "tenants"),
    [
        ("team-a", ("team-a",)),
        ("a!-_.*'()Z9", ("a!-_.*'()Z9",)),
        ("team-a:k6", ("team-a",)),
        ("team-a:k6:x/y", ("team-a",)),
        ("a|a", ("a",)),
        ("a:x|a:y", ("a",)),
        ("x" * 150, ("x" * 150,)),
    ],
)
def test_a_well_formed_header_names_its_tenant(value, tenants):
    assert ONE.resolve(headers(value)) == tenants


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("", "no org id"),
        (":x", "no org id"),
        ("a|", "no org id"),
        ("|", "no org id"),
        ("a/b", "tenant ID 'a/b' contains unsupported character '/'"),
        ("a b", "tenant ID 'a b' contains unsupported character ' '"),
        ("é", "tenant ID 'é' contains unsupported character 'é'"),
        ("a|b@", "tenant ID 'b@' contains unsupported character '@'"),
        ("x" * 151, "tenant ID is too long: max 150 characters"),
        ("x" * 151 + "/", f"tenant ID '{'x' * 151}/' contains unsupported character '/'"),
        (".", "tenant ID is '.' or '..'"),
        ("..", "tenant ID is '.' or '..'"),
        ("..:x", "tenant ID is '.' or '..'"),
        ("__mimir_cluster", "tenant ID '__mimir_cluster' is reserved"),
    ],
)
def test_a_malformed_header_is_401_with_mimirs_text(value, text):
    with pytest.raises(TenantError) as error:
        FEDERATED.resolve(headers(value))
    assert (error.value.http_status, error.value.message) == (401, text)


def test_bytes_that_are_not_utf8_are_refused_and_no_header_is_no_tenant():
    with pytest.raises(TenantError, match="unsupported character"):
        ONE.resolve(headers(b"a\xff"))
    with pytest.raises(TenantError, match="no org id"):
        ONE.resolve([(b"host", b"x")])


def test_the_first_of_two_headers_counts():
    assert ONE.resolve([*headers("a"), *headers("b/")]) == ("a",)


def test_without_multitenancy_the_header_is_not_looked_at():
    resolver = TenantResolver(multitenancy_enabled=False, no_auth_tenant="everybody")
    assert resolver.resolve(headers("a/b")) == resolver.resolve([]) == ("everybody",)


def test_several_tenants_are_sorted_and_distinct():
    assert FEDERATED.resolve(headers("b|a|a|c:x")) == ("a", "b", "c")


@pytest.mark.parametrize(
    ("resolver", "limit"),
    [(ONE, 1), (TenantResolver(federation_enabled=True, max_tenants=2), 2), (TenantResolver(max_tenants=9), 1)],
)
def test_too_many_tenants_are_422(resolver, limit):
    with pytest.raises(TenantError) as error:
        resolver.resolve(headers("c|a|b"))
    assert error.value.http_status == 422
    assert error.value.message == f"too many tenant IDs present in the request. max: {limit} actual: 3"


def test_an_endpoint_of_one_tenant_refuses_two():
    with pytest.raises(TenantError) as error:
        FEDERATED.single(headers("a|b"))
    assert (error.value.http_status, error.value.message) == (500, "multiple org IDs present")
    assert FEDERATED.single(headers("a|a")) == "a"
