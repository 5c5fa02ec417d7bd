"""The runtime configuration: overrides of tenant and instance limits, read again while the process runs.

Parsing and merging are pure; `RuntimeConfigWatcher` is the shell that reads the files every period. A file that cannot
be read or used is refused as a whole, the last good configuration stays in force, and
`cortex_runtime_config_last_reload_successful` says 0. Several files merge: maps deeply, later files win.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import structlog
import yaml

from mimir_ingest.config.effective import differs, nested, to_yaml
from mimir_ingest.config.errors import ConfigError
from mimir_ingest.config.keys import Key, KeyRegistry, registry
from mimir_ingest.config.limits import Limits, limit_keys, limit_problems
from mimir_ingest.config.parse import compose_single, mapping_items
from mimir_ingest.config.values import from_node, to_plain
from mimir_ingest.obs.metrics import RuntimeConfigMetrics

_INSTANCE_SECTIONS = {
    "ingester_limits": "ingester.instance_limits.",
    "distributor_limits": "distributor.instance_limits.",
}
_MULTI_KV = {"primary": "string", "mirror_enabled": "boolean"}

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class RuntimeConfig:
    """One loaded runtime configuration. Immutable."""

    overrides: Mapping[str, Limits] = field(default_factory=lambda: MappingProxyType({}))
    """A tenant's complete limits, by tenant."""
    instance: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    """Set keys of the instance limits by full path, such as `distributor.instance_limits.max_ingestion_rate`."""
    multi_kv: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    """`multi_kv_config`; accepted, without effect."""
    sha256: str = ""
    """Hash of the files' texts."""

    def plain(self, defaults: Limits, *, diff: bool) -> dict[str, Any]:
        """Return the document of `/runtime_config`: complete limits a tenant, or with `diff` those that differ."""
        keys = limit_keys(registry())
        tree: dict[str, Any] = {}
        overrides = {}
        for tenant, limits in sorted(self.overrides.items()):
            overrides[tenant] = _limits_plain(keys, limits, defaults if diff else None)
        if overrides or not diff:
            tree["overrides"] = overrides
        if self.multi_kv or not diff:
            tree["multi_kv_config"] = {"primary": "", "mirror_enabled": None, **self.multi_kv}
        for section, prefix in _INSTANCE_SECTIONS.items():
            values = {
                path.removeprefix(prefix): value for path, value in self.instance.items() if path.startswith(prefix)
            }
            if values or not diff:
                tree[section] = values
        return tree


def _limits_plain(keys: Sequence[Key], limits: Limits, defaults: Limits | None) -> dict[str, Any]:
    shown = []
    for key in keys:
        name = key.path.removeprefix("limits.")
        if defaults is None or differs(limits.values[name], defaults.values[name]):
            shown.append((name, to_plain(key, limits.values[name])))
    return nested(shown)


def parse_runtime_config(texts: Sequence[tuple[str, str]], defaults: Limits) -> RuntimeConfig:
    """Read and merge runtime configuration files.

    Parameters
    ----------
    texts : (file name, text), in the order of `runtime_config.file`
    defaults : limits that tenants' overrides stand on

    Raises ConfigError, with file and line, for anything that cannot be used.
    """
    limit_values: dict[str, dict[str, Any]] = {}
    instance: dict[str, Any] = {}
    multi_kv: dict[str, Any] = {}
    digest = hashlib.sha256()
    for name, text in texts:
        digest.update(text.encode())
        root = compose_single(text, name=name)
        if root is None:
            continue
        for key_node, node in _items(root, name, "the runtime configuration"):
            section = key_node.value
            if section == "overrides":
                for tenant_node, limits_node in _items(node, name, section):
                    read = _read_section(limits_node, "limits.", name, f"overrides.{tenant_node.value}")
                    limit_values.setdefault(tenant_node.value, {}).update(read)
            elif section in _INSTANCE_SECTIONS:
                prefix = _INSTANCE_SECTIONS[section]
                read = _read_section(node, prefix, name, section)
                instance.update({prefix + leaf: value for leaf, value in read.items()})
            elif section == "multi_kv_config":
                multi_kv.update(_read_multi_kv(node, name))
            else:
                known = ", ".join(["overrides", *_INSTANCE_SECTIONS, "multi_kv_config"])
                raise ConfigError(
                    f'{_where(name, key_node)}: unknown key "{section}"; a runtime configuration has {known}'
                )
    overrides = {tenant: defaults.overridden(values) for tenant, values in limit_values.items()}
    for tenant, limits in overrides.items():
        if found := limit_problems(limits.values):
            raise ConfigError(f"overrides.{tenant}: {'; '.join(found)}")
    return RuntimeConfig(
        MappingProxyType(overrides), MappingProxyType(instance), MappingProxyType(multi_kv), digest.hexdigest()
    )


def _items(node: yaml.Node, name: str, what: str) -> list[tuple[yaml.ScalarNode, yaml.Node]]:
    if node.tag == "tag:yaml.org,2002:null":
        return []
    if not isinstance(node, yaml.MappingNode):
        raise ConfigError(f"{_where(name, node)}: expected {what} to be a map")
    return mapping_items(node, name=name)


def _read_section(node: yaml.Node, prefix: str, name: str, shown: str) -> dict[str, Any]:
    """Return the values of a section's keys by path below `prefix`."""
    return dict(_read_leaves(node, prefix, "", name, shown, registry()))


def _read_leaves(node: yaml.Node, prefix: str, below: str, name: str, shown: str, keys: KeyRegistry) -> Any:
    for key_node, value in _items(node, name, shown):
        path = below + key_node.value
        key = keys.by_path(prefix + path)
        if key is not None:
            try:
                yield path, from_node(key, value)
            except ValueError as err:
                raise ConfigError(f"{_where(name, key_node)}: {shown}.{path}: {err}") from None
        elif keys.is_section(prefix + path):
            yield from _read_leaves(value, prefix, f"{path}.", name, shown, keys)
        else:
            nearest = keys.nearest_path(prefix + path) or ""
            hint = f'; did you mean "{nearest.removeprefix(prefix)}"?' if nearest.startswith(prefix) else ""
            raise ConfigError(f'{_where(name, key_node)}: unknown key "{shown}.{path}"{hint}')


def _read_multi_kv(node: yaml.Node, name: str) -> dict[str, Any]:
    values = {}
    for key_node, value in _items(node, name, "multi_kv_config"):
        leaf = key_node.value
        if leaf not in _MULTI_KV:
            raise ConfigError(f'{_where(name, key_node)}: unknown key "multi_kv_config.{leaf}"')
        key = Key(leaf, None, _MULTI_KV[leaf], None, "advanced", False, "")
        try:
            values[leaf] = from_node(key, value)
        except ValueError as err:
            raise ConfigError(f"{_where(name, key_node)}: multi_kv_config.{leaf}: {err}") from None
    return values


def _where(name: str, node: yaml.Node) -> str:
    return f"{name} line {node.start_mark.line + 1}"


class RuntimeConfigWatcher:
    """Holds the runtime configuration in force and reloads it. Used from one event loop; readers may be any thread.

    Without files, every tenant has the default limits and nothing is ever reloaded.
    """

    def __init__(
        self,
        *,
        files: str,
        period_s: float,
        defaults: Limits,
        metrics: RuntimeConfigMetrics,
        read_text: Callable[[str], str] | None = None,
    ) -> None:
        self._files = [part.strip() for part in files.split(",") if part.strip()]
        self._period_s = period_s
        self._metrics = metrics
        self._read_text = read_text or _read_text
        self.defaults = defaults
        self.current: RuntimeConfig | None = None
        """The configuration in force; None before the first successful load and without files."""
        self._task: asyncio.Task[None] | None = None

    @property
    def configured(self) -> bool:
        """Whether `runtime_config.file` names any file."""
        return bool(self._files)

    def for_tenant(self, tenant: str) -> Limits:
        """Return a tenant's limits in force."""
        current = self.current
        return self.defaults if current is None else current.overrides.get(tenant, self.defaults)

    def instance_limits(self, prefix: str, main: Mapping[str, Any]) -> dict[str, Any]:
        """Return the instance limits in force by the names of `main`, which has the main configuration's values."""
        found = {} if self.current is None else self.current.instance
        return {name: found.get(prefix + name, value) for name, value in main.items()}

    def load(self) -> None:
        """Read the files now. Raises ConfigError; the configuration in force then stays."""
        try:
            loaded = parse_runtime_config([(path, self._read(path)) for path in self._files], self.defaults)
        except ConfigError:
            self._metrics.last_reload_successful.set(0)
            raise
        self._metrics.last_reload_successful.set(1)
        if self.current is None or self.current.sha256 != loaded.sha256:
            self._metrics.config_hash.clear()
            self._metrics.config_hash.labels(sha256=loaded.sha256).set(1)
            self.current = loaded

    def _read(self, path: str) -> str:
        if path.startswith(("http://", "https://")):
            raise ConfigError(f"runtime_config.file names {path}; only local files are read")
        try:
            return self._read_text(path)
        except OSError as err:
            raise ConfigError(f"cannot read runtime_config.file {path}: {err.strerror or err}") from None
        except UnicodeDecodeError as err:
            raise ConfigError(f"runtime_config.file {path} is not UTF-8: byte {err.start}") from None

    async def start(self) -> None:
        """Load once (raises ConfigError), then go on reloading every period until `close`."""
        if not self._files:
            return
        await asyncio.to_thread(self.load)
        self._task = asyncio.create_task(self._run(), name="runtime-config")

    async def close(self) -> None:
        """Stop reloading. Idempotent."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._period_s)
            try:
                await asyncio.to_thread(self.load)
            except ConfigError as err:
                _log.error("runtime configuration refused, the last good one stays in force", err=str(err))


def _read_text(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def runtime_yaml(config: RuntimeConfig, defaults: Limits, *, diff: bool) -> str:
    """Return the YAML of `/runtime_config`."""
    return to_yaml(config.plain(defaults, diff=diff))
