"""An HTTP listener: uvicorn around one ASGI application, started and stopped by the composition root.

listen (the port is known) ─► serve an application ─► stop
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
from collections.abc import Iterator

import uvicorn

from mimir_ingest.api.connection import ConnectionLimits, connection_class
from mimir_ingest.api.errors import Application
from mimir_ingest.errors import IngestError

_BACKLOG = 1024


class ListenFailed(IngestError):
    """The address cannot be listened on."""

    error_id = "listen-failed"


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the composition root decides when to stop."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class HttpServer:
    """Serves an application until `stop`. Owned by the composition root, used from one event loop.

    Parameters
    ----------
    host, port : where to listen; an empty host is all addresses, port 0 a free one
    idle_timeout_s : how long an idle connection is kept open
    graceful_timeout_s : time allowed to open requests at the end
    tls : None for plain HTTP
    limits : bounds of every connection
    flags : the flags that set host and port, less `-address` and `-port`, for the advice when the address is taken
    """

    def __init__(
        self,
        *,
        host: str,
        port: int,
        idle_timeout_s: float,
        graceful_timeout_s: float,
        tls: ssl.SSLContext | None = None,
        limits: ConnectionLimits | None = None,
        flags: str = "-server.http-listen",
    ) -> None:
        self._limits = limits or ConnectionLimits()
        self._host, self._port, self._tls, self._flags = host, port, tls, flags
        self._idle_timeout_s, self._graceful_timeout_s = idle_timeout_s, graceful_timeout_s
        self._listener: socket.socket | None = None
        self._server: _Server | None = None
        self._task: asyncio.Task | None = None

    def listen(self) -> int:
        """Take the address; return the port. Connections wait until `serve`. Raises ListenFailed, saying what to do."""
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((self._host or "0.0.0.0", self._port))
            listener.listen(_BACKLOG)
        except OSError as error:
            listener.close()
            advice = (
                f"choose another port with {self._flags}-port or end the process that uses it"
                if error.errno == errno.EADDRINUSE
                else f"see {self._flags}-address and {self._flags}-port"
            )
            raise ListenFailed(
                f"cannot listen on {self._host or '0.0.0.0'}:{self._port}: {error.strerror}; {advice}"
            ) from error
        listener.setblocking(False)
        self._listener = listener
        return listener.getsockname()[1]

    async def serve(self, application: Application) -> None:
        """Answer requests, those that came since `listen` too; return once it does."""
        assert self._listener is not None, "serve comes after listen"
        config = uvicorn.Config(
            application,  # type: ignore[arg-type]
            loop="none",
            http=connection_class(self._limits),
            ws="none",
            interface="asgi3",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=max(1, int(self._idle_timeout_s)),
            timeout_graceful_shutdown=max(1, int(self._graceful_timeout_s)),
            backlog=_BACKLOG,
        )
        config.load()
        if self._tls is not None:
            config.ssl = self._tls
        self._server = _Server(config)
        self._task = asyncio.create_task(self._server.serve(sockets=[self._listener]), name="http")
        while not self._server.started and not self._task.done():  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.005)
        if self._task.done():
            await self._task

    async def stop(self) -> None:
        """Take no new requests, finish the open ones within the graceful time-out. Idempotent."""
        listener, self._listener = self._listener, None
        if self._task is None or self._server is None:
            if listener is not None:
                listener.close()
            return
        self._server.should_exit = True
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self._task = None
