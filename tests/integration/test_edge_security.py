"""A program whose listeners ask who is there: TLS with client certificates, credentials, operators' routes apart."""

from __future__ import annotations

import hashlib
import ssl
import time
from collections import Counter

import bcrypt
import httpx
import pytest

from tests.fuzz.connections import Target, judge, no_handshakes
from tests.fuzz.hostile_requests import framing
from tests.support import remote_write
from tests.support.certificates import write_authority
from tests.support.peers import pick_free_port
from tests.support.program import Program

TOKEN, OTHER_TOKEN, ROOT_TOKEN = "grafana-token", "team-b-token", "root-token"


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def credentials(password: str) -> str:
    return f"""
basic_auth_users:
  prometheus: {bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()}
bearer_tokens:
  grafana: {sha256(TOKEN)}
  other: {sha256(OTHER_TOKEN)}
  operator: {sha256(ROOT_TOKEN)}
tenants:
  prometheus: [team-a]
  grafana: [team-a, team-b]
  other: [team-b]
  operator: ["*"]
"""


def bearer(token: str, tenant: str | None = None) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} | ({"X-Scope-OrgID": tenant} if tenant else {})


class Secured:
    """The program with its authority and clients."""

    def __init__(self, folder) -> None:
        self.authority = write_authority(folder / "ours")
        self.stranger = write_authority(folder / "a stranger's")
        self.file = folder / "credentials.yaml"
        self.file.write_text(credentials("secret"))
        bundle = str(self.authority.server_bundle_file)
        self.admin_port, self.internal_port = pick_free_port(), pick_free_port()
        ca = str(self.authority.ca_file)
        self.program = Program(
            folder / "program",
            f"-server.http-tls-cert-path={bundle}",
            f"-server.http-tls-key-path={bundle}",
            "-server.http-tls-client-auth=RequireAndVerifyClientCert",
            f"-server.http-tls-ca-path={ca}",
            f"-server.grpc-tls-cert-path={bundle}",
            f"-server.grpc-tls-key-path={bundle}",
            "-server.grpc-tls-client-auth=RequireAndVerifyClientCert",
            f"-server.grpc-tls-ca-path={ca}",
            f"-server.grpc-listen-port={self.internal_port}",
            "-server.admin-listen-address=127.0.0.1",
            f"-server.admin-listen-port={self.admin_port}",
            f"-auth.credentials-file={self.file}",
            "-runtime-config.reload-period=100ms",
            multitenancy=True,
        )
        self.program.http = self.client(self.program.port)
        self.admin = self.client(self.admin_port)

    def context(self, authority=None, *, with_certificate: bool = True) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.authority.ca_file))
        if with_certificate:
            authority = authority or self.authority
            context.load_cert_chain(authority.client_cert_file, authority.client_key_file)
        return context

    def client(self, port: int, context: ssl.SSLContext | None = None) -> httpx.Client:
        return httpx.Client(base_url=f"https://127.0.0.1:{port}", verify=context or self.context(), timeout=30)


@pytest.fixture(scope="module")
def secured(tmp_path_factory):
    secured = Secured(tmp_path_factory.mktemp("secured"))
    with secured.program as program:
        program.start()
        yield secured
        assert program.stop() == 0


def test_a_client_without_our_certificate_gets_no_connection(secured):
    for port in (secured.program.port, secured.admin_port, secured.internal_port):
        for context in (secured.context(with_certificate=False), secured.context(secured.stranger)):
            with pytest.raises(httpx.TransportError), secured.client(port, context) as client:
                client.get("/ready")
        with pytest.raises(httpx.TransportError):
            httpx.get(f"http://127.0.0.1:{port}/ready")


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
def test_old_versions_of_tls_are_refused(secured):
    context = secured.context()
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    with pytest.raises(httpx.TransportError), secured.client(secured.program.port, context) as client:
        client.get("/ready")


def test_without_credentials_there_is_nothing_but_readiness(secured):
    for client in (secured.program.http, secured.admin):
        assert client.get("/ready").status_code == 200
    for client, path in ((secured.program.http, "/prometheus/api/v1/query?query=1"), (secured.admin, "/metrics")):
        for headers in ({}, bearer("wrong"), {"Authorization": "Basic !"}, {"Authorization": f"Token {TOKEN}"}):
            answer = client.get(path, headers=headers)
            assert (answer.status_code, answer.text) == (401, "unauthorized\n")
            assert answer.headers.get_list("www-authenticate") == [
                'Basic realm="mimir-ingest"',
                'Bearer realm="mimir-ingest"',
            ]
        for auth in (("prometheus", "wrong"), ("nobody", "secret"), ("prometheus", "")):
            assert client.get(path, auth=auth).status_code == 401


def test_everybody_acts_as_their_own_tenants_only(secured):
    at_ms = int(time.time() * 1000)
    client = secured.program.http
    body = remote_write.body([({"__name__": "up"}, [(at_ms, 7.0)])])
    headers = {"Content-Encoding": "snappy", "Content-Type": "application/x-protobuf"}

    def push(auth=None, **more):
        return client.post("/api/v1/push", content=body, headers=headers | more, auth=auth)

    def values(token, tenant=None):
        answer = client.get("/prometheus/api/v1/query?query=up", headers=bearer(token, tenant))
        assert answer.status_code == 200, answer.text
        return [row["value"][1] for row in answer.json()["data"]["result"]]

    assert push(("prometheus", "secret")).status_code == 200  # its one tenant need not be named
    assert push(("prometheus", "secret"), **{"X-Scope-OrgID": "team-a"}).status_code == 200
    refused = push(("prometheus", "secret"), **{"X-Scope-OrgID": "team-b"})
    assert (refused.status_code, refused.text) == (403, "prometheus may not act as tenant 'team-b'\n")
    assert push(None, **bearer(TOKEN)).status_code == 401  # which of the two?
    assert values(TOKEN, "team-a") == values(ROOT_TOKEN, "team-a") == ["7"]
    assert values(TOKEN, "team-b") == values(OTHER_TOKEN) == []
    foreign = client.get("/prometheus/api/v1/query?query=up", headers=bearer(OTHER_TOKEN, "team-a"))
    assert foreign.status_code == 403
    two = httpx.Headers([("Authorization", f"Bearer {ROOT_TOKEN}"), ("Authorization", f"Bearer {TOKEN}")])
    assert client.get("/prometheus/api/v1/query?query=up", headers=two).status_code == 401
    smuggled = httpx.Headers([*bearer(OTHER_TOKEN, "team-b").items(), ("X-Scope-OrgID", "team-a")])
    answer = client.get("/prometheus/api/v1/query?query=up", headers=smuggled)
    assert answer.json()["data"]["result"] == []


OPERATORS = ["/", "/metrics", "/config", "/services", "/ingester/ring", "/distributor/ring", "/ingester/partition-ring"]


def test_operators_routes_are_on_their_own_listener_and_for_operators(secured):
    client, admin = secured.program.http, secured.admin
    for path in OPERATORS:
        assert client.get(path, headers=bearer(ROOT_TOKEN)).status_code == 404
        assert admin.get(path, headers=bearer(ROOT_TOKEN)).status_code == 200
        assert admin.get(path, headers=bearer(TOKEN, "team-a")).status_code == 403
    for path in ("/ingester/flush", "/ingester/shutdown", "/ingester/prepare-shutdown"):
        assert client.post(path, headers=bearer(ROOT_TOKEN)).status_code == 404
        assert admin.post(path, headers=bearer(TOKEN, "team-a")).status_code == 403
    assert admin.get("/prometheus/api/v1/query?query=1", headers=bearer(ROOT_TOKEN, "t")).status_code == 404
    for path in ("/api/..%2fmetrics", "/api/v1/..%2f..%2fconfig", "/api%2f../config"):
        assert client.get(path, headers=bearer(ROOT_TOKEN)).status_code == 404
    assert client.get("/api/../config", headers=bearer(ROOT_TOKEN)).status_code == 404


def test_a_querier_in_another_process_reads_the_heads_with_its_certificate(secured, tmp_path):
    """Both processes are on one embedded log and one bucket."""
    at_ms = int(time.time() * 1000)
    body = remote_write.body([({"__name__": "between_processes"}, [(at_ms, 1.0)])])
    headers = {"Content-Encoding": "snappy", "Content-Type": "application/x-protobuf"}
    pushed = secured.program.http.post("/api/v1/push", content=body, headers=headers, auth=("prometheus", "secret"))
    assert pushed.status_code == 200
    data = secured.program.directory / "data"
    shared = [
        "-target=querier",
        f"-ingest-storage.embedded.path={data / 'log'}",
        f"-blocks-storage.filesystem.dir={data / 'blocks'}",
    ]
    tls = ["-ingester.client.tls-enabled", f"-ingester.client.tls-ca-path={secured.authority.ca_file}"]
    certificate = [
        f"-ingester.client.tls-cert-path={secured.authority.client_cert_file}",
        f"-ingester.client.tls-key-path={secured.authority.client_key_file}",
    ]
    with Program(tmp_path, *shared, *tls, *certificate, multitenancy=True).start() as querier:
        assert len(querier.query("between_processes", at_ms=at_ms, tenant="team-a")) == 1
        assert querier.stop() == 0


def test_hostile_clients_get_answers_and_leave_nothing_behind(secured):
    """A part of `python -m tests.fuzz.connections`, which takes longer."""
    client, statuses = secured.program.http, Counter()
    for port in (secured.program.port, secured.admin_port, secured.internal_port):
        target = Target(f"https://127.0.0.1:{port}", secured.program.process.pid, secured.context())
        assert list(no_handshakes(target)) == []
        for name, data in framing().items():
            if name != "only line ends":  # no request, and none is refused
                assert judge(target, data, statuses, briefly=True)[0] == "", name
    assert statuses.total() > 150
    assert client.get("/ready").status_code == 200
    assert "Traceback" not in secured.program.log_path.read_text()


def test_changed_credentials_count_without_a_restart_and_bad_ones_do_not(secured):
    client, path = secured.program.http, "/prometheus/api/v1/query?query=1"

    def wait_for(status: int) -> None:
        deadline = time.monotonic() + 120
        while client.get(path, auth=("prometheus", "new")).status_code != status:
            assert time.monotonic() < deadline
            time.sleep(0.05)

    assert client.get(path, auth=("prometheus", "secret")).status_code == 200
    secured.file.write_text(credentials("new"))
    wait_for(200)
    assert client.get(path, auth=("prometheus", "secret")).status_code == 401
    secured.file.write_text("basic_auth_users: {prometheus: plain}")
    deadline = time.monotonic() + 120
    while "changed files refused" not in secured.program.log_path.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert client.get(path, auth=("prometheus", "new")).status_code == 200
    assert "plain" not in secured.program.log_tail(100_000)
    secured.file.write_text(credentials("secret"))
    wait_for(401)
