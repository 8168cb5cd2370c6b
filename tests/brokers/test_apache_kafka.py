"""What only a real Kafka shows."""

import sys
import time
import uuid

import pytest
from confluent_kafka import KafkaError
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType
from confluent_kafka.cimpl import NewTopic

from deploy.kafka.local_kafka import LocalCluster, LocalKafka
from messaging import BrokerSettings, TopicSettings, connect
from messaging.broker import BrokerUnavailable, Delivery, Inbox, Message, Subscription, TopicMissing
from messaging.kafka_admin import KafkaAdministration
from tests.brokers import raw_producer
from tests.brokers.conftest import create_topic, partition_of

PATIENCE_S = 30.0


def settings(kafka: LocalKafka | LocalCluster) -> tuple[BrokerSettings, TopicSettings]:
    prefix = uuid.uuid4().hex[:8]
    broker = BrokerSettings(
        url=f"kafka://{kafka.bootstrap_servers}", max_message_bytes=1_000_000, publish_timeout_ms=5_000
    )
    topics = TopicSettings(
        requests=f"{prefix}.requests",
        replies=f"{prefix}.replies",
        dead_letters=f"{prefix}.dead-letters",
        cancellations=f"{prefix}.cancellations",
        jobs=f"{prefix}.jobs",
        job_replies=f"{prefix}.job-replies",
        queues={},
        partitions=12,
        replication_factor=0,
        requests_retention_ms=300_000,
        replies_retention_ms=60_000,
        dead_letters_retention_ms=600_000,
        jobs_retention_ms=600_000,
    )
    return broker, topics


def test_topics_are_created_once_and_then_found(apache_kafka: LocalKafka) -> None:
    broker, topics = settings(apache_kafka)
    administration, wanted = KafkaAdministration(broker, topics), topics.wanted("workers")
    assert set(administration.apply(wanted).values()) == {True}
    assert set(administration.apply(wanted).values()) == {False}
    inbox = connect(broker.url).open_inbox(topics.replies, "i")
    assert 0 <= int(inbox.address.partition("/")[2]) < 12
    inbox.close()


@pytest.mark.usefixtures("apache_kafka")  # skips where no broker can be started
def test_on_three_brokers_topics_have_three_copies_and_acknowledge_with_two() -> None:
    with LocalCluster(3) as cluster:
        broker, topics = settings(cluster)
        KafkaAdministration(broker, topics).apply(topics.wanted("workers"))
        admin = AdminClient({"bootstrap.servers": cluster.bootstrap_servers})
        end = time.monotonic() + PATIENCE_S  # each broker learns of a topic in its own time
        while topics.requests not in (known := admin.list_topics(timeout=PATIENCE_S).topics):
            assert time.monotonic() < end
        found = known[topics.requests].partitions.values()
        assert [len(partition.replicas) for partition in found] == [3] * 12
        (described,) = admin.describe_configs([ConfigResource(ResourceType.TOPIC, topics.requests)]).values()
        assert described.result(PATIENCE_S)["min.insync.replicas"].value == "2"


@pytest.mark.skipif(sys.platform != "linux", reason="the client's library is looked for where it is on Linux")
def test_a_record_whose_header_is_not_text_comes_without_headers_and_holds_nobody_up(
    apache_kafka: LocalKafka,
) -> None:
    topic = uuid.uuid4().hex
    create_topic(apache_kafka.bootstrap_servers, topic, partitions=1)
    broker = connect(f"kafka://{apache_kafka.bootstrap_servers}")
    inbox = broker.open_inbox(topic, "i")
    strange = [Message(str(number).encode(), {}) for number in range(100)]
    raw_producer.send(apache_kafka.bootstrap_servers, topic, b"\xff", [each.body for each in strange])
    broker.publish(topic, Message(b"usual", {"a": "b"})).result(PATIENCE_S)
    subscription = broker.subscribe(topic, "g")
    for place in (inbox, subscription):
        found: list[Message] = []
        end = time.monotonic() + PATIENCE_S
        while len(found) < 101 and time.monotonic() < end:
            found += [each.message if isinstance(each, Delivery) else each for each in place.receive(10, 0.2)]
        assert found == [*strange, Message(b"usual", {"a": "b"})]
        place.close()
    broker.close()


def test_looking_for_topics_creates_none(apache_kafka: LocalKafka) -> None:
    broker, topics = settings(apache_kafka)
    administration, wanted = KafkaAdministration(broker, topics), topics.wanted("workers")
    for _ in range(2):
        assert {its.state for its in administration.plan(wanted)} == {"missing"}
    administration.apply(wanted)
    end = time.monotonic() + PATIENCE_S
    while {its.state for its in administration.plan(wanted)} != {"ready"}:  # a broker hears of them later
        assert time.monotonic() < end
        time.sleep(0.05)


def test_how_a_topic_differs_is_known_whoever_made_it(apache_kafka: LocalKafka) -> None:
    broker, topics = settings(apache_kafka)
    admin = AdminClient({"bootstrap.servers": apache_kafka.bootstrap_servers})
    few = NewTopic(topics.replies, 4, 1, config={"max.message.bytes": str(broker.max_message_bytes)})
    small = NewTopic(topics.requests, 12, 1, config={"max.message.bytes": "1000"})
    for made in admin.create_topics([few, small]).values():
        made.result(PATIENCE_S)
    administration, wanted = KafkaAdministration(broker, topics), topics.wanted("workers")
    administration.apply(wanted)
    end = time.monotonic() + PATIENCE_S
    found = {its.what: its for its in administration.plan(wanted)}
    while {"unfit", "differs", "ready"} != {its.state for its in found.values()}:  # it hears of them later
        assert time.monotonic() < end, found
        found = {its.what: its for its in administration.plan(wanted)}
    assert "messages over 1000 bytes are refused" in found[f"topic {topics.requests}"].detail
    assert found[f"topic {topics.requests}"].fix.endswith("--add-config max.message.bytes=1000000`")
    assert found[f"topic {topics.replies}"].state == "differs"
    assert found[f"topic {topics.replies}"].detail.startswith("4 partitions instead of 12")
    assert found[f"topic {topics.jobs}"].state == "ready"


def test_a_missing_topic_is_named_with_the_command_that_makes_it(apache_kafka: LocalKafka) -> None:
    broker = connect(f"kafka://{apache_kafka.bootstrap_servers}")
    with pytest.raises(TopicMissing, match="mlaas topics create"):
        broker.open_inbox("nowhere", "i")
    with pytest.raises(TopicMissing, match="mlaas topics create"):
        broker.subscribe("nowhere", "g")
    published = broker.publish("nowhere", Message(b""))
    assert isinstance(published.exception(PATIENCE_S), TopicMissing)
    broker.close()


def test_a_member_of_the_new_group_protocol_is_served(apache_kafka: LocalKafka) -> None:
    topic = f"t-{uuid.uuid4().hex[:8]}"
    create_topic(apache_kafka.bootstrap_servers, topic)
    broker = connect(f"kafka://{apache_kafka.bootstrap_servers}?group.protocol=consumer")
    broker.publish(topic, Message(b"1")).result(PATIENCE_S)
    subscription = broker.subscribe(topic, topic)
    end = time.monotonic() + PATIENCE_S
    while not (taken := subscription.receive(1, 0.5)):
        assert time.monotonic() < end
    assert taken[0].message.body == b"1"
    subscription.close()
    broker.close()


def test_a_lost_broker_is_reported_and_its_return_goes_unnoticed() -> None:
    """A broker of its own: it is killed, and started again with its data."""
    with LocalKafka() as kafka:
        create_topic(kafka.bootstrap_servers, "replies")
        broker = connect(f"kafka://{kafka.bootstrap_servers}", publish_timeout_ms=60_000)
        inbox = broker.open_inbox("replies", "i")
        kafka.kill()
        with pytest.raises(BrokerUnavailable):
            wait_for_loss(inbox.receive)
        while_away = broker.publish(inbox.address, Message(b"sent while away"))
        kafka.start()
        while_away.result(PATIENCE_S)
        end = time.monotonic() + PATIENCE_S
        received: list[Message] = []
        while not received and time.monotonic() < end:
            try:
                received += inbox.receive(1, 0.5)
            except BrokerUnavailable:
                continue
        assert [message.body for message in received] == [b"sent while away"]
        inbox.close()
        broker.close()


def wait_for_loss(receive) -> None:
    end = time.monotonic() + PATIENCE_S
    while time.monotonic() < end:
        receive(1, 0.2)


def test_a_producer_that_cannot_go_on_is_replaced(apache_kafka: LocalKafka) -> None:
    """librdkafka never leaves a fatal error, and nothing here makes it have one: it is reported by hand."""
    topic = f"t-{uuid.uuid4().hex[:8]}"
    create_topic(apache_kafka.bootstrap_servers, topic)
    broker = connect(f"kafka://{apache_kafka.bootstrap_servers}")
    inbox = broker.open_inbox(topic, "i")
    broken = broker._sender._producer
    broker._sender._on_error(KafkaError(KafkaError._FATAL, "out of order", fatal=True))
    end = time.monotonic() + PATIENCE_S
    while broker._sender._producer is broken:
        assert time.monotonic() < end
        time.sleep(0.01)
    broker.publish(inbox.address, Message(b"after")).result(PATIENCE_S)
    assert [message.body for message in inbox.receive(1, PATIENCE_S)] == [b"after"]
    inbox.close()
    broker.close()


def test_a_member_with_the_same_instance_id_takes_the_place_and_both_go_on(apache_kafka: LocalKafka) -> None:
    topic = f"t-{uuid.uuid4().hex[:8]}"
    create_topic(apache_kafka.bootstrap_servers, topic, partitions=2)
    brokers = [connect(f"kafka://{apache_kafka.bootstrap_servers}") for _ in range(2)]
    first = brokers[0].subscribe(topic, topic, "worker-1")
    brokers[0].publish(f"{topic}/0", Message(b"1")).result(PATIENCE_S)
    receive(first, 1)
    second = brokers[1].subscribe(topic, topic, "worker-1")
    assert receive(second, 1) == [b"1"]  # the first had not acknowledged it
    shared: tuple[set[int], set[int]] = (set(), set())
    end = time.monotonic() + PATIENCE_S
    while not (shared[0] and shared[1]):
        assert time.monotonic() < end, "they do not share the topic"
        for partition in range(2):
            brokers[0].publish(f"{topic}/{partition}", Message(b"")).result(PATIENCE_S)
        for member, partitions_seen in zip((first, second), shared, strict=True):
            taken = member.receive(10, 0.2)
            partitions_seen |= {partition_of(delivery) for delivery in taken}
            member.acknowledge(taken)
    first.close()
    second.close()
    for broker in brokers:
        broker.close()


def test_a_member_that_is_closed_gives_its_place_back_whatever_its_instance_id(
    apache_kafka: LocalKafka,
) -> None:
    """Its partition would wait for as long as its session lasts: here a minute."""
    topic = f"t-{uuid.uuid4().hex[:8]}"
    create_topic(apache_kafka.bootstrap_servers, topic, partitions=1)
    broker = connect(f"kafka://{apache_kafka.bootstrap_servers}?session.timeout.ms=60000")
    first = broker.subscribe(topic, topic, "worker-1")
    for body in (b"1", b"2"):
        broker.publish(topic, Message(body)).result(PATIENCE_S)
    taken: list[Delivery] = []
    end = time.monotonic() + PATIENCE_S
    while len(taken) < 2:
        assert time.monotonic() < end
        taken += first.receive(2, 0.5)
    first.acknowledge(taken[:1])
    first.close()
    second = broker.subscribe(topic, topic, "worker-2")
    assert receive(second, 1) == [b"2"]
    second.close()
    broker.close()


def receive(place: Inbox | Subscription, count: int) -> list[bytes]:
    """The bodies of so many messages."""
    received: list[bytes] = []
    end = time.monotonic() + PATIENCE_S
    while len(received) < count:
        assert time.monotonic() < end, f"{len(received)} of {count} came"
        taken = place.receive(count - len(received), 0.5)
        received += [(each.message if isinstance(each, Delivery) else each).body for each in taken]
    return received


def test_every_partition_gets_as_many_messages(apache_kafka: LocalKafka) -> None:
    topic = f"t-{uuid.uuid4().hex[:8]}"
    create_topic(apache_kafka.bootstrap_servers, topic, partitions=4)
    broker = connect(f"kafka://{apache_kafka.bootstrap_servers}")
    broker.publish(topic, Message(b"the first, before the partitions are known")).result(PATIENCE_S)
    end = time.monotonic() + PATIENCE_S
    while not broker._topics._topics[topic].led:
        assert time.monotonic() < end
        time.sleep(0.01)
    for published in [broker.publish(topic, Message(b"")) for _ in range(128)]:
        published.result(PATIENCE_S)
    records = broker.records(topic)
    assert sorted(len(offsets) for offsets in records.bounds().values()) == [32, 32, 32, 33]
    records.close()
    broker.close()
