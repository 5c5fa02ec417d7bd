"""Requests of the client: one at a time, with the standard library."""

from __future__ import annotations

import gzip
import http.client
import ssl
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass

from mimir_ingest.client.errors import ApiError, NotReached


@dataclass(frozen=True, slots=True)
class Reply:
    """A successful answer."""

    headers: Mapping[str, str]
    """Names match in any case."""
    body: bytes


class Transport:
    """Sends requests to one server. Any number of threads may share it."""

    def __init__(
        self, base_url: str, *, headers: Mapping[str, str], timeout_s: float, tls: ssl.SSLContext | None
    ) -> None:
        """`headers` go with every request; `timeout_s` bounds each wait for the server; `tls` None: the system's."""
        if not base_url.startswith(("http://", "https://")):
            raise ValueError(f"{base_url!r} is no http:// or https:// address")
        self._base_url = base_url.rstrip("/")
        self._headers = dict(headers)
        self._timeout_s = timeout_s
        handlers = [urllib.request.HTTPSHandler(context=tls)] if tls is not None else []
        self._opener = urllib.request.build_opener(*handlers)

    def send(self, path: str, *, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> Reply:
        """GET a path, or POST a body to it. Raises ApiError, NotReached."""
        request = urllib.request.Request(
            self._base_url + path, data=body, headers={**self._headers, "Accept-Encoding": "gzip", **(headers or {})}
        )
        try:
            with self._opener.open(request, timeout=self._timeout_s) as answer:
                return Reply(answer.headers, _plain(answer.read(), answer.headers))
        except urllib.error.HTTPError as error:
            with error:
                body = _plain(error.read(), error.headers)
            raise ApiError.of(error.code, body, error.headers.get("Retry-After")) from None
        except urllib.error.URLError as error:
            raise NotReached(f"{self._base_url}: {error.reason}") from error
        except (OSError, http.client.HTTPException) as error:
            raise NotReached(f"{self._base_url}: {error or type(error).__name__}") from error


def _plain(body: bytes, headers: Mapping[str, str]) -> bytes:
    return gzip.decompress(body) if headers.get("Content-Encoding") == "gzip" else body
