"""The credentials file and who an `Authorization` header is by it."""

from __future__ import annotations

import base64
import hashlib

import bcrypt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimir_ingest.api import credentials
from mimir_ingest.api.credentials import CredentialChecker, parse_credentials, split_basic
from mimir_ingest.config.errors import ConfigError

HASH = bcrypt.hashpw(b"secret", b"$2b$04$ic4VDfTcstlhrIvDvqeVge").decode()
SHA256 = hashlib.sha256(b"token").hexdigest()


def basic(user: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def checker(text: str) -> CredentialChecker:
    return CredentialChecker("credentials.yaml", read_text=lambda path: text)


@pytest.mark.parametrize("prefix", ["$2a$", "$2b$", "$2y$"])
async def test_a_users_section_of_prometheus_lets_its_users_in_for_every_tenant(prefix):
    check = checker(f"basic_auth_users: {{alice: '{HASH.replace('$2b$', prefix)}'}}")
    found = await check.identify(basic("alice", "secret"))
    assert (found.name, found.tenants) == ("alice", None)
    for header in (
        basic("alice", "Secret"),
        basic("bob", "secret"),
        basic("alice", "secret\0"),
        "Basic",
        "",
        "Bearer x",
    ):
        assert await check.identify(header) is None
    assert (await check.identify(basic("alice", "secret").replace("Basic", "bAsIc "))).name == "alice"


async def test_a_token_is_known_by_its_hash():
    check = checker(f"bearer_tokens: {{ci: {SHA256.upper()}}}\ntenants: {{ci: team-a}}")
    found = await check.identify("Bearer token")
    assert (found.name, found.tenants) == ("ci", frozenset({"team-a"}))
    for header in (
        f"Bearer {SHA256}",
        "Bearer",
        "Bearer  ",
        "token",
        "Bearer tokén",
        "Bearer \udcff",
        basic("ci", "token"),
    ):
        assert await check.identify(header) is None


async def test_a_right_password_is_hashed_once_and_a_wrong_one_each_time(monkeypatch):
    calls = []
    real = bcrypt.checkpw
    monkeypatch.setattr(credentials.bcrypt, "checkpw", lambda *pair: calls.append(pair) or real(*pair))
    check = checker(f"basic_auth_users: {{alice: '{HASH}'}}")
    for _ in range(3):
        assert await check.identify(basic("alice", "secret"))
    assert len(calls) == 1
    for _ in range(3):
        assert not await check.identify(basic("alice", "wrong"))
    assert len(calls) == 4
    assert not await check.identify(basic("nobody", "secret"))  # costs as much as a wrong password
    assert len(calls) == 5
    assert calls[-1][1].split(b"$")[2] == HASH.encode().split(b"$")[2]


async def test_a_password_longer_than_bcrypt_takes_is_cut_as_its_hash_was():
    long = "x" * 72
    hashed = bcrypt.hashpw(long.encode(), bcrypt.gensalt(4)).decode()
    assert await checker(f"basic_auth_users: {{a: '{hashed}'}}").identify(basic("a", long + "more"))


USER, TOKEN = f"basic_auth_users: {{a: '{HASH}'}}", f"bearer_tokens: {{t: {SHA256}}}"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "nobody is named"),
        ("a: [", "line 1: not YAML"),
        ("[]", "expected the file to be a map"),
        ("users: {}", "unknown section 'users'"),
        ("tls_server_config: {cert_file: x}", "server.http_tls_config"),
        ("basic_auth_users: {a: secret}", "basic_auth_users.a is no bcrypt hash; htpasswd"),
        ("basic_auth_users: [a]", "basic_auth_users to be a map"),
        ("basic_auth_users: {1: x}", "basic_auth_users to be a map"),
        ("bearer_tokens: {a: secret}", "bearer_tokens.a is no SHA-256"),
        (f"bearer_tokens: {{a: {SHA256}, b: {SHA256}}}", "have the same token"),
        (f"{USER}\nbearer_tokens: {{a: {SHA256}}}", "a stands in basic_auth_users and in bearer_tokens"),
        (f"{USER}\ntenants: {{}}", "tenants has nothing for a"),
        (f"{USER}\ntenants:", "tenants has nothing for a"),
        (f"{USER}\n{TOKEN}\ntenants: {{a: x}}", "tenants has nothing for t"),
        (f"{USER}\ntenants: {{a: [x], b: [x]}}", "tenants.b is neither"),
        (f"{USER}\ntenants: {{a: []}}", "tenants.a must be a list"),
        (f"{USER}\ntenants: {{a: [1]}}", "tenants.a must be a list"),
        (f"{USER}\ntenants: {{a: [x/y]}}", "unsupported character '/'"),
        (f"{USER}\ntenants: {{a: [..]}}", "'.' or '..'"),
        (f"{USER}\ntenants: {{a: ['x:y']}}", "unsupported character ':'"),
        (f"{USER}\ntenants: {{a: [__mimir_cluster]}}", "is reserved"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_what_is_wrong_and_without_its_secrets(text, says):
    with pytest.raises(ConfigError) as refused:
        parse_credentials(text, name="file.yaml")
    assert says in str(refused.value)
    assert str(refused.value).startswith("file.yaml")
    assert "secret" not in str(refused.value)


def test_a_file_that_cannot_be_read_is_named_with_its_key():
    with pytest.raises(ConfigError, match=r"cannot read auth\.credentials_file /nowhere/x: No such file"):
        CredentialChecker("/nowhere/x")


def test_credentials_do_not_show_their_hashes():
    shown = repr(parse_credentials(f"{USER}\n{TOKEN}", name="x"))
    assert HASH not in shown
    assert repr(bytes.fromhex(SHA256)) not in shown


@given(st.text())
def test_any_text_after_basic_is_somebody_or_nobody(text):
    found = split_basic(text)
    assert found is None or isinstance(found[0], str)
