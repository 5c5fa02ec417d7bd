"""Numbering of byte strings in plain Python."""

from __future__ import annotations

from collections.abc import Iterable


class PlainTable:
    """Distinct strings, numbered as they come."""

    def __init__(self) -> None:
        self.numbers: dict[bytes, int] = {}

    def find(self, keys: Iterable[bytes]) -> list[int]:
        return [self.numbers.get(key, -1) for key in keys]

    def intern(self, keys: Iterable[bytes]) -> list[int]:
        return [self.numbers.setdefault(key, len(self.numbers)) for key in keys]
