"""What several kinds of test share: how they run side by side, and the brokers."""

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AdminClient

from deploy.kafka.local_kafka import LocalKafka, free_port, missing_tools
from mlaas.cli import found_by_children
from tests.pubsub import local_pubsub
from tests.pubsub.local_pubsub import LocalPubSub


@pytest.fixture(scope="session", autouse=True)
def _tests_are_found_by_children() -> None:
    """Some model processes that tests start are modules of tests/ themselves."""
    found_by_children()


# The folders whose files take longest: started first, they are not what the others wait for at the end.
TESTS = Path(__file__).parent
STARTING_WORKERS = ("faults", "e2e", "brokers")
LONGEST_FIRST = ("faults", "e2e", "brokers", "browser", "stores", "chart", "unit")

# Maven may fetch it first.
DOWNLOAD_AND_START_S = 240
SHARED_KAFKA = pytest.StashKey[tuple[int, LocalKafka, threading.Thread]]()


def pytest_xdist_auto_num_workers() -> int:
    """For -n auto: most of the time a test waits for another process."""
    return min(3 * (os.cpu_count() or 1), 12)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Start one broker for all processes of xdist that run all tests, before the first of them."""
    config, args = node.config, node.config.args
    if SHARED_KAFKA not in config.stash and args == config.getini("testpaths") and not missing_tools():
        port = free_port()
        kafka = LocalKafka(port)
        starting = threading.Thread(target=kafka.start)
        starting.start()
        config.stash[SHARED_KAFKA] = port, kafka, starting
    if SHARED_KAFKA in config.stash:
        node.workerinput["kafka_port"] = config.stash[SHARED_KAFKA][0]


def pytest_unconfigure(config: pytest.Config) -> None:
    if SHARED_KAFKA in config.stash:
        _, kafka, starting = config.stash[SHARED_KAFKA]
        starting.join()
        kafka.__exit__()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: LONGEST_FIRST.index(item.path.relative_to(TESTS).parts[0]))


@pytest.fixture(scope="module", autouse=True)
def _one_model(request: pytest.FixtureRequest) -> Iterator[None]:
    """Have the workers of tests serve the default model alone, which halves their start."""
    with pytest.MonkeyPatch.context() as environment:
        if request.path.parent.name in STARTING_WORKERS and not request.node.get_closest_marker("all_models"):
            environment.setenv("MLAAS_MODEL__NAMES", "[fashion-mnist]")
        yield


@pytest.fixture
def shown(record_property: Callable[[str, object], None]) -> Callable[[str, object], None]:
    """Takes what a test has seen, and its value: a row of the table that --table prints."""
    return record_property


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--table", action="store_true", help="end with a table of what the tests have seen")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    rows = [
        (what, str(value))
        for report in sorted(terminalreporter.getreports("passed"), key=lambda its: its.location)
        if report.when == "call"
        for what, value in report.user_properties
    ]
    if rows and terminalreporter.config.getoption("--table"):
        width = max(len(what) for what, _ in rows)
        terminalreporter.section("what the tests saw")
        terminalreporter.write_line("\n".join(f"{what:{width}}  {value}" for what, value in rows))


@pytest.fixture(scope="session")
def kafka_tools() -> None:
    """What Apache Kafka needs. Without it the test is skipped, unless REQUIRE_APACHE_KAFKA is set."""
    reason = missing_tools()
    if reason is not None:
        if os.environ.get("REQUIRE_APACHE_KAFKA"):
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.fixture(scope="session")
def apache_kafka(
    kafka_tools: None, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LocalKafka]:
    """A real Apache Kafka. Other processes may use it, too: take topics and groups of your own."""
    port: int | None = getattr(request.config, "workerinput", {}).get("kafka_port")
    if port is None:
        with LocalKafka() as kafka:
            yield kafka
    else:
        shared = LocalKafka(port, tmp_path_factory.getbasetemp())
        servers = {"bootstrap.servers": shared.bootstrap_servers, "log_level": 0}
        AdminClient(servers).list_topics(timeout=DOWNLOAD_AND_START_S)
        yield shared


@pytest.fixture(scope="session")
def pubsub() -> Iterator[LocalPubSub]:
    """Google's fake of Pub/Sub, found by all clients. Skipped without Go, unless REQUIRE_PUBSUB is set."""
    reason = local_pubsub.missing_tools()
    if reason is not None:
        if os.environ.get("REQUIRE_PUBSUB"):
            pytest.fail(reason)
        pytest.skip(reason)
    with LocalPubSub() as fake, pytest.MonkeyPatch.context() as patched:
        patched.setenv("PUBSUB_EMULATOR_HOST", fake.host)
        yield fake


@pytest.fixture(scope="session")
def prometheus() -> None:
    """Debian's prometheus and promtool. Skipped without them, unless REQUIRE_PROMETHEUS is set."""
    lacking = [tool for tool in ("prometheus", "promtool") if shutil.which(tool) is None]
    if lacking:
        reason = f"{' and '.join(lacking)} not found: apt-get install prometheus"
        if os.environ.get("REQUIRE_PROMETHEUS"):
            pytest.fail(reason)
        pytest.skip(reason)
