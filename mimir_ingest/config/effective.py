"""The effective configuration: a value for every key, where it came from, and the three YAML views of `/config`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import yaml

from mimir_ingest.config.keys import Key, KeyRegistry
from mimir_ingest.config.parse import Explicit, Source
from mimir_ingest.config.stand_ins import stand_in
from mimir_ingest.config.values import to_plain

Mode = Literal["full", "diff", "defaults"]
_COMMON = "common.storage."
_OWNERSHIP = "ingester.partition_ring.ownership"
_STORES = ("blocks_storage.", "ruler_storage.", "alertmanager_storage.")


@dataclass(frozen=True, slots=True)
class Notice:
    """One explicitly set key that has no effect."""

    key: str
    """YAML path, or the flag for program flags of Mimir's."""
    instead: str
    """What stands in its place."""


@dataclass(frozen=True, slots=True)
class EffectiveConfig:
    """Every key's value. Immutable."""

    registry: KeyRegistry
    values: Mapping[str, Any]
    """Value by path, all keys of the registry."""
    sources: Mapping[str, Source]
    """Where a value was set, by path; keys left alone are missing."""

    def plain(self, mode: Mode = "full") -> dict[str, Any]:
        """Return the tree as plain maps with secrets masked: everything, what differs from the defaults, or these."""
        if mode == "defaults":
            return nested((key.path, to_plain(key, key.default)) for key in self.registry)
        keys: Iterable[Key] = self.registry
        if mode == "diff":
            keys = [key for key in self.registry if differs(self.values[key.path], key.default)]
        return nested((key.path, to_plain(key, self.values[key.path])) for key in keys)

    def yaml(self, mode: Mode = "full") -> str:
        """Return the tree as a YAML document."""
        return to_yaml(self.plain(mode))

    def notices(self, used: frozenset[str]) -> list[Notice]:
        """Return a notice for every explicitly set key without effect, in the order of the registry."""
        unused = [key.path for key in self.registry if key.path in self.sources and key.path not in used]
        return [Notice(path, stand_in(path)) for path in unused if not _fills_a_used_key(path, used)]


def effective_config(registry: KeyRegistry, explicit: Explicit) -> EffectiveConfig:
    """Fill in what was not said: `common.storage` into the object stores, then what follows from other keys."""
    values = {key.path: explicit.values.get(key.path, key.default) for key in registry}
    sources = explicit.sources
    for path in explicit.values:
        for store in _STORES if path.startswith(_COMMON) else ():
            target = store + path.removeprefix(_COMMON)
            # A common flag counts more than the section's key in a file, as any flag does; the section's flag most.
            taken = sources.get(target) in ("flag", sources[path])
            if target in values and not taken:
                values[target] = explicit.values[path]
    if "ingest_storage.log" not in sources and values["ingest_storage.kafka.address"]:
        values["ingest_storage.log"] = "kafka"
    if "ingest_storage.record_format" not in sources and "ingest_storage.kafka.producer_record_version" in sources:
        values["ingest_storage.record_format"] = "mimir"
    if _OWNERSHIP not in sources and values["target"] != "all":
        values[_OWNERSHIP] = "instance-id"
    return EffectiveConfig(registry, values, dict(sources))


def _fills_a_used_key(path: str, used: frozenset[str]) -> bool:
    return path.startswith(_COMMON) and "blocks_storage." + path.removeprefix(_COMMON) in used


def differs(value: Any, default: Any) -> bool:
    """Compare by value and type; lists as a whole, floats and ints of the same value are equal."""
    return value != default or isinstance(value, bool) != isinstance(default, bool)


def nested(items: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Return dotted paths as nested maps, in the order given."""
    tree: dict[str, Any] = {}
    for path, value in items:
        *sections, leaf = path.split(".")
        node = tree
        for section in sections:
            node = node.setdefault(section, {})
        node[leaf] = value
    return tree


def to_yaml(tree: Any) -> str:
    """Print plain maps as YAML, in their own order."""
    return yaml.dump(tree, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1 << 20)


class _Dumper(yaml.SafeDumper):
    """Like Go's printer where it matters: empty strings as "", no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.Node:
    represent: Callable[..., yaml.Node] = dumper.represent_scalar
    return represent("tag:yaml.org,2002:str", text, style='"' if text == "" else None)


_Dumper.add_representer(str, _represent_text)
