"""Profiles as `pprof` reads them: one `Profile` message of `profile.proto` (spec http-api.md 3.11; google/pprof)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple


class Frame(NamedTuple):
    """A place in a stack."""

    function: str
    file: str
    line: int


Stack = tuple[Frame, ...]
"""The innermost frame first."""

ValueKind = tuple[str, str]
"""What a value counts, and its unit: `("cpu", "nanoseconds")`."""


def encode_profile(
    kinds: Sequence[ValueKind],
    samples: Mapping[Stack, Sequence[int]],
    *,
    time_ns: int,
    duration_ns: int = 0,
    period_ns: int = 0,
) -> bytes:
    """Return the message, not compressed.

    Parameters
    ----------
    kinds : sequence of ValueKind
        Of the values of every sample.
    samples : mapping of Stack to sequence of int
        Values of each stack, as many as kinds.
    time_ns, duration_ns : int
        When it was taken (ns since the Unix epoch), and for how long (ns; 0 for what stands at one moment).
    period_ns : int
        Time between two looks (ns), in the unit of the last kind; 0 if there were no looks.
    """
    names = _Names()
    locations: dict[Frame, int] = {}
    functions: dict[tuple[str, str], int] = {}
    rows = [b"".join(_message(1, _value_type(names, *kind)) for kind in kinds)]
    for stack, values in samples.items():
        places = [locations.setdefault(frame, len(locations) + 1) for frame in stack]
        rows.append(_message(2, _packed(1, places) + _packed(2, values)))
    for frame, number in locations.items():
        function = functions.setdefault((frame.function, frame.file), len(functions) + 1)
        line = _number(1, function) + _number(2, max(frame.line, 0))
        rows.append(_message(4, _number(1, number) + _message(4, line)))
    for (function_name, file), number in functions.items():
        name = names.of(function_name)
        rows.append(_message(5, _number(1, number) + _number(2, name) + _number(3, name) + _number(4, names.of(file))))
    period = _message(11, _value_type(names, *kinds[-1])) + _number(12, period_ns) if period_ns else b""
    times = _number(9, time_ns) + _number(10, duration_ns)
    strings = b"".join(_message(6, text.encode("utf-8", "replace")) for text in names.table)
    return b"".join(rows) + strings + times + period


class _Names:
    """The table of strings, which begins with the empty one."""

    def __init__(self) -> None:
        self.table = {"": 0}

    def of(self, text: str) -> int:
        return self.table.setdefault(text, len(self.table))


def _value_type(names: _Names, kind: str, unit: str) -> bytes:
    return _number(1, names.of(kind)) + _number(2, names.of(unit))


def _varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _message(field: int, content: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(content)) + content


def _packed(field: int, values: Iterable[int]) -> bytes:
    return _message(field, b"".join(map(_varint, values)))
