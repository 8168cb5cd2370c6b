from collections.abc import Collection

from messaging.broker import BrokerUnavailable
from messaging.kafka_topics import ANY, READ_AFTER_S, AskedOffsets, Topics


class Cluster:
    """What the broker says about the topic; nothing while it is away."""

    def __init__(self, *led: int) -> None:
        self.led: list[int] | None = list(led)
        self.id = ""
        self.recreations = 0
        self.now = 0.0

    def ask_led(self, _: str) -> list[int]:
        if self.led is None:
            raise BrokerUnavailable("away")
        return self.led

    def ask_ids(self, topics: Collection[str]) -> dict[str, str]:
        return dict.fromkeys(topics, self.id) if self.id else {}

    def ask_offsets(self, _: str, __: int) -> AskedOffsets:
        raise NotImplementedError  # readers ask

    def noted(self) -> None:
        self.recreations += 1


def topics(cluster: Cluster) -> Topics:
    """Asked by hand alone."""
    made = Topics(cluster.ask_led, cluster.ask_ids, cluster.ask_offsets, cluster.noted, lambda: cluster.now)
    made.close()
    made.next("t")
    made.refresh()
    return made


def used(made: Topics) -> set[int]:
    return {made.next("t") for _ in range(100)}


def test_as_long_as_the_partitions_are_not_known_the_client_chooses() -> None:
    assert used(topics(Cluster())) == {ANY}


def test_messages_go_to_each_partition_in_turn() -> None:
    made = topics(Cluster(0, 1, 2))
    assert [made.next("t") for _ in range(6)] == [0, 1, 2, 0, 1, 2]


def test_a_partition_without_a_leader_gets_nothing_until_it_has_one_again() -> None:
    cluster = Cluster(0, 1, 2)
    made = topics(cluster)
    cluster.led = [0, 2]
    made.refresh()
    assert used(made) == {0, 2}
    cluster.led = [0, 1, 2]
    made.refresh()
    assert used(made) == {0, 1, 2}


def test_what_was_known_holds_while_the_broker_is_away() -> None:
    cluster = Cluster(0, 1)
    made = topics(cluster)
    cluster.led = None
    made.refresh()
    assert used(made) == {0, 1}


def test_partitions_that_are_added_get_messages_when_the_workers_have_found_them() -> None:
    cluster = Cluster(0, 1)
    made = topics(cluster)
    cluster.led = [0, 1, 2, 3]
    made.refresh()
    cluster.now += READ_AFTER_S - 1
    made.refresh()
    assert used(made) == {0, 1}
    cluster.now += 1
    made.refresh()
    assert used(made) == {0, 1, 2, 3}


def test_a_topic_with_another_id_was_created_again_and_all_its_partitions_are_used_at_once() -> None:
    cluster = Cluster(0, 1)
    cluster.id = "first"
    made = topics(cluster)
    assert (made.incarnation("t"), made.id("t"), cluster.recreations) == (0, "first", 0)
    cluster.id, cluster.led = "second", [0, 1, 2]
    made.refresh()
    assert (made.incarnation("t"), made.id("t"), cluster.recreations) == (1, "second", 1)
    assert used(made) == {0, 1, 2}
    made.refresh()
    assert cluster.recreations == 1


def test_a_topic_is_the_same_while_nothing_is_heard_about_its_id() -> None:
    cluster = Cluster(0)
    cluster.id = "first"
    made = topics(cluster)
    cluster.id = ""
    made.refresh()
    cluster.id = "first"
    made.refresh()
    assert (made.incarnation("t"), cluster.recreations) == (0, 0)
