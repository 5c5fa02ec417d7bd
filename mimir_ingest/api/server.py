"""An HTTP listener for one ASGI application, started and stopped by the composition root.

listen (the port is known) ─► serve an application ─► stop
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl

import structlog

from mimir_ingest.api.connection import Connection, ConnectionLimits, ListenerState
from mimir_ingest.api.errors import Application
from mimir_ingest.errors import IngestError

_BACKLOG = 1024
_LOOK_S = 0.01
_CANCEL_S = 1.0
_log = structlog.get_logger()


class ListenFailed(IngestError):
    """The address cannot be listened on."""

    error_id = "listen-failed"


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
        self._server: asyncio.AbstractServer | None = None
        self._state: ListenerState | None = None
        self._sweeper: asyncio.Task[None] | None = None

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
        """Answer requests, those that came since `listen` too."""
        assert self._listener is not None, "serve comes after listen"
        state = self._state = ListenerState(
            application, self._limits, idle_timeout_s=self._idle_timeout_s, tls=self._tls is not None
        )
        self._server = await asyncio.get_running_loop().create_server(
            lambda: Connection(state), sock=self._listener, ssl=self._tls, backlog=_BACKLOG
        )
        self._sweeper = asyncio.create_task(_sweep(state), name="deadlines of connections")

    def abort(self) -> None:
        """Break every connection."""
        for connection in list(self._state.connections) if self._state is not None else ():
            connection.transport.abort()

    async def stop(self) -> None:
        """Take no new requests, finish the open ones within the graceful time-out. Idempotent."""
        listener, self._listener = self._listener, None
        if listener is None:
            return
        if self._server is None or self._state is None or self._sweeper is None:
            listener.close()
            return
        self._server.close()
        listener.close()
        await _finish(self._state, within_s=self._graceful_timeout_s)
        self.abort()
        self._sweeper.cancel()


async def _sweep(state: ListenerState) -> None:
    while True:
        await asyncio.sleep(state.sweep_interval_s)
        state.sweep()


async def _finish(state: ListenerState, *, within_s: float) -> None:
    """Let every connection end; cancel what takes longer than `within_s`."""
    state.stopping = True
    for connection in list(state.connections):
        connection.shutdown()
    deadline = state.loop.time() + within_s
    while (state.connections or state.running) and state.loop.time() < deadline:  # noqa: ASYNC110 - two sets
        await asyncio.sleep(_LOOK_S)
    tasks = [exchange.task for exchange in state.running if exchange.task is not None]
    if tasks:
        _log.warning("requests cancelled: the graceful shutdown took too long", requests=len(tasks))
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=_CANCEL_S)
