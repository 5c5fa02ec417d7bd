"""Relabelling rules: what Prometheus's `relabel_config` does to a label set.

Source: Prometheus 3.14 `model/relabel`; spec ingest-storage 8.2.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import re2

from mimir_ingest.model.go_regexp import compile_anchored, expand, full_match
from mimir_ingest.model.labels import decode_label_bytes, encode_label_bytes

TENANT_LABEL = "__meta_tenant_id"
"""Label that a series has while its tenant's rules run."""

_ACTIONS = (
    "replace", "keep", "drop", "keepequal", "dropequal", "hashmod", "labelmap", "labeldrop", "labelkeep", "lowercase",
    "uppercase",
)  # fmt: skip
_FIELDS = ("source_labels", "separator", "regex", "modulus", "target_label", "replacement", "action")
_LEGACY_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_TARGET_TEMPLATE = re.compile(r"(?:(?:[a-zA-Z_]|\$(?:\{\w+\}|\w+))+\w*)+")


@dataclass(frozen=True, slots=False)
class RelabelRule:
    """One `relabel_config`."""

    source_labels: tuple[str, ...] = ()
    separator: str = ";"
    regex: str = "(.*)"
    modulus: int = 0
    target_label: str = ""
    replacement: str = "$1"
    action: str = "replace"

    @classmethod
    def from_yaml(cls, fields: Mapping[str, Any]) -> RelabelRule:
        """Read one entry of the configuration. Raises ValueError, in Prometheus's words where it has them."""
        unknown = [name for name in fields if name not in _FIELDS]
        if unknown:
            raise ValueError(f"field {unknown[0]} not found in type relabel.plain")
        given = {name: value for name, value in fields.items() if value is not None}
        given["source_labels"] = tuple(given.get("source_labels", ()))
        rule = cls(**given | {"action": str(given.get("action", "replace")).lower()})
        problem = rule._problem()
        if problem:
            raise ValueError(problem)
        return rule

    def _problem(self) -> str | None:
        action, target = self.action, self.target_label
        if action not in _ACTIONS:
            return f'unknown relabel action "{action}"'
        try:
            compile_anchored(self.regex)
        except (re2.error, UnicodeEncodeError):
            return f"error parsing regexp {self.regex!r}"
        if action == "hashmod" and self.modulus == 0:
            return "relabel configuration for hashmod requires non-zero modulus"
        if action in ("replace", "hashmod", "lowercase", "uppercase", "keepequal", "dropequal") and not target:
            return f"relabel configuration for {action} action requires 'target_label' value"
        literal = action in ("lowercase", "uppercase", "keepequal", "dropequal", "hashmod")
        if target and not (_LEGACY_NAME if literal else _TARGET_TEMPLATE).fullmatch(target):
            return f"\"{target}\" is invalid 'target_label' for {action} action"
        default = RelabelRule(action=action)
        if action in ("lowercase", "uppercase") and self.replacement != default.replacement:
            return f"'replacement' can not be set for {action} action"
        if action in ("keepequal", "dropequal"):
            same = replace(default, source_labels=self.source_labels, target_label=target)
            if self != same:
                return f"{action} action requires only 'source_labels' and `target_label`, and no other fields"
        if action in ("labeldrop", "labelkeep") and self != replace(default, regex=self.regex):
            return f"{action} action requires only 'regex', and no other fields"
        return None

    @cached_property
    def _regexp(self) -> re2._Regexp:
        return compile_anchored(self.regex)

    def apply(self, labels: dict[str, str]) -> bool:
        """Change a label set in place; return whether the series stays."""
        match self.action:
            case "labelmap" | "labeldrop" | "labelkeep":
                self._rename(labels)
                return True
        value = self.separator.join(labels.get(name, "") for name in self.source_labels)
        match self.action:
            case "keepequal":
                return labels.get(self.target_label, "") == value
            case "dropequal":
                return labels.get(self.target_label, "") != value
            case "lowercase":
                labels[self.target_label] = value.lower()
                return True
            case "uppercase":
                labels[self.target_label] = value.upper()
                return True
            case "hashmod":
                digest = hashlib.md5(value.encode("utf-8", "surrogateescape"), usedforsecurity=False).digest()
                labels[self.target_label] = str(int.from_bytes(digest[8:], "big") % self.modulus)
                return True
        found = full_match(self._regexp, value)
        if self.action == "keep":
            return found is not None
        if self.action == "drop":
            return found is None
        if found is not None:
            self._replace(labels, found)
        return True

    def _replace(self, labels: dict[str, str], found: re2._Match) -> None:
        target = expand(self._regexp, found, self.target_label)
        if not _LEGACY_NAME.fullmatch(target):
            return
        value = expand(self._regexp, found, self.replacement)
        if value:
            labels[target] = value
        else:
            labels.pop(target, None)

    def _rename(self, labels: dict[str, str]) -> None:
        for name, value in list(labels.items()):
            found = full_match(self._regexp, name)
            if self.action == "labelmap" and found is not None:
                labels[expand(self._regexp, found, self.replacement)] = value
            elif self.action != "labelmap" and (self.action == "labeldrop") == (found is not None):
                del labels[name]


def parse_rules(entries: Sequence[Mapping[str, Any]]) -> tuple[RelabelRule, ...]:
    """Read `metric_relabel_configs`. Raises ValueError."""
    return tuple(RelabelRule.from_yaml(entry) for entry in entries)


@dataclass(frozen=True, slots=True)
class Relabelling:
    """All that a tenant's configuration does to labels."""

    rules: tuple[RelabelRule, ...] = ()
    drop_labels: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.rules or self.drop_labels)

    def apply(self, label_bytes: bytes, tenant: str) -> bytes | None:
        """Return the label bytes of a series afterwards, or None if it is dropped or has no labels left.

        A series with a repeated name or bytes that are no UTF-8 stays as it is: validation says what is wrong with it.
        """
        labels = dict(decode_label_bytes(label_bytes))
        if encode_label_bytes(labels) != label_bytes:
            return label_bytes
        if self.rules:
            labels[TENANT_LABEL] = tenant
            for rule in self.rules:
                if not rule.apply(labels):
                    return None
            labels.pop(TENANT_LABEL, None)
        for name in self.drop_labels:
            labels.pop(name, None)
        return encode_label_bytes(labels) or None


NO_RELABELLING = Relabelling()
"""Leaves every series as it is."""
