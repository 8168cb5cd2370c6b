"""The short forms of the fault scenarios: what becomes of requests when parts are killed."""

import json

import pytest

from tests.faults.pictures import Pictures
from tests.faults.run import play
from tests.faults.stage import Stage

# Of the others the short form alone takes a minute: make faults.
SHORT = (
    "worker-kill",
    "more-partitions",
    "cross-talk",
    "gateway-rolling",
    "deadline",
    "poison-kill",
    "hang",
    "hang-up",
    "jobs",
    "hostile",
    "expensive",
    "corrupted-models",
)


@pytest.fixture(scope="module")
def stage(apache_kafka):
    return Stage(apache_kafka.bootstrap_servers, Pictures(), quick=True)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", SHORT)
def test_nothing_is_lost(stage, name):
    """Seconds are the bench's: they say something of a quiet machine alone."""
    found = play(name, stage)
    failed = [str(check) for check in found.checks if not check.passed and check.unit != "s"]
    assert not failed, f"{failed}: {json.dumps(found.numbers)}"
