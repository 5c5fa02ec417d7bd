"""The listeners of one process, from settings to servers: tenants', operators' and the cluster's own.

    http       server.http_listen_*     tenants' routes; operators' too where there is no listener for them
    admin      server.admin_listen_*    operators' routes, if its port is set
    internal   server.grpc_listen_*     what the cluster's processes ask each other

The first two share TLS, credentials and bounds. Files are read when the process starts, so that one that cannot be used
ends it, and again when they change.
"""

from __future__ import annotations

from mimir_ingest.api.application import Applications
from mimir_ingest.api.connection import ConnectionLimits
from mimir_ingest.api.credentials import CredentialChecker
from mimir_ingest.api.errors import Application
from mimir_ingest.api.server import HttpServer
from mimir_ingest.config.sections import ServerSection, TlsSection
from mimir_ingest.config.settings import Settings
from mimir_ingest.ring_wiring import internal_host
from mimir_ingest.tls import ServerTls, server_tls
from mimir_ingest.watched_files import WatchedFiles


class Listeners:
    """Owned by the composition root: `listen`, then the `serve…`s, then the `stop…`s."""

    def __init__(self, settings: Settings) -> None:
        """Read certificates and credentials. Raises ConfigError for what cannot be used."""
        server = settings.server
        tls = _tls(server, server.http_tls_config, "server.http_tls_config")
        internal_tls = _tls(server, server.grpc_tls_config, "server.grpc_tls_config")
        file = settings.auth.credentials_file
        self.credentials = CredentialChecker(file) if file else None
        period_s = settings.runtime_config.period.seconds
        self._watches = [WatchedFiles(one.files, one.reload, period_s=period_s) for one in (tls, internal_tls) if one]
        if self.credentials is not None:
            self._watches.append(WatchedFiles([file], self.credentials.reload, period_s=period_s))
        context = tls.context if tls else None
        limits, patience = _limits(server), _patience(server)
        self._http = HttpServer(
            host=server.http_listen_address, port=server.http_listen_port, tls=context, limits=limits, **patience
        )
        self._admin: HttpServer | None = None
        if server.admin_listen_port:
            self._admin = HttpServer(
                host=server.admin_listen_address,
                port=server.admin_listen_port,
                tls=context,
                limits=limits,
                flags="-server.admin-listen",
                **patience,
            )
        self._internal = HttpServer(
            host=internal_host(settings),
            port=server.grpc_listen_port,
            tls=internal_tls.context if internal_tls else None,
            # The cluster's own processes may take their time to read long answers.
            limits=ConnectionLimits(read_timeout_s=limits.read_timeout_s),
            flags="-server.grpc-listen",
            **patience,
        )

    def listen(self, *, internal: bool) -> tuple[int, int | None]:
        """Take the addresses; return the ports of tenants' and of the internal listener. Raises ListenFailed."""
        port = self._http.listen()
        if self._admin is not None:
            self._admin.listen()
        return port, self._internal.listen() if internal else None

    async def serve(self, applications: Applications) -> None:
        """Answer tenants and operators, and watch the files."""
        await self._http.serve(applications.http)
        if self._admin is not None and applications.admin is not None:
            await self._admin.serve(applications.admin)
        for watch in self._watches:
            await watch.start()

    async def serve_internal(self, application: Application) -> None:
        """Answer the cluster's processes."""
        await self._internal.serve(application)

    async def stop(self) -> None:
        """Take no new requests of tenants and operators, finish the open ones. Idempotent."""
        for watch in self._watches:
            await watch.close()
        await self._http.stop()
        if self._admin is not None:
            await self._admin.stop()

    async def stop_internal(self) -> None:
        """The same for the cluster's processes."""
        await self._internal.stop()


def _tls(server: ServerSection, tls: TlsSection, name: str) -> ServerTls | None:
    return server_tls(tls, name=name, min_version=server.tls_min_version, cipher_suites=server.tls_cipher_suites)


def _limits(server: ServerSection) -> ConnectionLimits:
    return ConnectionLimits(
        read_timeout_s=server.http_server_read_timeout.seconds,
        read_header_timeout_s=server.http_server_read_header_timeout.seconds,
        write_timeout_s=server.http_server_write_timeout.seconds,
        connections=server.http_listen_conn_limit,
    )


def _patience(server: ServerSection) -> dict[str, float]:
    return {
        "idle_timeout_s": server.http_server_idle_timeout.seconds,
        "graceful_timeout_s": server.graceful_shutdown_timeout.seconds,
    }
