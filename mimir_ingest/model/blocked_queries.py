"""Rules by which a tenant's queries are blocked (`blocked_queries`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import re2

from mimir_ingest.model.go_regexp import compile_anchored, full_match


@dataclass(frozen=True, slots=True)
class BlockedQuery:
    """One rule."""

    pattern: str
    """The whole expression, blanks around it aside, or a regular expression for it."""
    regex: bool = False
    reason: str = ""
    """Shown to who asks."""

    def matches(self, expression: str) -> bool:
        """Whether the rule blocks an expression; a pattern that is no regular expression blocks nothing as one."""
        if self.pattern.strip() == expression.strip():
            return True
        if not self.regex:
            return False
        try:
            return full_match(compile_anchored(self.pattern), expression) is not None
        except (re2.error, UnicodeEncodeError):
            return False


def parse_blocked_queries(rules: Iterable[Mapping[str, Any]] | None) -> tuple[BlockedQuery, ...]:
    """Read the rules of a configuration. Raises ValueError for one that is no mapping with a pattern."""
    parsed = []
    for rule in rules or ():
        if not isinstance(rule, Mapping) or not isinstance(rule.get("pattern"), str):
            raise ValueError(f"{rule!r} is no rule: it needs a pattern")
        parsed.append(BlockedQuery(rule["pattern"], bool(rule.get("regex", False)), str(rule.get("reason") or "")))
    return tuple(parsed)
