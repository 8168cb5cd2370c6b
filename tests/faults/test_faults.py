"""The short forms of the fault scenarios."""

import json

import pytest

from tests.faults.run import play
from tests.faults.stage import Pictures, Stage

# The short forms of the others take a minute each; see make faults.
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
    "rollout",
)


@pytest.fixture(scope="module")
def stage(apache_kafka):
    return Stage(apache_kafka.bootstrap_servers, Pictures(), quick=True)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", SHORT)
def test_nothing_is_lost(stage, name):
    """Durations are checked by make faults, since they need a quiet machine."""
    found = play(name, stage)
    failed = [str(check) for check in found.checks if not check.passed and check.unit != "s"]
    assert not failed, f"{failed}: {json.dumps(found.numbers)}"
