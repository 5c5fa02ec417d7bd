"""The HTTP listener: uvicorn around one ASGI application, started and stopped by the composition root."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
from collections.abc import Iterator

import uvicorn

from mimir_ingest.errors import IngestError


class ListenFailed(IngestError):
    """The address cannot be listened on."""

    error_id = "listen-failed"


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the composition root decides when to stop."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class HttpServer:
    """Serves an application from `start` to `stop`. Owned by the composition root, used from one event loop."""

    def __init__(
        self,
        application: object,
        *,
        host: str,
        port: int,
        idle_timeout_s: float,
        graceful_timeout_s: float,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._host, self._port, self._tls = host, port, tls
        self._graceful_timeout_s = graceful_timeout_s
        self._config = uvicorn.Config(
            application,  # type: ignore[arg-type]
            loop="none",
            http="httptools",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=max(1, int(idle_timeout_s)),
            timeout_graceful_shutdown=max(1, int(graceful_timeout_s)),
            backlog=1024,
        )
        self._server = _Server(self._config)
        self._task: asyncio.Task | None = None

    async def start(self) -> int:
        """Listen and serve; return the port. Raises ListenFailed, saying what to change."""
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((self._host or "0.0.0.0", self._port))
        except OSError as error:
            listener.close()
            advice = (
                "choose another port with -server.http-listen-port or end the process that uses it"
                if error.errno == errno.EADDRINUSE
                else "see -server.http-listen-address and -server.http-listen-port"
            )
            raise ListenFailed(
                f"cannot listen on {self._host or '0.0.0.0'}:{self._port}: {error.strerror}; {advice}"
            ) from error
        listener.setblocking(False)
        self._config.load()
        if self._tls is not None:
            self._config.ssl = self._tls
        self._task = asyncio.create_task(self._server.serve(sockets=[listener]), name="http")
        while not self._server.started and not self._task.done():  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.005)
        if self._task.done():
            await self._task
        return listener.getsockname()[1]

    async def stop(self) -> None:
        """Take no new requests, finish the open ones within the graceful time-out. Idempotent."""
        if self._task is None:
            return
        self._server.should_exit = True
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        self._task = None
