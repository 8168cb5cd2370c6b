from collections import Counter

from messaging.broker import BrokerUnavailable
from messaging.kafka_turns import ANY, Turns


class Cluster:
    """What the broker says of its partitions; nothing while it is away."""

    def __init__(self, *led: int) -> None:
        self.led: list[int] | None = list(led)

    def ask(self, _: str) -> list[int]:
        if self.led is None:
            raise BrokerUnavailable("away")
        return self.led


def turns(cluster: Cluster) -> Turns:
    """Asked by hand alone."""
    made = Turns(cluster.ask)
    made.close()
    made.next("t", gather=False)
    made.refresh()
    return made


def test_as_long_as_the_partitions_are_not_known_the_client_chooses() -> None:
    made = Turns(Cluster().ask)
    made.close()
    assert made.next("t", gather=False) == ANY


def test_messages_go_to_each_partition_in_turn() -> None:
    made = turns(Cluster(0, 1, 2))
    assert [made.next("t", gather=False) for _ in range(6)] == [0, 1, 2, 0, 1, 2]


def test_gathered_messages_go_to_a_partition_several_in_a_row_and_to_all_alike() -> None:
    made = turns(Cluster(0, 1, 2))
    chosen = [made.next("t", gather=True) for _ in range(48)]
    assert chosen[:17] == [0] * 16 + [1]
    assert Counter(chosen) == {0: 16, 1: 16, 2: 16}


def test_a_partition_without_a_leader_gets_nothing() -> None:
    cluster = Cluster(0, 1, 2)
    made = turns(cluster)
    cluster.led = [0, 2]
    made.refresh()
    assert {made.next("t", gather=False) for _ in range(10)} == {0, 2}


def test_what_was_known_holds_while_the_broker_is_away() -> None:
    cluster = Cluster(0, 1)
    made = turns(cluster)
    cluster.led = None
    made.refresh()
    assert {made.next("t", gather=False) for _ in range(4)} == {0, 1}
