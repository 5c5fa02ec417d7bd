"""Values that never change, and cost little to make.

`dataclass(frozen=True)` sets every field through a check: four times as long as setting it, and a small query makes
thirty values. So the type checker forbids the change, and not the interpreter (decision 22).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

_Class = TypeVar("_Class")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def frozen(cls: type[_Class]) -> type[_Class]:
    """Make a class of slots whose values compare, hash and print by their fields, which are never set again."""
    return dataclass(slots=True, unsafe_hash=True)(cls)
