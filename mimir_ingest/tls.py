"""TLS of the listeners and of the client between processes, from Mimir's keys to Python's contexts.

Certificates and keys given as files are read again when they change (`watched_files`), so that a renewed certificate
serves the next connection; an authority that is to be trusted no more needs a restart.
"""

from __future__ import annotations

import os
import ssl
import tempfile
from pathlib import Path

from mimir_ingest.config.errors import ConfigError
from mimir_ingest.config.sections import GrpcClientSection, TlsSection
from mimir_ingest.config.tls_names import CIPHERS, TLS13_CIPHERS, suites

_VERSIONS = {
    "VersionTLS10": ssl.TLSVersion.TLSv1,
    "VersionTLS11": ssl.TLSVersion.TLSv1_1,
    "VersionTLS12": ssl.TLSVersion.TLSv1_2,
    "VersionTLS13": ssl.TLSVersion.TLSv1_3,
}
_CLIENT_AUTH = {
    "": ssl.CERT_NONE,
    "NoClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}
"""Mimir's `client_auth_type`; Python cannot ask for a certificate without verifying it, as two others do."""

_NO_PASSWORD = ""
"""For a key that is encrypted. why: without one OpenSSL asks at the terminal, and the process waits."""


class ServerTls:
    """The TLS of one listener. `files` name what `reload` reads.

    Parameters
    ----------
    tls : `server.http_tls_config` or `server.grpc_tls_config`
    name : that path, for errors
    min_version, cipher_suites : `server.tls_min_version`, `server.tls_cipher_suites`

    Raises ConfigError for what cannot be used, saying which key.
    """

    def __init__(self, tls: TlsSection, *, name: str, min_version: str, cipher_suites: str) -> None:
        self._tls, self._name = tls, name
        self.files = tuple(path for path in (tls.cert_file, tls.key_file, tls.client_ca_file) if path)
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        _restrict(self.context, min_version, cipher_suites, "server")
        self.context.verify_mode = _CLIENT_AUTH[tls.client_auth_type]
        self.reload()

    def reload(self) -> None:
        """Read certificate, key and authorities. Raises ConfigError; the context is then as it was."""
        tls = self._tls
        self._load_chain(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER))  # a bad pair must not reach the context in use
        self._load_chain(self.context)
        try:
            if tls.client_ca_file or tls.client_ca:
                self.context.load_verify_locations(tls.client_ca_file or None, cadata=tls.client_ca or None)
        except (OSError, ssl.SSLError) as error:
            named = f"client_ca_file ({tls.client_ca_file})" if tls.client_ca_file else "client_ca"
            raise ConfigError(f"{self._name}.{named} is not a PEM file with authorities: {_cause(error)}") from error

    def _load_chain(self, context: ssl.SSLContext) -> None:
        tls, key = self._tls, self._tls.key.get_secret_value()
        named = f"cert_file ({tls.cert_file}) and key_file ({tls.key_file})" if tls.cert_file else "cert and key"
        try:
            with tempfile.TemporaryDirectory() as folder:  # OpenSSL reads files only
                cert_file = tls.cert_file or _written(folder, "cert.pem", tls.cert)
                key_file = tls.key_file or _written(folder, "key.pem", key)
                context.load_cert_chain(cert_file, key_file, _NO_PASSWORD)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"{self._name}.{named} cannot be used: {_cause(error)}; a PEM certificate and its key are needed"
            ) from error


def server_tls(tls: TlsSection, *, name: str, min_version: str, cipher_suites: str) -> ServerTls | None:
    """Return a listener's TLS, None for plain HTTP. Raises ConfigError; see `ServerTls`."""
    if not (tls.cert_file or tls.cert):
        return None
    return ServerTls(tls, name=name, min_version=min_version, cipher_suites=cipher_suites)


def client_tls(client: GrpcClientSection) -> ssl.SSLContext | None:
    """Return the TLS of requests to other processes, None for plain HTTP. Raises ConfigError for unusable files."""
    if not client.tls_enabled:
        return None
    name = "ingester_client.grpc_client_config"
    try:
        context = ssl.create_default_context(cafile=client.tls_ca_path or None)
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(
            f"{name}.tls_ca_path ({client.tls_ca_path}) is not a PEM file with authorities: {_cause(error)}"
        ) from error
    _restrict(context, client.tls_min_version, client.tls_cipher_suites, name)
    if client.tls_cert_path:
        try:
            context.load_cert_chain(client.tls_cert_path, client.tls_key_path, _NO_PASSWORD)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(
                f"{name}.tls_cert_path ({client.tls_cert_path}) and tls_key_path ({client.tls_key_path}) cannot be "
                f"used: {_cause(error)}"
            ) from error
    if client.tls_insecure_skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _restrict(context: ssl.SSLContext, min_version: str, cipher_suites: str, section: str) -> None:
    context.minimum_version = _VERSIONS[min_version or "VersionTLS12"]
    wanted = [CIPHERS[name] for name in suites(cipher_suites) if name not in TLS13_CIPHERS]
    if wanted:
        try:
            context.set_ciphers(":".join(wanted))
        except ssl.SSLError as error:
            raise ConfigError(f"{section}.tls_cipher_suites: OpenSSL has none of {cipher_suites}") from error


def _written(folder: str, name: str, text: str) -> str:
    path = Path(folder, name)
    path.touch(0o600)
    path.write_text(text)
    return str(path)


def _cause(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).lower().replace("_", " ")
    return os.strerror(error.errno).lower() if error.errno else str(error)
