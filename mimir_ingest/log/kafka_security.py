"""How to be let in by Kafka: TLS and SASL settings as a value, and what aiokafka wants of them.

Not here: SASL AWS_MSK_IAM (its token needs AWS's signer, which is no dependency), tokens from an HTTP socket, and a TLS
server name other than the host's (aiokafka cannot pass one). `build_client_arguments` refuses the first by name.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiokafka.abc import AbstractTokenProvider

from mimir_ingest.errors import LogUnavailable

PASSWORD_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
_TLS_VERSIONS = {
    "VersionTLS10": ssl.TLSVersion.TLSv1,
    "VersionTLS11": ssl.TLSVersion.TLSv1_1,
    "VersionTLS12": ssl.TLSVersion.TLSv1_2,
    "VersionTLS13": ssl.TLSVersion.TLSv1_3,
}


@dataclass(frozen=True, slots=True)
class KafkaSecurity:
    """Names and meanings as in `ingest_storage.kafka`; empty texts mean "not set"."""

    tls_enabled: bool = False
    tls_ca_path: str = ""
    """Authorities to trust (PEM); the system's when empty."""
    tls_cert_path: str = ""
    tls_key_path: str = ""
    tls_insecure_skip_verify: bool = False
    tls_min_version: str = ""
    """VersionTLS10 … VersionTLS13; TLS 1.2 when empty."""
    tls_cipher_suites: str = ""
    """OpenSSL cipher list, for TLS 1.2 and below; Python's default when empty."""
    sasl_mechanism: str = "PLAIN"
    """PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 (SASL is off without a user name) or OAUTHBEARER."""
    sasl_username: str = ""
    sasl_password: str = field(default="", repr=False)
    oauthbearer_token: str = field(default="", repr=False)
    """A fixed token."""
    oauthbearer_token_path: str = ""
    """A file with the token, or JSON with a `token`, read again at every connection; wins over the fixed one."""
    oauthbearer_extensions: dict[str, str] = field(default_factory=dict)


class TokenProvider(AbstractTokenProvider):
    """Gives aiokafka the fixed token, or the file's present content."""

    def __init__(self, token: str, path: str, extensions: dict[str, str]) -> None:
        self._token = token
        self._path = path
        self._extensions = extensions

    async def token(self) -> str:
        """Return the token. Raises LogUnavailable when its file cannot be read."""
        if not self._path:
            return self._token
        try:
            text = (await asyncio.to_thread(Path(self._path).read_text)).strip()
            return json.loads(text)["token"] if text.startswith("{") else text
        except OSError as error:
            raise LogUnavailable(f"cannot read the OAUTHBEARER token file {self._path}: {error.strerror}") from error
        except (ValueError, KeyError) as error:
            raise LogUnavailable(
                f'the OAUTHBEARER token file {self._path} is neither a token nor JSON with a "token"'
            ) from error

    def extensions(self) -> dict[str, str]:
        """Return SASL extensions to send along."""
        return self._extensions


def build_client_arguments(security: KafkaSecurity) -> dict[str, Any]:
    """Return the keyword arguments for aiokafka's clients. Raises LogUnavailable when files or names do not fit."""
    with_password = bool(security.sasl_username) and security.sasl_mechanism in PASSWORD_MECHANISMS
    with_token = security.sasl_mechanism == "OAUTHBEARER"
    if security.sasl_mechanism not in (*PASSWORD_MECHANISMS, "OAUTHBEARER"):
        raise _refusal(f"SASL mechanism {security.sasl_mechanism} is not supported")
    if with_token and not (security.oauthbearer_token or security.oauthbearer_token_path):
        raise _refusal("SASL OAUTHBEARER needs a token or a token file")
    protocol = "SSL" if security.tls_enabled else "PLAINTEXT"
    arguments: dict[str, Any] = {
        "security_protocol": f"SASL_{protocol}" if with_password or with_token else protocol,
        "ssl_context": build_tls_context(security) if security.tls_enabled else None,
    }
    if with_password:
        arguments["sasl_mechanism"] = security.sasl_mechanism
        arguments["sasl_plain_username"] = security.sasl_username
        arguments["sasl_plain_password"] = security.sasl_password
    if with_token:
        arguments["sasl_mechanism"] = security.sasl_mechanism
        arguments["sasl_oauth_token_provider"] = TokenProvider(
            security.oauthbearer_token, security.oauthbearer_token_path, security.oauthbearer_extensions
        )
    return arguments


def build_tls_context(security: KafkaSecurity) -> ssl.SSLContext:
    """Return the context that the settings describe. Raises LogUnavailable when a file or name does not fit."""
    try:
        context = ssl.create_default_context(cafile=security.tls_ca_path or None)
        context.minimum_version = _TLS_VERSIONS[security.tls_min_version or "VersionTLS12"]
        if security.tls_cipher_suites:
            context.set_ciphers(security.tls_cipher_suites)
        if security.tls_cert_path:
            context.load_cert_chain(security.tls_cert_path, security.tls_key_path or None)
    except KeyError as error:
        raise _refusal(f"unknown TLS version {error}; use one of {', '.join(_TLS_VERSIONS)}") from error
    except (OSError, ssl.SSLError) as error:
        files = f"{security.tls_ca_path or 'system'}, {security.tls_cert_path}, {security.tls_key_path}"
        raise _refusal(
            f"cannot use the TLS settings for Kafka (authorities, certificate, key: {files}): {error}"
        ) from error
    if security.tls_insecure_skip_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _refusal(message: str) -> LogUnavailable:
    error = LogUnavailable(message)
    error.retriable = False
    return error
