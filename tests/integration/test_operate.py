"""Operating one process: its pages, its configuration, its logs, and how it starts and ends."""

import json
import re
import signal
import subprocess
import time
from html.parser import HTMLParser

import pytest
import yaml

from mimir_ingest import __version__
from tests.support.program import Program
from tests.support.remote_write import body

SERVICES = [
    *("bucket", "bucket-upkeep", "distributor", "ingester", "internal-server"),
    *("log", "querier", "ring", "runtime-config", "server"),
]
SELF = {"X-Scope-OrgID": "mimir-ingest-self"}


def eventually(ask, timeout_s=120):
    """Return the first answer that is true."""
    deadline = time.monotonic() + timeout_s
    while not (answer := ask()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return answer


def logged(program):
    """Every log line as a mapping; what does not parse as logfmt fails."""
    pair = re.compile(r'([^\s="]+)=("(?:[^"\\]|\\.)*"|[^\s="]*)')
    events = []
    for line in program.log_path.read_text().splitlines():
        if line.startswith("ts="):
            assert re.fullmatch(rf"{pair.pattern}( {pair.pattern})*", line), line
            found = pair.findall(line)
            events.append({name: json.loads(value) if value.startswith('"') else value for name, value in found})
    return events


def states(program):
    return [(e["service"], e["state"]) for e in logged(program) if e["msg"] == "service state changed"]


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    flags = ["-self-monitoring.enabled=true", "-self-monitoring.interval=1s", "-log.level=debug"]
    with Program(tmp_path_factory.mktemp("operate"), *flags, multitenancy=True) as program:
        yield program.start()


class Links(HTMLParser):
    """The links and forms of a page."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag == "form":
            self.found.append((attributes["method"].upper(), attributes["action"]))
        elif tag in ("a", "link") and attributes.get("href"):
            self.found.append(("GET", attributes["href"]))


def test_it_is_ready_and_all_services_run(program):
    assert program.http.get("/ready").text == "ready"
    rows = program.http.get("/services", headers={"Accept": "application/json"}).json()["services"]
    assert rows == [{"name": name, "status": "Running"} for name in SERVICES]
    page = program.http.get("/services").text
    assert "Services&#39; status" in page or "Services' status" in page


def test_every_link_of_the_index_page_answers(program):
    page = program.http.get("/")
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    links = Links(page.text).found
    assert {path for _, path in links} >= {"services", "config", "config?mode=diff", "metrics", "ready"}
    answers = {
        (method, path): program.http.request(method, f"/{path.removeprefix('./')}").status_code
        for method, path in links
        if path != "ingester/shutdown"
    }
    assert answers == {key: 204 if key[0] == "POST" else 200 for key in answers}
    assert ("POST", "ingester/flush") in answers


@pytest.mark.parametrize("prefix", ["", "/prometheus"])
def test_build_info_is_where_grafana_asks_for_it(program, prefix):
    answer = program.http.get(f"{prefix}/api/v1/status/buildinfo").json()
    assert (answer["status"], answer["data"]["version"]) == ("success", __version__)


def test_the_configuration_is_shown_in_three_views(program):
    views = {
        mode: yaml.safe_load(program.http.get(f"/config{mode}").text) for mode in ("", "?mode=diff", "?mode=defaults")
    }
    assert views[""]["server"]["http_listen_port"] == program.port
    assert views["?mode=diff"]["server"] == {
        "http_listen_address": "127.0.0.1",
        "http_listen_port": program.port,
        "grpc_listen_address": "127.0.0.1",
        "grpc_listen_port": 0,
        "log_level": "debug",
    }
    assert views["?mode=defaults"]["server"]["http_listen_port"] == 8080


@pytest.mark.peer
def test_promtool_finds_nothing_wrong_with_the_metrics(program, promtool_bin):
    program.push(body([({"__name__": "up"}, [(int(time.time() * 1000), 1.0)])]), tenant="team-a")
    text = program.http.get("/metrics").text
    done = subprocess.run([promtool_bin, "check", "metrics"], input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_requests_are_counted_by_the_names_of_their_routes(program):
    program.push(body([({"__name__": "up"}, [(int(time.time() * 1000), 1.0)])]), tenant="team-a")
    program.query("up", at_ms=0, tenant="team-a")
    program.http.get("/prometheus/api/v1/label/a/values", headers=SELF)
    program.http.get("/made/up")
    program.http.request("BREW", "/ready")
    counted = program.http.get("/metrics").text
    for method, route, status in [
        ("POST", "api_v1_push", 200),
        ("GET", "prometheus_api_v1_query", 200),
        ("GET", "prometheus_api_v1_label_name_values", 200),
        ("GET", "other", 404),
    ]:
        assert (
            f'cortex_request_duration_seconds_count{{method="{method}",route="{route}",status_code="{status}",ws="false"}}'
            in counted
        )
    assert "made" not in counted
    assert "BREW" not in counted


def test_its_own_metrics_can_be_queried(program):
    def ask(query):
        answer = program.http.get("/prometheus/api/v1/query", params={"query": query}, headers=SELF)
        return answer.json()["data"]["result"]

    (up,) = eventually(lambda: ask("up"))
    assert up["metric"]["job"] == "mimir-ingest"
    assert up["value"][1] == "1"
    assert eventually(lambda: ask("sum(cortex_distributor_received_samples_total) > 0"))


def test_served_requests_are_logged_at_level_debug(program):
    program.http.get("/ready?secret=x")

    def served():
        return [e for e in logged(program) if e["msg"] == "request served" and e["path"] == "/ready"]

    event = eventually(served)[-1]
    assert (event["level"], event["method"], event["status"]) == ("debug", "GET", "200")
    assert re.fullmatch(r"[\d.]+ms", event["duration"])
    assert "secret" not in program.log_path.read_text()


def test_a_limit_changes_without_a_restart(tmp_path):
    overrides = tmp_path / "overrides.yaml"

    def allow(rate, burst):
        limits = {"ingestion_rate": rate, "ingestion_burst_size": burst}
        whole = tmp_path / "overrides.new"
        whole.write_text(yaml.safe_dump({"overrides": {"team-a": limits}}))
        whole.replace(overrides)

    def push():
        now_ms = int(time.time() * 1000)
        return program.push(body([({"__name__": f"m{i}"}, [(now_ms, 1.0)]) for i in range(10)]), tenant="team-a")

    allow(100_000, 100_000)
    flags = [f"-runtime-config.file={overrides}", "-runtime-config.reload-period=100ms"]
    with Program(tmp_path / "program", *flags, multitenancy=True).start() as program:
        assert push().status_code == 200
        allow(1, 15)
        refused = eventually(lambda: answer if (answer := push()).status_code != 200 else None)
        assert refused.status_code == 429
        assert refused.text.startswith(
            "the request has been rejected because the tenant exceeded the ingestion rate limit, set to 1 items/s with "
            "a maximum allowed burst of 15. This limit is applied on the total number of samples, exemplars and "
            "metadata received across all distributors (err-mimir-tenant-max-ingestion-rate). To adjust the related "
            "per-tenant limits, configure -distributor.ingestion-rate-limit and -distributor.ingestion-burst-size, or "
            "contact your service administrator."
        )
        assert "retry-after" in refused.headers
        allow(200_000, 300_000)
        assert eventually(lambda: push().status_code == 200)
        shown = yaml.safe_load(program.http.get("/runtime_config?mode=diff").text)
        assert shown == {"overrides": {"team-a": {"ingestion_rate": 200_000, "ingestion_burst_size": 300_000}}}
        overrides.write_text("overrides: [")
        assert eventually(lambda: "cortex_runtime_config_last_reload_successful 0" in program.http.get("/metrics").text)
        assert push().status_code == 200


MIMIR_CONFIG = """
target: all
multitenancy_enabled: ${MULTITENANCY:true}
usage_stats: {enabled: false}
activity_tracker: {filepath: /data/activity.log}
common:
  storage:
    backend: filesystem
    filesystem: {dir: ${BUCKET_DIR}}
server:
  http_listen_address: 127.0.0.1
  http_listen_port: ${HTTP_PORT}
  grpc_listen_port: 9095
  log_level: ${LOG_LEVEL:info}
memberlist:
  join_members: [mimir-1:7946, mimir-2:7946]
  bind_port: 7946
  abort_if_cluster_join_fails: false
distributor:
  ring: {kvstore: {store: memberlist}}
  ha_tracker: {enable_ha_tracker: false}
ingester:
  ring:
    kvstore: {store: memberlist}
    replication_factor: 3
    zone_awareness_enabled: true
    min_ready_duration: 0s
ingester_client: {grpc_client_config: {grpc_compression: snappy}}
blocks_storage:
  storage_prefix: blocks
  tsdb: {dir: tsdb, retention_period: 24h, head_compaction_interval: 5m}
  bucket_store:
    sync_dir: /data/tsdb-sync
    chunks_cache: {backend: memcached}
compactor:
  data_dir: /data/compactor
  compaction_interval: 30m
  sharding_ring: {kvstore: {store: memberlist}}
store_gateway: {sharding_ring: {replication_factor: 3}}
frontend:
  parallelize_shardable_queries: true
  results_cache: {backend: memcached, memcached: {addresses: "dns+memcached:11211"}}
query_scheduler: {service_discovery_mode: ring}
querier: {query_store_after: 12h}
ruler: {rule_path: /data/ruler}
ruler_storage: {backend: filesystem, filesystem: {dir: /data/rules}}
alertmanager: {data_dir: /data/alertmanager, external_url: "http://localhost:9009/alertmanager"}
alertmanager_storage: {backend: filesystem}
overrides_exporter: {ring: {kvstore: {store: memberlist}}}
limits:
  ingestion_rate: 5e4
  max_global_series_per_user: 2000000
  accept_ha_samples: false
  compactor_blocks_retention_period: 1y
  ruler_max_rules_per_rule_group: 50
"""


def test_a_mimir_users_file_starts_unchanged_with_a_notice_for_each_key_without_effect(tmp_path, monkeypatch):
    file = tmp_path / "mimir.yaml"
    file.write_text(MIMIR_CONFIG)
    program = Program(tmp_path / "program")
    program.flags = [f"-config.file={file}", "-config.expand-env=true", "-self-monitoring.enabled=false"]
    monkeypatch.setenv("HTTP_PORT", str(program.port))
    monkeypatch.setenv("BUCKET_DIR", str(tmp_path / "bucket"))
    with program.start():
        shown = yaml.safe_load(program.http.get("/config").text)
        assert shown["server"]["http_listen_port"] == program.port
        assert shown["limits"]["ingestion_rate"] == 50000
        answer = program.push(body([({"__name__": "up"}, [(int(time.time() * 1000), 1.0)])]), tenant="team-a")
        assert (answer.status_code, answer.text) == (200, "")
        assert program.http.post("/ingester/flush?wait=true").status_code == 204
        assert (tmp_path / "bucket" / "blocks" / "team-a").is_dir()
        notices = {
            e["key"]: e["instead"] for e in logged(program) if e["msg"] == "configuration key has no effect here"
        }
    assert {
        "memberlist.join_members",
        "ruler.rule_path",
        "alertmanager.data_dir",
        "compactor.compaction_interval",
        "ingester.ring.replication_factor",
        "blocks_storage.tsdb.retention_period",
        "frontend.results_cache.backend",
        "store_gateway.sharding_ring.replication_factor",
    } <= set(notices)
    assert all(notices.values())
    assert not set(notices) & {"server.http_listen_port", "limits.ingestion_rate", "common.storage.filesystem.dir"}


def test_sigterm_ends_an_idle_process_at_once_in_order_with_code_0(tmp_path):
    # The ingester waits for records for ten minutes at a time; stopping must not.
    with Program(tmp_path, "-ingest-storage.kafka.fetch-max-wait=10m").start() as program:
        assert program.stop(timeout_s=120) == 0
        changes = states(program)
    assert [name for name, state in changes if state == "Running"] == [
        "server", "internal-server", "runtime-config", "ring", "log", "bucket", "ingester", "distributor", "querier",
        "bucket-upkeep",
    ]  # fmt: skip
    assert [name for name, state in changes if state == "Terminated"] == [
        "server", "bucket-upkeep", "querier", "distributor", "ingester", "bucket", "log", "ring", "runtime-config",
        "internal-server",
    ]  # fmt: skip
    assert "Failed" not in {state for _, state in changes}
    assert logged(program)[-1]["msg"] == "stopped"


def test_during_the_shutdown_delay_it_serves_but_is_not_ready_and_a_second_signal_ends_it(tmp_path):
    with Program(tmp_path, "-shutdown-delay=10m").start() as program:
        program.process.send_signal(signal.SIGTERM)
        assert eventually(lambda: program.http.get("/ready").status_code == 503)
        assert program.http.get("/ready").text == "Application is stopping\n"
        assert program.push(body([({"__name__": "up"}, [(int(time.time() * 1000), 1.0)])])).status_code == 200
        program.process.send_signal(signal.SIGINT)
        assert program.process.wait(120) == 1


def test_an_ingester_that_was_shut_down_by_request_lets_the_process_end_cleanly(tmp_path):
    with Program(tmp_path).start() as program:
        assert program.http.post("/ingester/shutdown").status_code == 204
        assert program.http.get("/ready").text == "Some services are not Running:\ningester: Terminated\n"
        assert program.stop() == 0
        assert "Traceback" not in program.log_tail()


def test_everything_held_is_shipped_before_the_process_ends_if_that_is_configured(tmp_path):
    with Program(tmp_path, "-blocks-storage.tsdb.flush-blocks-on-shutdown").start() as program:
        program.push(body([({"__name__": "up"}, [(int(time.time() * 1000), 1.0)])]))
        assert program.stop() == 0
    assert len(list((tmp_path / "data" / "blocks" / "anonymous").glob("*/meta.json"))) == 1


def test_readiness_waits_for_the_configured_time(tmp_path):
    with Program(tmp_path, "-ingester.ring.min-ready-duration=10m").start(wait=False) as program:
        eventually(lambda: program.log_path.exists() and "msg=running" in program.log_path.read_text())
        reason = "Ingester not ready: waiting for 10m0s after being ready\n"
        assert eventually(lambda: program.http.get("/ready").text == reason)


@pytest.mark.parametrize(
    ("flags", "code", "text"),
    [
        (["-server.http-listen-port={taken}"], 1, "cannot listen on 127.0.0.1:{taken}: Address already in use; choose"),
        (
            ["-blocks-storage.filesystem.dir={file}/x"],
            1,
            "cannot be written: Not a directory; see blocks_storage.files",
        ),
        (["-ingest-storage.embedded.path={file}/x"], 1, "or set another -ingest-storage.embedded.path"),
        (["-server.http-listen-prt=1"], 2, "did you mean -server.http-listen-port?"),
        (["-config.file={broken}"], 2, "broken.yaml line 3: not valid YAML"),
    ],
)
def test_what_keeps_it_from_starting_is_told_in_one_sentence(tmp_path, program, flags, code, text):
    facts = {"taken": program.port, "file": tmp_path / "file", "broken": tmp_path / "broken.yaml"}
    (tmp_path / "file").write_text("")
    (tmp_path / "broken.yaml").write_text("server:\n  http_listen_port: [\n")
    other = Program(tmp_path / "other")
    other.flags = [*other.flags, *(flag.format(**facts) for flag in flags)]
    with other.start(wait=False):
        assert other.process.wait(60) == code
    told = [line for line in other.log_path.read_text().splitlines() if not line.startswith("ts=")]
    assert len(told) == 1, told
    assert told[0].startswith("mimir-ingest: ")
    assert text.format(**facts) in told[0]
