"""What several kinds of test share: the real broker, started once."""

import os
from collections.abc import Iterator

import pytest

from deploy.kafka.local_kafka import LocalKafka, missing_tools
from mlaas.supervisor import found_by_children


@pytest.fixture(scope="session", autouse=True)
def _tests_are_found_by_children() -> None:
    """Some model processes that tests start are modules of tests/ themselves."""
    found_by_children()


@pytest.fixture(scope="session")
def apache_kafka() -> Iterator[LocalKafka]:
    """A real Apache Kafka. Without Java or Maven the test is skipped, unless REQUIRE_APACHE_KAFKA is set."""
    reason = missing_tools()
    if reason is not None:
        if os.environ.get("REQUIRE_APACHE_KAFKA"):
            pytest.fail(reason)
        pytest.skip(reason)
    with LocalKafka() as kafka:
        yield kafka
