"""What messaging.broker promises, held by every implementation."""

import time
from collections.abc import Sequence

import pytest

from messaging.broker import (
    Broker,
    BrokerUnavailable,
    Delivery,
    Inbox,
    Message,
    MessageTooLarge,
    Subscription,
    feed,
)
from messaging.frames import frame_of, packed
from tests.brokers.conftest import MAX_MESSAGE_BYTES, Bench

PATIENCE_S = 30.0


def numbered(count: int) -> list[Message]:
    return [Message(str(number).encode()) for number in range(count)]


def bodies(deliveries: Sequence[Delivery]) -> list[int]:
    return sorted(int(delivery.message.body) for delivery in deliveries)


def receive(subscription: Subscription, count: int, patience_s: float = PATIENCE_S) -> list[Delivery]:
    """Waits until so many have come."""
    end = time.monotonic() + patience_s
    received: list[Delivery] = []
    while len(received) < count:
        assert time.monotonic() < end, f"{len(received)} of {count} came"
        received += subscription.receive(count - len(received), 0.5)
    return received


def receive_replies(inbox: Inbox, count: int) -> list[Message]:
    """Waits until so many have come."""
    end = time.monotonic() + PATIENCE_S
    received: list[Message] = []
    while len(received) < count:
        assert time.monotonic() < end, f"{len(received)} of {count} replies came"
        received += inbox.receive(count - len(received), 0.5)
    return received


def receive_reply(inbox: Inbox) -> Message:
    return receive_replies(inbox, 1)[0]


def publish(bench: Bench, messages: list[Message]) -> None:
    broker = bench.connect()
    for published in [broker.publish(bench.topic, message) for message in messages]:
        published.result(PATIENCE_S)


def test_a_message_arrives_as_it_was_sent(bench: Bench) -> None:
    headers = {
        "plain": "text",
        "umlaut": "grün",
        "empty": "",
        "bytes": b"\x80\xff".decode("utf-8", "surrogateescape"),
    }
    before_ms = time.time() * 1000
    subscription = bench.connect().subscribe(bench.topic, "g")
    publish(bench, [Message(bytes(range(256)), headers)])
    (delivery,) = receive(subscription, 1)
    assert delivery.message == Message(bytes(range(256)), headers)
    assert delivery.topic == bench.topic
    assert before_ms - 1000 < delivery.timestamp_ms < time.time() * 1000 + 1000
    subscription.close()


def test_what_is_gathered_arrives_as_well(bench: Bench) -> None:
    subscription = bench.connect().subscribe(bench.topic, "g")
    broker = bench.connect()
    for published in [broker.publish(bench.topic, message, gather=True) for message in numbered(40)]:
        published.result(PATIENCE_S)
    assert bodies(receive(subscription, 40)) == list(range(40))
    subscription.close()


def frame(*messages: Message) -> Message:
    return frame_of([part for each in messages if (part := packed(each))])


def test_gathered_messages_arrive_with_their_headers_and_positions(bench: Bench) -> None:
    broker = bench.connect()
    inbox = broker.open_inbox(bench.topic, "any")
    subscription = bench.connect().subscribe(bench.topic, "g")
    sent = [
        Message(f"{number:02}".encode(), {"number": str(number), "more": "grün"}) for number in range(100)
    ]
    publish_gathered(broker, bench.topic, sent)
    received = receive(subscription, 100)
    assert sorted((each.message for each in received), key=lambda each: each.body) == sent
    positions = [each.position for each in received]
    assert len(set(positions)) == len(sorted(positions)) == len({str(each) for each in positions}) == 100
    answers = [Message(each.body, {"answer": "yes"}) for each in sent]
    publish_gathered(broker, inbox.address, answers)
    replies: list[Message] = []
    while len(replies) < 100:  # an inbox may also hear what is not for it
        replies += [each for each in receive_replies(inbox, 1) if each in answers]
    assert sorted(replies, key=lambda each: each.body) == answers
    counted = broker.frame_counts
    assert bench.kind == "memory" or 2 <= counted.frames < counted.messages <= 200, counted
    inbox.close()
    subscription.close()


def test_gathered_messages_for_one_place_arrive_in_order(bench: Bench) -> None:
    broker = bench.connect()
    inbox = broker.open_inbox(bench.topic, "any")
    sent = numbered(100)
    publish_gathered(broker, inbox.address, sent)
    assert [each for each in receive_replies(inbox, 100) if each in sent] == sent
    inbox.close()


def publish_gathered(broker: Broker, address: str, messages: list[Message]) -> None:
    """The first three go alone."""
    for message in messages[:3]:
        broker.publish(address, message, gather=True).result(PATIENCE_S)
    for published in [broker.publish(address, message, gather=True) for message in messages[3:]]:
        published.result(PATIENCE_S)


def test_a_frame_comes_again_until_each_of_its_messages_is_acknowledged(bench: Bench) -> None:
    first = bench.connect().subscribe(bench.topic, "g")
    publish(bench, [frame(*numbered(5)), Message(b"5")])
    taken = receive(first, 6)
    first.acknowledge(each for each in taken if each.message.body != b"3")
    first.close()
    second = bench.connect().subscribe(bench.topic, "g")
    again: list[int] = []
    while 3 not in again:
        taken = receive(second, 1)
        second.acknowledge(taken)
        again += bodies(taken)
    while taken := list(second.receive(10, 1.0)):
        second.acknowledge(taken)
    second.close()
    publish(bench, [Message(b"6")])
    third = bench.connect().subscribe(bench.topic, "g")
    assert bodies(receive(third, 1)) == [6]
    third.close()


def test_no_more_of_a_frame_is_received_than_asked_for(bench: Bench) -> None:
    subscription = bench.connect().subscribe(bench.topic, "g")
    publish(bench, [frame(*numbered(5))])
    taken: list[Delivery] = []
    while len(taken) < 5:
        some = subscription.receive(2, 1.0)
        assert len(some) <= 2
        taken += some
    assert bodies(taken) == list(range(5))
    subscription.close()


def test_a_frame_that_cannot_be_read_arrives_as_it_was_sent(bench: Bench) -> None:
    too_short = Message(b"\x92\x92\x80\xc4\x01x", {"frame": "2"})
    sound, uncounted = frame(Message(b"x")), Message(b"x", {"frame": ""})
    subscription = bench.connect().subscribe(bench.topic, "g")
    publish(bench, [too_short, sound, uncounted])
    received = [each.message for each in receive(subscription, 3)]
    assert sorted(received, key=repr) == sorted([too_short, Message(b"x"), uncounted], key=repr)
    subscription.close()


def test_an_empty_body_arrives_empty(bench: Bench) -> None:
    subscription = bench.connect().subscribe(bench.topic, "g")
    publish(bench, [Message(b"")])
    assert receive(subscription, 1)[0].message.body == b""
    subscription.close()


def test_the_members_of_a_group_share_and_another_group_gets_all(bench: Bench) -> None:
    members = [bench.connect().subscribe(bench.topic, "shared") for _ in range(2)]
    other = bench.connect().subscribe(bench.topic, "other")
    publish(bench, numbered(40))
    received: list[Delivery] = []
    end = time.monotonic() + PATIENCE_S
    while len(received) < 40 and time.monotonic() < end:
        for member in members:
            taken = member.receive(10, 0.1)
            member.acknowledge(taken)
            received += taken
    assert bodies(received) == list(range(40))
    assert bodies(receive(other, 40)) == list(range(40))
    for subscription in (*members, other):
        subscription.close()


def test_a_subscription_knows_how_much_it_has_not_received(bench: Bench) -> None:
    subscription = bench.connect().subscribe(bench.topic, "g")
    publish(bench, numbered(1))
    subscription.acknowledge(receive(subscription, 1))
    publish(bench, numbered(20))
    end = time.monotonic() + PATIENCE_S
    while (lag := subscription.lag()) != 20:
        assert time.monotonic() < end, f"the lag is {lag}, not 20"
        time.sleep(0.02)
    receive(subscription, 15)
    assert subscription.lag() == 5
    receive(subscription, 5)
    assert subscription.lag() == 0
    subscription.close()


def test_what_was_not_acknowledged_comes_again(bench: Bench) -> None:
    first = bench.connect().subscribe(bench.topic, "g")
    publish(bench, numbered(10))
    taken = receive(first, 10)
    kept = [delivery for delivery in taken if int(delivery.message.body) not in (3, 8)]
    first.acknowledge(kept)
    first.close()
    second = bench.connect().subscribe(bench.topic, "g")
    again: set[int] = set()
    end = time.monotonic() + PATIENCE_S
    while not {3, 8} <= again:
        assert time.monotonic() < end, f"only {again} came again"
        again |= set(bodies(second.receive(10, 0.5)))
    second.close()


def test_what_was_acknowledged_does_not_come_again(bench: Bench) -> None:
    first = bench.connect().subscribe(bench.topic, "g")
    publish(bench, numbered(10))
    taken = receive(first, 10)
    first.acknowledge(reversed(taken))
    first.close()
    publish(bench, [Message(b"10")])
    second = bench.connect().subscribe(bench.topic, "g")
    assert bodies(receive(second, 1)) == [10]
    assert second.receive(10, 0.3) == []
    second.close()


def test_a_group_that_comes_late_gets_what_was_there_before(bench: Bench) -> None:
    publish(bench, numbered(5))
    subscription = bench.connect().subscribe(bench.topic, "late")
    assert bodies(receive(subscription, 5, bench.patience_s)) == list(range(5))
    subscription.close()


def test_receive_takes_no_more_than_asked_and_comes_back_with_nothing_in_time(bench: Bench) -> None:
    subscription = bench.connect().subscribe(bench.topic, "g")
    publish(bench, numbered(5))
    receive(subscription, 1)
    taken = []
    while len(taken) < 4:
        some = subscription.receive(2, 1.0)
        assert len(some) <= 2
        taken += some
    started = time.monotonic()
    assert subscription.receive(10, 0.3) == []
    assert time.monotonic() - started < 5
    subscription.close()


def test_the_first_reply_is_never_missed(bench: Bench) -> None:
    """Published the moment the inbox is open, fifteen times."""
    broker = bench.connect()
    for number in range(15):
        inbox = bench.connect().open_inbox(bench.topic, f"gateway-{number}")
        broker.publish(inbox.address, Message(str(number).encode())).result(PATIENCE_S)
        assert receive_reply(inbox).body == str(number).encode()
        inbox.close()


def test_an_inbox_gets_nothing_from_before_it_was_opened(bench: Bench) -> None:
    broker = bench.connect()
    address = bench.connect().open_inbox(bench.topic, "same").address
    broker.publish(address, Message(b"old")).result(PATIENCE_S)
    inbox = bench.connect().open_inbox(bench.topic, "same")
    broker.publish(inbox.address, Message(b"new")).result(PATIENCE_S)
    assert receive_reply(inbox).body == b"new"
    inbox.close()


def test_the_address_names_the_topic(bench: Bench) -> None:
    inbox = bench.connect().open_inbox(bench.topic, "i")
    topic, slash, _ = inbox.address.partition("/")
    assert (topic, slash) == (bench.topic, "/")
    inbox.close()


def test_a_message_over_the_limit_is_refused_at_once(bench: Bench) -> None:
    with pytest.raises(MessageTooLarge):
        bench.connect().publish(bench.topic, Message(bytes(MAX_MESSAGE_BYTES + 1)))


def test_a_closed_broker_takes_nothing(bench: Bench) -> None:
    broker = bench.connect()
    broker.close()
    with pytest.raises(BrokerUnavailable):
        broker.publish(bench.topic, Message(b""))


def test_all_who_listen_to_a_topic_hear_each_message_from_then_on(bench: Bench) -> None:
    publish_to_feed = bench.connect().publish
    first = bench.connect().listen(bench.topic)
    publish_to_feed(feed(bench.topic), Message(b"1")).result(PATIENCE_S)
    second = bench.connect().listen(bench.topic)
    publish_to_feed(feed(bench.topic), Message(b"2")).result(PATIENCE_S)
    assert [receive_reply(first).body, receive_reply(first).body] == [b"1", b"2"]
    assert receive_reply(second).body == b"2"
    first.close()
    second.close()
