"""TLS between processes, and what is said about settings that cannot be used."""

from __future__ import annotations

import ssl

import pytest
from cryptography.hazmat.primitives import serialization
from prometheus_client import CollectorRegistry

from mimir_ingest.api.errors import Answer
from mimir_ingest.api.server import HttpServer
from mimir_ingest.config.errors import ConfigError
from mimir_ingest.config.keys import registry
from mimir_ingest.config.parse import parse_flags
from mimir_ingest.config.sections import TlsSection
from mimir_ingest.config.settings import build
from mimir_ingest.errors import OwnerUnavailable
from mimir_ingest.obs.querier_metrics import IngesterClientMetrics
from mimir_ingest.querier.ingester_client import IngesterClient
from mimir_ingest.tls import ServerTls, client_tls
from mimir_ingest.watched_files import WatchedFiles
from tests.support.certificates import write_authority

NAME = "server.grpc_tls_config"


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return write_authority(tmp_path_factory.mktemp("tls"))


def section(**values: str) -> TlsSection:
    names = ("cert", "key", "client_ca", "cert_file", "key_file", "client_auth_type", "client_ca_file")
    return TlsSection(**{name: str(values.get(name, "")) for name in names})


def server(authority, **more: str) -> ServerTls:
    bundle = authority.server_bundle_file
    given = {"cert_file": bundle, "key_file": bundle} | more
    bounds = {name: given.pop(name, "") for name in ("min_version", "cipher_suites")}
    return ServerTls(section(**given), name=NAME, **bounds)


def client(*flags: str) -> tuple[ssl.SSLContext | None, str]:
    config = build(parse_flags(flags, registry()).explicit).ingester_client.grpc_client_config
    return client_tls(config), config.tls_server_name


async def lags(tls: ServerTls, context: ssl.SSLContext | None, server_name: str, host: str = "127.0.0.1"):
    async def application(scope, receive, send):
        await Answer(200, b'{"data": []}').send(send)

    listener = HttpServer(host="127.0.0.1", port=0, idle_timeout_s=5, graceful_timeout_s=5, tls=tls.context)
    port = listener.listen()
    await listener.serve(application)
    metrics = IngesterClientMetrics.create(CollectorRegistry())
    try:
        async with IngesterClient(metrics, tls=context, server_name=server_name) as owners:
            return await owners.owner("ingester-0", f"{host}:{port}").lags("t")
    finally:
        await listener.stop()


async def test_processes_that_have_certificates_of_one_authority_reach_each_other(authority, tmp_path):
    tls = server(authority, client_auth_type="RequireAndVerifyClientCert", client_ca_file=authority.ca_file)
    enabled, trusting = "-ingester.client.tls-enabled", f"-ingester.client.tls-ca-path={authority.ca_file}"
    certificate = [
        f"-ingester.client.tls-cert-path={authority.client_cert_file}",
        f"-ingester.client.tls-key-path={authority.client_key_file}",
    ]
    assert await lags(tls, *client(enabled, trusting, *certificate)) == []
    named = client(enabled, trusting, *certificate, "-ingester.client.tls-server-name=localhost")
    assert await lags(tls, *named) == []
    assert await lags(tls, *client(enabled, "-ingester.client.tls-insecure-skip-verify", *certificate)) == []
    stranger = write_authority(tmp_path)
    foreign = [
        f"-ingester.client.tls-cert-path={stranger.client_cert_file}",
        f"-ingester.client.tls-key-path={stranger.client_key_file}",
    ]
    for refused in (
        client(),
        client(enabled, *certificate),
        client(enabled, trusting),
        client(enabled, trusting, *foreign),
        client(enabled, trusting, *certificate, "-ingester.client.tls-server-name=other"),
    ):
        with pytest.raises(OwnerUnavailable, match="ingester-0"):
            await lags(tls, *refused)
    tls.context.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(OwnerUnavailable, match="ingester-0"):
        await lags(tls, *client(enabled, trusting, *certificate, "-ingester.client.tls-min-version=VersionTLS13"))


async def test_a_certificate_that_is_given_is_verified_and_none_need_be(authority, tmp_path):
    tls = server(authority, client_auth_type="VerifyClientCertIfGiven", client_ca_file=authority.ca_file)
    trusting = ["-ingester.client.tls-enabled", f"-ingester.client.tls-ca-path={authority.ca_file}"]
    assert await lags(tls, *client(*trusting)) == []
    stranger = write_authority(tmp_path)
    foreign = [
        f"-ingester.client.tls-cert-path={stranger.client_cert_file}",
        f"-ingester.client.tls-key-path={stranger.client_key_file}",
    ]
    with pytest.raises(OwnerUnavailable, match="ingester-0"):
        await lags(tls, *client(*trusting, *foreign))


async def test_certificates_may_stand_in_the_configuration_itself(authority):
    bundle = authority.server_bundle_file.read_text()
    tls = ServerTls(section(cert=bundle, key=bundle), name=NAME, min_version="", cipher_suites="")
    assert tls.files == ()
    flags = ["-ingester.client.tls-enabled", f"-ingester.client.tls-ca-path={authority.ca_file}"]
    assert await lags(tls, *client(*flags)) == []


async def test_cipher_suites_have_gos_names(authority):
    tls = server(authority, cipher_suites="TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, TLS_AES_128_GCM_SHA256")
    names = {cipher["name"] for cipher in tls.context.get_ciphers() if cipher["protocol"] == "TLSv1.2"}
    assert names == {"ECDHE-RSA-AES256-GCM-SHA384"}
    assert server(authority, min_version="VersionTLS13").context.minimum_version == ssl.TLSVersion.TLSv1_3
    assert server(authority).context.minimum_version == ssl.TLSVersion.TLSv1_2


async def test_a_renewed_certificate_serves_the_next_connection_and_a_broken_one_does_not(tmp_path):
    old, new = write_authority(tmp_path / "old"), write_authority(tmp_path / "new")
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(old.server_bundle_file.read_bytes())
    tls = ServerTls(section(cert_file=str(bundle), key_file=str(bundle)), name=NAME, min_version="", cipher_suites="")
    watched = WatchedFiles(tls.files, tls.reload, period_s=60)
    trusts_old, trusts_new = (
        client("-ingester.client.tls-enabled", f"-ingester.client.tls-ca-path={one.ca_file}") for one in (old, new)
    )
    assert not watched.check()
    assert await lags(tls, *trusts_old) == []
    bundle.write_bytes(b"half")
    assert watched.check()
    assert await lags(tls, *trusts_old) == []
    bundle.write_bytes(new.server_bundle_file.read_bytes())
    assert watched.check()
    assert await lags(tls, *trusts_new) == []
    with pytest.raises(OwnerUnavailable):
        await lags(tls, *trusts_old)


def test_files_that_are_no_certificates_are_refused_with_key_file_and_what_is_needed(authority, tmp_path):
    empty = tmp_path / "empty.pem"
    empty.touch()
    for more in ({"cert_file": empty}, {"key_file": empty}, {"key_file": authority.client_key_file}):
        with pytest.raises(ConfigError, match=r"server\.grpc_tls_config\.cert_file .* cannot be used: .*; a PEM cert"):
            server(authority, **more)
    with pytest.raises(ConfigError, match="no such file or directory"):
        server(authority, cert_file="/nowhere")
    with pytest.raises(ConfigError, match=r"client_ca_file \(.*empty\.pem\) is not a PEM file with authorities"):
        server(authority, client_auth_type="RequireAndVerifyClientCert", client_ca_file=empty)
    with pytest.raises(ConfigError, match=r"tls_ca_path \(.*\) is not a PEM file with authorities"):
        client("-ingester.client.tls-enabled", f"-ingester.client.tls-ca-path={empty}")
    with pytest.raises(ConfigError, match=r"tls_cert_path \(.*\) and tls_key_path \(.*\) cannot be used"):
        client(
            "-ingester.client.tls-enabled",
            f"-ingester.client.tls-cert-path={authority.client_cert_file}",
            f"-ingester.client.tls-key-path={empty}",
        )


def test_an_encrypted_key_is_refused_and_nobody_is_asked_for_its_password(authority, tmp_path):
    key = serialization.load_pem_private_key(authority.client_key_file.read_bytes(), None)
    encrypted = tmp_path / "key.pem"
    lock = serialization.BestAvailableEncryption(b"secret")
    form = serialization.PrivateFormat.PKCS8
    encrypted.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, lock))
    with pytest.raises(ConfigError, match="cannot be used"):
        server(authority, cert_file=authority.client_cert_file, key_file=encrypted)


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["-server.http-tls-client-auth=RequestClientCert"], "takes any certificate unverified"),
        (["-server.http-tls-client-auth=Yes"], "it takes NoClientCert, VerifyClientCertIfGiven or"),
        (["-server.http-tls-ca-path=x"], "asks for no client certificates"),
        (["-server.grpc-tls-cert-path=x"], "server.grpc_tls_config.cert_file and"),
        (["-server.grpc-tls-client-auth=RequireAndVerifyClientCert"], "client_ca_file must be set"),
        (["-server.tls-min-version=TLS12"], "it takes VersionTLS10, VersionTLS11, VersionTLS12, VersionTLS13"),
        (["-server.tls-cipher-suites=RC4"], 'server.tls_cipher_suites names "RC4"'),
        (["-ingester.client.tls-cert-path=x"], "tls_cert_path and ingester_client.grpc_client_config.tls_key_path"),
        (["-server.admin-listen-port=8080"], "server.admin_listen_port and server.http_listen_port are both 8080"),
        (["-server.admin-listen-port=70000"], "a port is 0 to 65535"),
        (["-server.http-read-timeout=-1s"], "server.http_server_read_timeout is -1s; it cannot be negative"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(flags, says):
    with pytest.raises(ConfigError) as refused:
        build(parse_flags(flags, registry()).explicit)
    assert says in str(refused.value)
