"""Real Apache Kafka for the tests: one KRaft node from its Maven artifacts, on free loopback ports.

Listeners: PLAINTEXT; SASL_PLAINTEXT with PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 and OAUTHBEARER (unsigned tokens); SSL
with a throw-away authority. Ports and data stay the same over `restart`, so a client sees the same broker come back.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.certificates import write_authority
from tests.support.peers import pick_free_port, require

LIBS = Path(__file__).parent.parent / "kafka" / "libs"
START_TIMEOUT_S = 300.0
PASSWORDS = {"plain": "plain-secret", "scram256": "scram256-secret", "scram512": "scram512-secret"}
"""User name to password. `plain` may use PLAIN; the other two the SCRAM mechanism that they are named after."""

_JVM = ["-Xmx512m", "-Xms128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Djava.awt.headless=true"]
_MODULE = "org.apache.kafka.common.security"
_LOG4J = """\
rootLogger.level=WARN
rootLogger.appenderRefs=out
rootLogger.appenderRef.out.ref=out
appender.out.type=Console
appender.out.name=out
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d %p %c{1} %m%n
logger.started.name=kafka.server.KafkaRaftServer
logger.started.level=INFO
"""


class KafkaBroker:
    """One broker process. Created stopped; owns its directory, its ports and its process."""

    def __init__(self, directory: Path, *, settings: dict[str, str] | None = None) -> None:
        self.directory = directory
        self._settings = settings or {}
        self._process: subprocess.Popen[bytes] | None = None
        self._ports = {name: pick_free_port() for name in ("PLAINTEXT", "SASL", "TLS", "CONTROLLER")}
        self.authority = write_authority(directory / "tls")
        atexit.register(self.kill)

    @property
    def address(self) -> str:
        """`host:port` of the listener without authentication."""
        return self._address("PLAINTEXT")

    @property
    def sasl_address(self) -> str:
        """`host:port` of the listener that wants a password or a token."""
        return self._address("SASL")

    @property
    def tls_address(self) -> str:
        """`host:port` of the TLS listener; `authority.ca_file` signed its certificate."""
        return self._address("TLS")

    @property
    def pid(self) -> int:
        """Process id of the running broker."""
        assert self._process is not None, "the broker is not running"
        return self._process.pid

    @property
    def log_file(self) -> Path:
        """What the broker printed, over all its starts."""
        return self.directory / "broker.log"

    def start(self) -> KafkaBroker:
        """Format the storage on first use, start, and return once the broker serves."""
        if not (self.directory / "server.properties").exists():
            self._format()
        with self.log_file.open("ab") as log:
            started_at = log.tell()
            command = self._java("kafka.Kafka", str(self.directory / "server.properties"))
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.directory)
        deadline = time.monotonic() + START_TIMEOUT_S
        while b"Kafka Server started" not in self.log_file.read_bytes()[started_at:]:
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(f"Kafka did not start:\n{self.log_file.read_text()[-4000:]}")
            time.sleep(0.1)
        return self

    def stop(self) -> None:
        """End it as an operator would (SIGTERM)."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as the kernel would (SIGKILL). Does nothing when it is not running."""
        self._end(signal.SIGKILL)

    def restart(self, *, kill: bool = False) -> KafkaBroker:
        """Stop (or kill) the broker and start it on the same ports and data."""
        self.kill() if kill else self.stop()
        return self.start()

    def pause(self) -> None:
        """Freeze the process: connections stay, nothing answers (SIGSTOP)."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        # Until its last thread stands still it may answer.
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED)

    def resume(self) -> None:
        """Undo `pause` (SIGCONT)."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        process, self._process = self._process, None
        process.send_signal(number)
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _address(self, listener: str) -> str:
        return f"127.0.0.1:{self._ports[listener]}"

    def _java(self, *arguments: str) -> list[str]:
        log4j = (self.directory / "log4j2.properties").as_uri()
        return ["java", *_JVM, f"-Dlog4j2.configurationFile={log4j}", "-cp", f"{LIBS}/*", *arguments]

    def _format(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "log4j2.properties").write_text(_LOG4J)
        properties = self.directory / "server.properties"
        properties.write_text("".join(f"{key}={value}\n" for key, value in self._server_settings().items()))
        scram = [
            f"{mechanism}=[name={user},password={PASSWORDS[user]}]"
            for user, mechanism in (("scram256", "SCRAM-SHA-256"), ("scram512", "SCRAM-SHA-512"))
        ]
        add = [argument for entry in scram for argument in ("--add-scram", entry)]
        tool = self._java("kafka.tools.StorageTool", "format", "-t", "bWltaXItaW5nZXN0LXRlc3Q", "-c", str(properties))
        done = subprocess.run([*tool, *add], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            properties.unlink()
            raise RuntimeError(f"Kafka's storage tool failed:\n{done.stdout}{done.stderr}")

    def _server_settings(self) -> dict[str, str]:
        names = ("PLAINTEXT", "SASL", "TLS")
        listeners = ",".join(f"{name}://{self._address(name)}" for name in names)
        scram = f"{_MODULE}.scram.ScramLoginModule required;"
        bearer = f'{_MODULE}.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";'
        plain = f'{_MODULE}.plain.PlainLoginModule required user_plain="{PASSWORDS["plain"]}";'
        return {
            "process.roles": "broker,controller",
            "node.id": "1",
            "log.dirs": str(self.directory / "data"),
            "controller.quorum.voters": f"1@{self._address('CONTROLLER')}",
            "listeners": f"{listeners},CONTROLLER://{self._address('CONTROLLER')}",
            "advertised.listeners": listeners,
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAINTEXT",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SASL:SASL_PLAINTEXT,TLS:SSL",
            "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER",
            "listener.name.sasl.plain.sasl.jaas.config": plain,
            "listener.name.sasl.scram-sha-256.sasl.jaas.config": scram,
            "listener.name.sasl.scram-sha-512.sasl.jaas.config": scram,
            "listener.name.sasl.oauthbearer.sasl.jaas.config": bearer,
            "listener.name.tls.ssl.keystore.type": "PEM",
            "listener.name.tls.ssl.keystore.location": str(self.authority.server_bundle_file),
            "listener.name.tls.ssl.truststore.type": "PEM",
            "listener.name.tls.ssl.truststore.location": str(self.authority.ca_file),
            "listener.name.tls.ssl.client.auth": "required",
            "num.partitions": "3",
            "default.replication.factor": "1",
            "offsets.topic.num.partitions": "1",
            "offsets.topic.replication.factor": "1",
            "transaction.state.log.num.partitions": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
            "auto.create.topics.enable": "false",
            "broker.session.timeout.ms": "3000",
            "broker.heartbeat.interval.ms": "500",
            "num.network.threads": "2",
            "num.io.threads": "2",
            "background.threads": "2",
            "log.cleaner.dedupe.buffer.size": "4194304",
            **self._settings,
        }


def require_kafka() -> None:
    """Skip (or, in CI, fail) the calling test when Kafka's jars or a Java are missing."""
    if not any(LIBS.glob("kafka_*.jar")):
        require("tests/kafka/libs is empty: run `make setup-tests`")
    if shutil.which("java") is None:
        require("there is no `java` on PATH: install a Java runtime, 17 or later")


@pytest.fixture(scope="session")
def kafka_broker() -> Iterator[KafkaBroker]:
    """One broker for the whole run. Tests that stop it take `new_kafka_broker` instead."""
    require_kafka()
    with tempfile.TemporaryDirectory(prefix="kafka-") as directory:
        broker = KafkaBroker(Path(directory))
        try:
            yield broker.start()
        finally:
            broker.kill()


@pytest.fixture
def new_kafka_broker(tmp_path: Path) -> Iterator[Callable[..., KafkaBroker]]:
    """Return a function that makes a broker of this test's own, not yet started; all are killed at the end."""
    require_kafka()
    brokers: list[KafkaBroker] = []

    def make(**settings: str) -> KafkaBroker:
        named = {name.replace("_", "."): value for name, value in settings.items()}
        brokers.append(KafkaBroker(tmp_path / f"kafka-{len(brokers)}", settings=named))
        return brokers[-1]

    yield make
    for broker in brokers:
        broker.kill()
