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
    "corrupted-models",
)
LONG = ("expensive", "rollout")

OVER_PUBSUB = ("pubsub-poison", "pubsub-duplicates")
LONG_OVER_PUBSUB = (
    "pubsub-worker-kill",
    "pubsub-gateway-kill",
    "pubsub-outage",
    "pubsub-frozen",
    "pubsub-slow-worker",
    "pubsub-stopped-worker",
)


@pytest.fixture(scope="module")
def pictures():
    return Pictures()


@pytest.fixture(scope="module")
def stage(apache_kafka, pictures):
    return Stage(apache_kafka.bootstrap_servers, pictures, quick=True)


@pytest.fixture(scope="module")
def stage_over_pubsub(pubsub, pictures):
    return Stage("", pictures, quick=True, running_pubsub=pubsub)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", [*SHORT, *(pytest.param(name, marks=pytest.mark.long) for name in LONG)])
def test_nothing_is_lost(stage, name):
    check(name, stage)


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    "name", [*OVER_PUBSUB, *(pytest.param(name, marks=pytest.mark.long) for name in LONG_OVER_PUBSUB)]
)
def test_nothing_is_lost_over_pubsub(stage_over_pubsub, name):
    check(name, stage_over_pubsub)


def check(name, stage):
    """Durations are checked by make faults and make pubsub-test, since they need a quiet machine."""
    found = play(name, stage)
    failed = [str(each) for each in found.checks if not each.passed and each.unit != "s"]
    assert not failed, f"{failed}: {json.dumps(found.numbers)}"
