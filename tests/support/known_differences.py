"""The list of conformance cases that do not pass, with the reason for each."""

from __future__ import annotations

import re
from pathlib import Path

KNOWN_DIFFERENCES = Path(__file__).parents[1] / "conformance" / "KNOWN_DIFFERENCES.md"
_ENTRY = re.compile(r"- ``(.+?)``: (\S.*)")


def read_known_differences(section: str, path: Path = KNOWN_DIFFERENCES) -> dict[str, str]:
    """Return reason by case of the section `## <section>`; an entry is the line ``- ``<case>``: <reason>``.

    Raises `ValueError` for a section that is not there or a list line that is no entry.
    """
    entries: dict[str, str] = {}
    inside = found = False
    for line in path.read_text().splitlines():
        if line.startswith("## "):
            inside = line[3:].strip() == section
            found |= inside
        elif inside and line.startswith("- "):
            entry = _ENTRY.fullmatch(line)
            if entry is None:
                raise ValueError(f"{path.name}: no entry: {line!r}")
            entries[entry[1]] = entry[2]
    if not found:
        raise ValueError(f"{path.name} has no section {section!r}")
    return entries
