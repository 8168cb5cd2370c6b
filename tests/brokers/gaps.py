"""What a broker cannot do of what the contract suite tests. docs/brokers.md shows it."""

import inspect
from collections.abc import Iterable
from types import ModuleType

KINDS = {
    "kafka": "Kafka",
    "pubsub": "Pub/Sub",
    "embedded": "embedded",
    "memory": "memory",
}

NOT_PROMISED = "not promised"
"""Begins the reasons why a test, which may succeed, is not run."""
_A_LOG = "only the oldest of a partition can be deleted"
_NO_DELETING = "it cannot delete (NotSupported), and forgets all when its process ends"

GAPS = {
    ("pubsub", "a_group_that_comes_late_gets_what_was_there_before"): (
        "a group gets what is published after its subscription was made, which `mlaas topics create` does"
    ),
    ("pubsub", "gathered_messages_for_one_place_arrive_in_order"): f"{NOT_PROMISED}: order is by chance",
    ("kafka", "one_that_is_not_the_oldest_is_deleted_alone"): _A_LOG,
    ("memory", "one_that_is_not_the_oldest_is_deleted_alone"): _A_LOG,
    ("embedded", "one_that_is_not_the_oldest_is_deleted_alone"): _NO_DELETING,
    ("embedded", "what_is_deleted_is_gone_for_good"): _NO_DELETING,
    ("embedded", "what_is_older_than_a_record_is_deleted_for_good"): _NO_DELETING,
}
"""Why not, by the kind of broker and the name of the test."""


def table(suites: Iterable[ModuleType]) -> str:
    """What each broker does, as a table of Markdown."""
    lines = [f"| | {' | '.join(KINDS.values())} |", f"| --- |{' --- |' * len(KINDS)}"]
    for suite in suites:
        for name, test in vars(suite).items():
            if name.startswith("test_") and inspect.signature(test).parameters.keys() & {"bench", "records"}:
                said = name.removeprefix("test_")
                does = [f"no: {GAPS[kind, said]}" if (kind, said) in GAPS else "yes" for kind in KINDS]
                lines.append(f"| {said.replace('_', ' ')} | {' | '.join(does)} |")
    return "\n".join(lines)
