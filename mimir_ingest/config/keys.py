"""Which configuration keys exist: Mimir's, from the vendored table, and this program's own.

Tables
    `mimir_keys.tsv`  YAML path, flag, type, default, category of every documented key of Mimir (main, February 2026)
    `own_keys.tsv`    the same columns and a description; a path that is in both tables takes type and default from here

The default is JSON; durations are nanoseconds. `-` for a flag means that the key can be set in YAML only. A key's used
half is not decided here: it is used when a field of `settings.Settings` or `limits.Limits` reads it.
"""

from __future__ import annotations

import difflib
import functools
import json
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from typing import Any

from mimir_ingest.config.durations import Duration, parse_go_duration

_SECRET = re.compile(
    r"(^|_)(password|secret_access_key|session_token|account_key|connection_string|acl_token|client_secret"
    r"|application_credential_secret|service_account|secret_id|service_account_token|secret_key|oauthbearer_token)$"
)
_SECRET_PATHS = frozenset({"vault.auth.token.token", "server.http_tls_config.key", "server.grpc_tls_config.key"})

HOSTNAME_PLACEHOLDER = "<hostname>"


@dataclass(frozen=True, slots=True)
class Key:
    """One leaf of the configuration tree."""

    path: str
    """YAML path, dot-separated."""
    flag: str | None
    """Command line flag without dashes; None for keys of the YAML file only."""
    type: str
    """Type word of the table: boolean, int, float, string, duration, url, `list of …`, `map of …`, slice, …"""
    default: Any
    """Default in the program's own form (see `values`)."""
    category: str
    """basic, advanced, experimental, deprecated, or hidden (not in Mimir's reference)."""
    own: bool
    """Whether the key is this program's own, not Mimir's."""
    description: str
    """A sentence or two; empty for keys described elsewhere."""

    @property
    def secret(self) -> bool:
        """Whether the value must never be shown."""
        return self.path in _SECRET_PATHS or _SECRET.search(self.path.rpartition(".")[2]) is not None

    @property
    def is_limit(self) -> bool:
        """Whether this is a tenant limit, which the runtime configuration can override."""
        return self.path.startswith("limits.")


class KeyRegistry:
    """All keys, by path and by flag. Immutable after construction."""

    def __init__(self, keys: list[Key]) -> None:
        self._by_path = {key.path: key for key in keys}
        self._by_flag = {key.flag: key for key in keys if key.flag is not None}
        self._sections = frozenset(path[:dot] for path in self._by_path for dot in range(len(path)) if path[dot] == ".")

    def __iter__(self) -> Iterator[Key]:
        return iter(self._by_path.values())

    def __len__(self) -> int:
        return len(self._by_path)

    def by_path(self, path: str) -> Key | None:
        """Return the key at a YAML path."""
        return self._by_path.get(path)

    def by_flag(self, flag: str) -> Key | None:
        """Return the key of a flag, written without dashes."""
        return self._by_flag.get(flag)

    def is_section(self, path: str) -> bool:
        """Say whether keys exist below a YAML path."""
        return path in self._sections

    def nearest_path(self, path: str) -> str | None:
        """Return the known path or section most like an unknown one, or None when nothing is close."""
        return _nearest(path, [*self._by_path, *self._sections])

    def nearest_flag(self, flag: str) -> str | None:
        """Return the known flag most like an unknown one, or None. A YAML path written as a flag finds its flag."""
        path = flag.replace("-", "_")
        if (key := self._by_path.get(path)) is not None and key.flag is not None:
            return key.flag
        return _nearest(flag, list(self._by_flag))


def _nearest(name: str, known: list[str]) -> str | None:
    """Compare whole names, then last parts under the same parent (a misplaced key is close to its own name)."""
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
    if close:
        return close[0]
    leaf = name.rpartition(".")[2]
    same_leaf = [other for other in known if other.rpartition(".")[2] == leaf]
    if same_leaf:
        return max(same_leaf, key=lambda other: (difflib.SequenceMatcher(None, name, other).ratio(), other))
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return close[0] if close else None


@functools.cache
def registry() -> KeyRegistry:
    """Return the registry built from the two tables."""
    own = {row[0]: row for row in _rows("own_keys.tsv")}
    keys = []
    for row in _rows("mimir_keys.tsv"):
        changed = own.pop(row[0], None)
        keys.append(_key(row, own=False) if changed is None else _key(changed, own=False))
    for row in own.values():
        keys.append(_key(row, own=row[4] != "hidden"))
    return KeyRegistry(keys)


def mimir_defaults() -> dict[str, Any]:
    """Return Mimir's own defaults by path, without this program's changes."""
    return {row[0]: _key(row, own=False).default for row in _rows("mimir_keys.tsv")}


def _rows(name: str) -> Iterator[list[str]]:
    text = resources.files("mimir_ingest.config").joinpath(name).read_text(encoding="utf-8")
    for line in text.splitlines():
        if line and not line.startswith("#"):
            yield line.split("\t")


def _key(row: list[str], *, own: bool) -> Key:
    path, flag, type_, default, category = row[:5]
    if not default and type_ == "int":
        type_ = "string"  # the table has no default where Mimir's type prints itself, such as "63KiB"
    return Key(
        path=path,
        flag=None if flag == "-" else flag,
        type=type_,
        default=_default(type_, default),
        category=category,
        own=own,
        description=row[5] if len(row) > 5 else "",
    )


def _default(type_: str, text: str) -> Any:
    if type_ == "duration":
        return Duration(json.loads(text))
    if type_ == "list of durations":
        return tuple(parse_go_duration(item) for item in json.loads(text))
    if type_.startswith(("list of", "relabel_config")) or type_ == "slice":
        return tuple(json.loads(text)) if text else ()
    if type_ == "url":
        parts = json.loads(text)
        return f"{parts['Scheme']}://{parts['Host']}{parts['Path']}" if parts else ""
    if type_ == "float":
        return float(json.loads(text))
    value = json.loads(text) if text else ""
    return socket.gethostname() if value == HOSTNAME_PLACEHOLDER else value
