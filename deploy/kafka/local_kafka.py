"""Runs Apache Kafka on this machine, without containers: `python -m deploy.kafka.local_kafka`.

The jars come from Maven, once, into a cache folder. LocalKafka is one broker, LocalCluster several.
"""

import argparse
import hashlib
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from string import Template
from typing import Self

HOST = "127.0.0.1"
FIRST, LAST = 20_000, 32_000
"""Below the ephemeral ports, so that no outgoing connection takes one before it is used."""

POM = Path(__file__).with_name("pom.xml")
OLDEST_JAVA = 17

CACHE = Path(__file__).parents[2] / ".cache"
PROPERTIES = Path(__file__).with_name("server.properties")
READY = b"Kafka Server started"
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 15.0

NEXT = """Ready. In another terminal, start gateway and worker on it, with the topics that they need:

  .venv/bin/mlaas up --broker kafka://{servers}

Ctrl-C stops Kafka; its data stay.
"""

# A broker that is soon stopped again does not get back what compiling its code well would take.
QUICKLY_COMPILED = "-XX:TieredStopAtLevel=1"
JVM_OPTIONS = (
    "-Xmx512m",
    "-XX:+UseSerialGC",
    "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    "-Dorg.slf4j.simpleLogger.log.kafka.server.KafkaRaftServer=info",
)


def free_port(in_a_row: int = 1) -> int:
    """The first of in_a_row consecutive free ports."""
    while True:
        port = random.randrange(FIRST, LAST - in_a_row)
        with suppress(OSError), ExitStack() as held:
            for each in range(port, port + in_a_row):
                held.enter_context(socket.socket()).bind((HOST, each))
            return port


def java() -> str:
    """The Java program: that of JAVA_HOME if set, otherwise the one on PATH."""
    home = os.environ.get("JAVA_HOME")
    return str(Path(home, "bin", "java")) if home else "java"


def missing_tools() -> str | None:
    """What to install to run Kafka here; None if everything is installed."""
    if (_java_version() or 0) < OLDEST_JAVA:
        return f"Java {OLDEST_JAVA}+ is needed: `apt install default-jdk-headless` or `brew install openjdk`"
    if not shutil.which("mvn"):
        return "Maven is needed: `apt install maven` or `brew install maven`"
    return None


def resolve_jars(cache: Path) -> Path:
    """The folder with the jars in pom.xml; downloads missing ones. Raises RuntimeError if that fails."""
    jars = cache / "kafka" / hashlib.sha256(POM.read_bytes()).hexdigest()[:12]
    if not jars.is_dir():
        jars.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=jars.parent) as download:
            _download(Path(download, "jars"))
            _publish(Path(download, "jars"), jars)
    return jars


def _download(target: Path) -> None:
    command = ["mvn", "--quiet", "--batch-mode", f"--file={POM}", f"-Dkafka.jars={target}", "package"]
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if result.returncode:
        raise RuntimeError(f"Maven could not download Apache Kafka:\n{result.stdout[-2000:]}")


def _publish(download: Path, jars: Path) -> None:
    """Renames atomically: nobody sees half a download, and the first of two concurrent ones wins."""
    try:
        download.rename(jars)
    except OSError:
        if not jars.is_dir():
            raise


def _java_version() -> int | None:
    try:
        result = subprocess.run([java(), "-version"], capture_output=True, text=True)
    except OSError:
        return None
    found = re.search(r'version "(\d+)', result.stderr)
    return int(found.group(1)) if found else None


@dataclass(frozen=True, slots=True)
class Node:
    """A node of a KRaft quorum. Numbers count from 1 and index the ports of the controllers."""

    number: int
    controller_ports: tuple[int, ...]

    @property
    def controller_port(self) -> int:
        return self.controller_ports[self.number - 1]

    @property
    def voters(self) -> str:
        return ",".join(f"{number}@{HOST}:{port}" for number, port in enumerate(self.controller_ports, 1))


class LocalKafka:
    """A broker that is also a controller: alone, or a node of a cluster. A context manager.

    It writes to folder, or to a temporary folder that is removed at the end. more_properties are lines added
    to server.properties. passwords are those of users, for SCRAM-SHA-512. lasting: it runs for many minutes,
    and should serve as fast as brokers that run for days.
    """

    def __init__(
        self,
        port: int = 0,
        folder: Path | None = None,
        cache: Path = CACHE,
        node: Node | None = None,
        more_properties: str = "",
        passwords: Mapping[str, str] | None = None,
        lasting: bool = False,
    ) -> None:
        self._lasting = lasting
        self._port = port or free_port()
        self._node = node or Node(1, (free_port(),))
        self._temporary = folder is None
        self._folder = folder.absolute() if folder else Path(tempfile.mkdtemp(prefix="kafka-"))
        self._cache = cache
        self._more_properties = more_properties
        self._passwords = passwords or {}
        self._broker: subprocess.Popen[bytes] | None = None
        self._guard: subprocess.Popen[bytes] | None = None

    @property
    def bootstrap_servers(self) -> str:
        return f"{HOST}:{self._port}"

    @property
    def log(self) -> Path:
        return self._folder / "kafka.log"

    @property
    def pid(self) -> int | None:
        return self._broker.pid if self._broker else None

    def start(self) -> None:
        """Starts the broker, or restarts it after stop() or kill() with the same port and data.

        Returns when it accepts requests. Raises RuntimeError if it does not start.
        """
        self.launch()
        self.wait_until_ready()

    def launch(self) -> None:
        """Starts the broker without waiting: a node is ready only once a majority is."""
        properties = self._write_properties()
        if not (self.data / "meta.properties").exists():
            self._format(properties)
        self._seen = self.log.stat().st_size if self.log.exists() else 0
        self._broker = self._java("kafka.Kafka", str(properties))
        self._guard = _end_with_parent(self._broker)

    def stop(self) -> None:
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        self._end(signal.SIGKILL)

    def wait(self) -> None:
        """Waits until the broker exits by itself."""
        if self._broker:
            self._broker.wait()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        if self._temporary:
            shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def data(self) -> Path:
        return self._folder / "data"

    def _write_properties(self) -> Path:
        self._folder.mkdir(parents=True, exist_ok=True)
        properties = self._folder / "server.properties"
        values = {
            "host": HOST,
            "port": self._port,
            "controller_port": self._node.controller_port,
            "data": self.data,
            "node_id": self._node.number,
            "voters": self._node.voters,
            "replicas": min(3, len(self._node.controller_ports)),
            "in_sync": min(2, len(self._node.controller_ports)),
        }
        template = Template(f"{PROPERTIES.read_text()}\n{self._more_properties}")
        properties.write_text(template.substitute(values))
        return properties

    def _format(self, properties: Path) -> None:
        arguments = ["format", "-t", "local-kafka", "-c", str(properties)]
        for user, password in self._passwords.items():
            arguments += ["--add-scram", f"SCRAM-SHA-512=[name={user},password={password}]"]
        if self._java("kafka.tools.StorageTool", *arguments).wait():
            raise RuntimeError(self._failure("Kafka could not format its storage"))

    def _java(self, *arguments: str) -> subprocess.Popen[bytes]:
        classpath = resolve_jars(self._cache) / "*"
        options = JVM_OPTIONS if self._lasting else (*JVM_OPTIONS, QUICKLY_COMPILED)
        command = [java(), *options, "-cp", str(classpath), *arguments]
        with self.log.open("ab") as log:
            return subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )

    def wait_until_ready(self) -> None:
        """Waits, after launch(), until the broker accepts requests. Raises RuntimeError with its last log."""
        deadline = time.monotonic() + START_TIMEOUT_S
        broker = self._broker
        assert broker
        while READY not in self.log.read_bytes()[self._seen :]:
            if broker.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise RuntimeError(self._failure("Kafka did not start"))
            time.sleep(0.05)

    def _failure(self, what: str) -> str:
        return f"{what}. Its log ends with:\n{self.log.read_text(errors='replace')[-3000:]}"

    def _end(self, how: signal.Signals) -> None:
        if self._broker:
            _end_process(self._broker, how)
        if self._guard:
            self._guard.kill()
            self._guard.communicate()
        self._broker = self._guard = None


def _end_process(process: subprocess.Popen[bytes], how: signal.Signals) -> None:
    process.send_signal(how)
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _end_with_parent(process: subprocess.Popen[bytes]) -> subprocess.Popen[bytes]:
    """Starts a shell that kills the process once this one ends, however it ends: its pipe then closes."""
    command = ["sh", "-c", 'read -r _; kill -9 "$0"', str(process.pid)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Run one Apache Kafka broker until Ctrl-C.")
    parser.add_argument("--port", type=int, default=9092)
    parser.add_argument("--data-dir", type=Path, help="the folder for data (default: a temporary folder)")
    options = parser.parse_args()
    if problem := missing_tools():
        sys.exit(problem)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print("starting Apache Kafka; the first time, Maven fetches it, which takes a minute", file=sys.stderr)
    try:
        with LocalKafka(options.port, options.data_dir, lasting=True) as kafka:
            print(kafka.bootstrap_servers, flush=True)
            print(NEXT.format(servers=kafka.bootstrap_servers), file=sys.stderr, flush=True)
            kafka.wait()
            sys.exit("Kafka exited unexpectedly: see its log")
    except KeyboardInterrupt:
        pass
    except RuntimeError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()


class LocalCluster:
    """A cluster of brokers that are also controllers, so a majority must be up. A context manager."""

    def __init__(self, size: int = 3) -> None:
        first = free_port(in_a_row=size)
        ports = tuple(range(first, first + size))
        self.brokers = [LocalKafka(node=Node(number, ports)) for number in range(1, size + 1)]

    @property
    def bootstrap_servers(self) -> str:
        return ",".join(broker.bootstrap_servers for broker in self.brokers)

    def __enter__(self) -> Self:
        try:
            for broker in self.brokers:
                broker.launch()
            for broker in self.brokers:
                broker.wait_until_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for broker in self.brokers:
            broker.kill()
            broker.__exit__()
