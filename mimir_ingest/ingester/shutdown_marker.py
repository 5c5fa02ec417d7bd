"""The file that says that this ingester was asked to leave for good (spec: ingest storage, section 7.2)."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path

FILE_NAME = "shutdown-requested.txt"


class ShutdownMarker:
    """The marker in a folder; survives the process. Blocking, a few system calls each."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / FILE_NAME

    def exists(self) -> bool:
        """Whether the marker is there. Raises OSError when that cannot be told."""
        try:
            self.path.stat()
        except FileNotFoundError:
            return False
        return True

    def create(self, now_ms: int) -> None:
        """Write the marker with a time (ms since the Unix epoch), whole or not at all; a new one replaces an old one.

        Raises OSError.
        """
        folder = self.path.parent
        folder.mkdir(parents=True, exist_ok=True)
        temporary = self.path.with_suffix(".tmp")
        with temporary.open("w") as file:
            file.write(datetime.fromtimestamp(now_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.path)
        _sync_folder(folder)

    def remove(self) -> None:
        """Remove the marker; none there is fine. Raises OSError."""
        self.path.unlink(missing_ok=True)
        if self.path.parent.exists():
            _sync_folder(self.path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
