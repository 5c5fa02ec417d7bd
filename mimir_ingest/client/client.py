"""The calls."""

from __future__ import annotations

import base64
import json
import ssl
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote, urlencode

from mimir_ingest.client.errors import ClientFailure
from mimir_ingest.client.results import QueryResult
from mimir_ingest.client.transport import Reply, Transport
from mimir_ingest.wire.offsets_header import READ_CONSISTENCY_OFFSETS, decode_offsets, encode_offsets

if TYPE_CHECKING:
    import pandas as pd

_ARROW = "application/vnd.apache.arrow.stream"
_FORM = {"Content-Type": "application/x-www-form-urlencoded"}

Time = datetime | int | float | str
"""A datetime (naive: UTC), which pandas' timestamps are; seconds since the epoch; or RFC 3339."""
Duration = timedelta | int | float | str
"""A timedelta, seconds, or Prometheus's form (`1m30s`)."""


class Client:
    """One tenant's view of one server. Any number of threads may share it.

    Parameters
    ----------
    url : str
        Of the server, such as `http://localhost:9009`, with `server.path_prefix` if it has one.
    tenant : str, optional
        `X-Scope-OrgID`; None where the server does not ask for it.
    user, password : str, optional
        Basic authentication.
    token : str, optional
        Bearer authentication, instead.
    timeout_s : float
        Bounds every wait for the server, and how long it works on a query.
    prometheus_prefix : str
        The server's `-http.prometheus-http-prefix`.
    tls : ssl.SSLContext, optional
        For https:// with own authorities or a client certificate.
    """

    def __init__(
        self,
        url: str,
        *,
        tenant: str | None = None,
        user: str | None = None,
        password: str = "",
        token: str | None = None,
        timeout_s: float = 120.0,
        prometheus_prefix: str = "/prometheus",
        tls: ssl.SSLContext | None = None,
    ) -> None:
        headers = {"User-Agent": "mimir-ingest-client"}
        if tenant is not None:
            headers["X-Scope-OrgID"] = tenant
        if user is not None:
            headers["Authorization"] = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
        elif token is not None:
            headers["Authorization"] = f"Bearer {token}"
        self._transport = Transport(url, headers=headers, timeout_s=timeout_s, tls=tls)
        self._timeout_s = timeout_s
        self._api = f"/{prometheus_prefix.strip('/')}/api/v1"

    # --- queries ----------------------------------------------------------------------------------------------------

    def query(
        self,
        expression: str,
        at: Time | None = None,
        *,
        after: Mapping[int, int] | None = None,
        consistency: Literal["strong", "eventual"] | None = None,
        **parameters: str | int,
    ) -> QueryResult:
        """Evaluate an expression at one time, now unless told otherwise.

        Parameters
        ----------
        after : mapping, optional
            Partition → offset that the query has to see: what `push` returned, or another result's `offsets`.
        consistency : optional
            `strong`: everything that was acknowledged before; None: as the tenant's settings say.
        **parameters
            Others of the API: `limit`, `lookback_delta`, `stats`, `partial_response`.

        Raises ApiError, NotReached, and ClientFailure for a server that knows no Arrow.
        """
        asked = {"query": expression, **({} if at is None else {"time": _time(at)})}
        return self._result("/query", asked, parameters, after, consistency)

    def query_range(
        self,
        expression: str,
        start: Time,
        end: Time,
        step: Duration,
        *,
        after: Mapping[int, int] | None = None,
        consistency: Literal["strong", "eventual"] | None = None,
        **parameters: str | int,
    ) -> QueryResult:
        """Evaluate an expression at `start`, `start + step`, … up to `end`; the rest as of `query`."""
        asked = {"query": expression, "start": _time(start), "end": _time(end), "step": _duration(step)}
        return self._result("/query_range", asked, parameters, after, consistency)

    def _result(
        self,
        path: str,
        asked: Mapping[str, str],
        parameters: Mapping[str, str | int],
        after: Mapping[int, int] | None,
        consistency: str | None,
    ) -> QueryResult:
        form = {"timeout": f"{self._timeout_s:g}", **asked, **{name: str(value) for name, value in parameters.items()}}
        headers = {**_FORM, "Accept": _ARROW}
        if after:
            headers[READ_CONSISTENCY_OFFSETS] = encode_offsets(after)
        if consistency is not None:
            headers["X-Read-Consistency"] = consistency
        reply = self._transport.send(self._api + path, body=urlencode(form).encode(), headers=headers)
        if reply.headers.get("Content-Type") != _ARROW:
            raise ClientFailure("the server does not answer in Arrow: it is not this program, or an older one")
        return QueryResult.of(reply.body, _offsets(reply))

    # --- series and labels ------------------------------------------------------------------------------------------

    def series(
        self, match: str | Sequence[str], start: Time | None = None, end: Time | None = None, *, limit: int = 0
    ) -> list[dict[str, str]]:
        """Return the label sets that one of the selectors matches. Raises ApiError, NotReached."""
        return self._list("/series", match, start, end, limit)

    def labels(
        self, match: str | Sequence[str] = (), start: Time | None = None, end: Time | None = None, *, limit: int = 0
    ) -> list[str]:
        """Return the label names in use, of all series or those of the selectors. Raises ApiError, NotReached."""
        return self._list("/labels", match, start, end, limit)

    def label_values(
        self,
        name: str,
        match: str | Sequence[str] = (),
        start: Time | None = None,
        end: Time | None = None,
        *,
        limit: int = 0,
    ) -> list[str]:
        """Return a label's values in use, of all series or those of the selectors. Raises ApiError, NotReached."""
        return self._list(f"/label/{_escape_name(name)}/values", match, start, end, limit)

    def _list(self, path: str, match: str | Sequence[str], start: Time | None, end: Time | None, limit: int) -> list:
        selectors: Iterable[str] = [match] if isinstance(match, str) else match
        pairs = [("match[]", selector) for selector in selectors]
        pairs += [(key, _time(at)) for key, at in (("start", start), ("end", end)) if at is not None]
        if limit:
            pairs.append(("limit", str(limit)))
        query = f"?{urlencode(pairs)}" if pairs else ""
        return json.loads(self._transport.send(self._api + path + query).body)["data"]

    # --- writes -----------------------------------------------------------------------------------------------------

    def push(self, frame: pd.DataFrame) -> dict[int, int]:
        """Write the samples of a frame, one a row (remote write 1.0); return where they are: partition → last offset.

        `timestamp` and `value` are the samples' columns, all others labels, `__name__` among them; a missing or empty
        label is none. Times without a zone are UTC. Pass what is returned as `after` to read what was written. Raises
        ValueError for a frame that is not like this, ApiError, NotReached.
        """
        # why: encoding loads the compiled kernels, which readers need not wait for.
        from mimir_ingest.client.write import encode_frame

        headers = {
            "Content-Type": "application/x-protobuf",
            "Content-Encoding": "snappy",
            "X-Prometheus-Remote-Write-Version": "0.1.0",
        }
        return _offsets(self._transport.send("/api/v1/push", body=encode_frame(frame), headers=headers))


def _offsets(reply: Reply) -> dict[int, int]:
    return decode_offsets(reply.headers.get(READ_CONSISTENCY_OFFSETS) or "v1=") or {}


def _time(at: Time) -> str:
    if isinstance(at, datetime):
        return f"{(at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp():.3f}"
    return str(at)


def _duration(duration: Duration) -> str:
    return repr(duration.total_seconds()) if isinstance(duration, timedelta) else str(duration)


def _escape_name(name: str) -> str:
    """Return a label name as it stands in a path; names beyond `[a-zA-Z0-9_]` in Prometheus's escaped form."""
    if name.isascii() and name.replace("_", "a").isalnum() and not name.startswith("U__"):
        return quote(name)
    escaped = (c if c.isascii() and c.isalnum() else "__" if c == "_" else f"_{ord(c):X}_" for c in name)
    return "U__" + "".join(escaped)
