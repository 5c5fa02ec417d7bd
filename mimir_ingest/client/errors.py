"""What a call of the client raises besides ValueError for arguments that cannot be sent."""

from __future__ import annotations

import json
import re

_ERROR_ID = re.compile(r"\((err-mimir-[a-z0-9-]+)\)")


class ClientFailure(Exception):
    """A call has no result."""


class NotReached(ClientFailure):
    """No answer: the connection could not be made or broke, or the time was over."""


class ApiError(ClientFailure):
    """The server answered with an error."""

    def __init__(self, status: int, message: str, *, error_type: str = "", retry_after_s: float | None = None) -> None:
        super().__init__(f"{status} {error_type}: {message}" if error_type else f"{status}: {message}")
        self.status = status
        """HTTP status."""
        self.message = message
        self.error_type = error_type
        """Prometheus's `errorType` (`bad_data`, `execution`, `timeout` …), empty where the server gave none."""
        found = _ERROR_ID.search(message)
        self.error_id = found[1] if found else ""
        """Mimir's id of the error (`err-mimir-…`), empty where the message has none."""
        self.retry_after_s = retry_after_s
        """Seconds after which to try again, if the server said so."""

    @classmethod
    def of(cls, status: int, body: bytes, retry_after: str | None) -> ApiError:
        """Return the error of an answer; its body is Prometheus's envelope, or text."""
        after_s = float(retry_after) if retry_after and retry_after.isascii() and retry_after.isdecimal() else None
        try:
            document = json.loads(body)
        except (ValueError, RecursionError):
            document = None
        if isinstance(document, dict) and "error" in document:
            message, kind = str(document["error"]), str(document.get("errorType", ""))
            return cls(status, message, error_type=kind, retry_after_s=after_s)
        return cls(status, body.decode("utf-8", "replace").strip(), retry_after_s=after_s)
