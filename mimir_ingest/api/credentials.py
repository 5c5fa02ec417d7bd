"""Who may use the HTTP listeners: the file `auth.credentials_file`, and the check of an `Authorization` header.

    basic_auth_users:            # as in Prometheus's web configuration: name, bcrypt hash
      prometheus: $2y$10$…
    bearer_tokens:               # name, SHA-256 of the token in hexadecimal
      grafana: 9f86d081…
    tenants:                     # who may act as which tenant; "*" is every tenant and the operators' routes
      prometheus: [team-a]
      grafana: [team-a, team-b]

Without `tenants`, everybody in the file may act as every tenant. With it, everybody has to be named there.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import hmac
import os
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import bcrypt
import yaml

from mimir_ingest.api.tenant import check_tenant
from mimir_ingest.config.errors import ConfigError
from mimir_ingest.errors import TenantError

EVERY_TENANT = "*"
_SECTIONS = ("basic_auth_users", "bearer_tokens", "tenants")
_TLS_SECTIONS = ("tls_server_config", "http_server_config")
_BCRYPT = re.compile(r"\$2[aby]\$(\d\d)\$[./A-Za-z0-9]{53}")
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")
_MAX_PASSWORD_BYTES = 72
"""bcrypt takes no more; what follows never counted."""
_REMEMBERED = 1000
"""Right passwords kept, keyed. why: bcrypt takes 0.1 s of a core, and a Prometheus sends its own with every request."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Somebody named in the file."""

    name: str
    tenants: frozenset[str] | None
    """None is every tenant, and the operators' routes."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """The content of a credentials file. Immutable."""

    users: Mapping[str, bytes] = field(repr=False)
    """bcrypt hash by user."""
    tokens: Mapping[bytes, str] = field(repr=False)
    """Name by SHA-256 of the token."""
    identities: Mapping[str, Identity]
    """By name."""
    decoy: bytes = field(repr=False)
    """A hash that costs what the users' do, for names that are not there."""


def parse_credentials(text: str, *, name: str) -> Credentials:
    """Read a credentials file; `name` is its path. Raises ConfigError, saying where and what."""
    try:
        root = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        raise ConfigError(f"{name}{where}: not YAML") from None  # the error's own text would quote the file
    root = _map(root, name, "the file")
    for section in root:
        if section in _TLS_SECTIONS:
            raise ConfigError(f"{name}: {section} is set by server.http_tls_config and server's time-outs, not here")
        if section not in _SECTIONS:
            raise ConfigError(f"{name}: unknown section {section!r}; it has {', '.join(_SECTIONS)}")
    users = {
        user: _checked(
            _BCRYPT, hashed, f"{name}: basic_auth_users.{user} is no bcrypt hash; htpasswd -nBC 10 makes one"
        )
        for user, hashed in _map(root.get("basic_auth_users"), name, "basic_auth_users").items()
    }
    tokens: dict[bytes, str] = {}
    for who, digest in _map(root.get("bearer_tokens"), name, "bearer_tokens").items():
        text = _checked(_SHA256, digest, f"{name}: bearer_tokens.{who} is no SHA-256 of a token, in hexadecimal")
        if tokens.setdefault(bytes.fromhex(text), who) != who:
            raise ConfigError(f"{name}: bearer_tokens.{who} and {tokens[bytes.fromhex(text)]} have the same token")
    names = [*users, *tokens.values()]
    if not names:
        raise ConfigError(f"{name}: nobody is named; add basic_auth_users or bearer_tokens")
    twice = sorted(set(users) & set(tokens.values()))
    if twice:
        raise ConfigError(f"{name}: {twice[0]} stands in basic_auth_users and in bearer_tokens; names must differ")
    identities = _identities(root, names, name)
    cost = max((_BCRYPT.match(hashed)[1] for hashed in users.values()), default="10")
    decoy = f"$2b${cost}${'.' * 21}u{'.' * 31}".encode()
    hashes = {user: hashed.encode() for user, hashed in users.items()}
    return Credentials(MappingProxyType(hashes), MappingProxyType(tokens), MappingProxyType(identities), decoy)


def _identities(root: dict[str, Any], names: list[str], file: str) -> dict[str, Identity]:
    if "tenants" not in root:
        return {who: Identity(who, None) for who in names}
    given = _map(root["tenants"], file, "tenants")
    found = {}
    for who, tenants in given.items():
        if who not in names:
            raise ConfigError(f"{file}: tenants.{who} is neither in basic_auth_users nor in bearer_tokens")
        listed = [tenants] if isinstance(tenants, str) else tenants
        if not isinstance(listed, list) or not listed or not all(isinstance(tenant, str) for tenant in listed):
            raise ConfigError(f'{file}: tenants.{who} must be a list of tenant ids, or ["*"]')
        if EVERY_TENANT in listed:
            found[who] = Identity(who, None)
            continue
        for tenant in listed:
            try:
                if check_tenant(tenant) != tenant:
                    raise TenantError(f"tenant ID '{tenant}' contains unsupported character ':'")
            except TenantError as error:
                raise ConfigError(f"{file}: tenants.{who}: {error.message}") from None
        found[who] = Identity(who, frozenset(listed))
    missing = sorted(set(names) - set(found))
    if missing:
        raise ConfigError(f'{file}: tenants has nothing for {", ".join(missing)}; list their tenants, or ["*"]')
    return found


def _map(node: Any, file: str, what: str) -> dict[str, Any]:
    if node is None:
        return {}
    if not isinstance(node, dict) or not all(isinstance(key, str) and key for key in node):
        raise ConfigError(f"{file}: expected {what} to be a map with names")
    return node


def _checked(pattern: re.Pattern[str], value: Any, message: str) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise ConfigError(message)
    return value


def split_authorization(header: str) -> tuple[str, str]:
    """Return (scheme in lower case, the rest) of an `Authorization` header."""
    scheme, _, rest = header.strip().partition(" ")
    return scheme.lower(), rest.strip()


def split_basic(encoded: str) -> tuple[str, bytes] | None:
    """Return (user, password) of basic credentials, None for what is none."""
    try:
        user, colon, password = base64.b64decode(encoded, validate=True).partition(b":")
        return (user.decode(), password) if colon else None
    except (binascii.Error, ValueError):
        return None


class CredentialChecker:
    """Says who an `Authorization` header is, by the credentials file as it was last read.

    A right password is remembered, a wrong one is not, and bcrypt runs one at a time: guessing takes the guesser's time
    and at most one core, and those who were here before do not wait.
    """

    def __init__(self, file: str, *, read_text: Callable[[str], str] | None = None) -> None:
        """Read the file. Raises ConfigError."""
        self.file = file
        self._read_text = read_text or _read_text
        self._remembered: OrderedDict[bytes, None] = OrderedDict()
        self._key = os.urandom(32)
        self._one_at_a_time = asyncio.Semaphore(1)
        self.reload()

    def reload(self) -> None:
        """Read the file again. Raises ConfigError; what was read before then stays in force."""
        try:
            text = self._read_text(self.file)
        except OSError as error:
            raise ConfigError(f"cannot read auth.credentials_file {self.file}: {error.strerror or error}") from None
        except UnicodeDecodeError as error:
            raise ConfigError(f"auth.credentials_file {self.file} is not UTF-8: byte {error.start}") from None
        self._credentials = parse_credentials(text, name=self.file)

    async def identify(self, header: str) -> Identity | None:
        """Return who this header is; None for nobody."""
        scheme, rest = split_authorization(header)
        credentials = self._credentials
        if scheme == "bearer":
            return _bearer(credentials, rest)
        basic = split_basic(rest) if scheme == "basic" else None
        if basic is None:
            return None
        user, password = basic
        hashed = credentials.users.get(user, credentials.decoy)
        if not await self._matches(password[:_MAX_PASSWORD_BYTES], hashed) or user not in credentials.users:
            return None
        return credentials.identities[user]

    async def _matches(self, password: bytes, hashed: bytes) -> bool:
        pair = hmac.digest(self._key, hashed + password, "sha256")
        if pair not in self._remembered:
            async with self._one_at_a_time:
                if b"\x00" in password or not await asyncio.to_thread(bcrypt.checkpw, password, hashed):
                    return False
            self._remembered[pair] = None
            if len(self._remembered) > _REMEMBERED:
                self._remembered.popitem(last=False)
        self._remembered.move_to_end(pair)
        return True


def _bearer(credentials: Credentials, token: str) -> Identity | None:
    """Find a token by its hash. Compared are hashes, whose bytes a guesser cannot choose, every one of them whole."""
    digest = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
    found = None
    for known, who in credentials.tokens.items():
        if hmac.compare_digest(known, digest):
            found = credentials.identities[who]
    return found


def _read_text(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()
