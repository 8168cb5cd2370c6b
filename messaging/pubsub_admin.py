"""Making a project's topics and subscriptions, and reading what one of them keeps: the dead letters."""

import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from google.iam.v1 import iam_policy_pb2
from google.protobuf.duration_pb2 import Duration
from google.protobuf.empty_pb2 import Empty
from google.protobuf.timestamp_pb2 import Timestamp
from google.pubsub_v1.types import pubsub as types

from messaging import BrokerSettings
from messaging.broker import (
    ALONE,
    BrokerError,
    BrokerRefuses,
    Delivery,
    Message,
    NoSuchRecord,
    NotSupported,
    Planned,
    Right,
    Topic,
    TopicMissing,
)
from messaging.pubsub_link import (
    MOST_ACK_IDS,
    Link,
    headers_of,
    parse_url,
)

_log = logging.getLogger("mlaas.pubsub")

LEASE_S = 10
"""How long a message is one process's alone, unless it asks for more: the shortest that there is."""

_READERS = "records"
"""The group that nobody is in: its subscription keeps what records() shows."""
_SHORTEST_S, _LONGEST_S = 600, 7 * 86_400  # that a subscription may keep messages
_LETTERS_LEASE_S = 60
_AT_ONCE = 100

_Topic = types.Topic.pb()
_GetTopicRequest = types.GetTopicRequest.pb()
_Subscription = types.Subscription.pb()
_GetSubscriptionRequest = types.GetSubscriptionRequest.pb()
_DeleteSubscriptionRequest = types.DeleteSubscriptionRequest.pb()
_ExpirationPolicy = types.ExpirationPolicy.pb()
_PullRequest = types.PullRequest.pb()
_PullResponse = types.PullResponse.pb()
_AcknowledgeRequest = types.AcknowledgeRequest.pb()
_ModifyAckDeadlineRequest = types.ModifyAckDeadlineRequest.pb()
_SeekRequest = types.SeekRequest.pb()
_SeekResponse = types.SeekResponse.pb()


def create_subscription(link: Link, topic: str, name: str, **more: Any) -> bool:
    """Returns whether it is a new one. more: fields of a Subscription. Raises BrokerError."""
    wanted = _Subscription(
        name=link.subscription(name), topic=link.topic(topic), ack_deadline_seconds=LEASE_S, **more
    )
    return link.create("Subscriber/CreateSubscription", wanted)


def subscription_of(topic: str, group: str) -> str:
    """The name of the subscription that the members of the group share."""
    return f"{topic}.{group}"


class PubSubAdministration:
    """Implements broker.Administration."""

    def __init__(self, broker: BrokerSettings) -> None:
        """Raises ValueError for an invalid URL."""
        self._project = parse_url(broker.url)

    def plan(self, topics: Sequence[Topic], timeout: float = 30.0) -> Sequence[Planned]:
        link = Link(self._project)
        try:
            return [each for topic in topics for each in _planned(link, topic, timeout)]
        finally:
            link.close()

    def apply(self, topics: Sequence[Topic], timeout: float = 30.0) -> Mapping[str, bool]:
        link = Link(self._project)
        made: dict[str, bool] = {}
        try:
            for topic in topics:
                path = link.topic(topic.name)
                made[topic.name] = link.create("Publisher/CreateTopic", _Topic(name=path), timeout)
                for name in _subscriptions(topic):
                    if not made[topic.name]:
                        _delete_detached(link, name, timeout)
                    made[name] = create_subscription(link, topic.name, name, **_wanted(topic))
        finally:
            link.close()
        return made

    def grant(self, user: str, rights: Sequence[Right], timeout: float = 30.0) -> None:
        raise NotSupported(
            "rights on Google Pub/Sub are roles of IAM, which `gcloud` grants: docs/brokers.md lists them"
        )


def _subscriptions(topic: Topic) -> Sequence[str]:
    """The names of those that are made beforehand."""
    groups = [*topic.groups, _READERS] if topic.is_kept else topic.groups
    return [subscription_of(topic.name, group) for group in groups]


def _wanted(topic: Topic) -> dict[str, Any]:
    """The fields of a subscription that follow from its topic."""
    return {
        "message_retention_duration": Duration(seconds=_retention_s(topic)),
        "expiration_policy": _ExpirationPolicy(),  # never
    }


def _retention_s(topic: Topic) -> int:
    return min(max(topic.retention_ms // 1000, _SHORTEST_S), _LONGEST_S)


def _planned(link: Link, topic: Topic, timeout: float) -> Iterator[Planned]:
    what = f"topic {topic.name}"
    try:
        link.ask("Publisher/GetTopic", _GetTopicRequest(topic=link.topic(topic.name)), _Topic, timeout)
        yield _allowed(link, what, link.topic(topic.name), "pubsub.topics.publish", timeout)
    except TopicMissing:
        yield Planned(what, "missing")
    except BrokerRefuses as error:
        yield _refused(what, error)
    for name in _subscriptions(topic):
        yield _planned_subscription(link, topic, name, timeout)


def _planned_subscription(link: Link, topic: Topic, name: str, timeout: float) -> Planned:
    what, path = f"subscription {name}", link.subscription(name)
    try:
        request = _GetSubscriptionRequest(subscription=path)
        found = link.ask("Subscriber/GetSubscription", request, _Subscription, timeout)
    except TopicMissing:
        return Planned(what, "missing")
    except BrokerRefuses as error:
        return _refused(what, error)
    if found.topic != link.topic(topic.name):
        return Planned(what, "missing", f"it reads {found.topic.rpartition('/')[2]}")
    has_s, wanted_s = found.message_retention_duration.seconds, _retention_s(topic)
    if has_s and has_s < wanted_s:
        return Planned(what, "differs", f"it keeps messages for {has_s} s instead of {wanted_s}")
    return _allowed(link, what, path, "pubsub.subscriptions.consume", timeout)


def _allowed(link: Link, what: str, path: str, permission: str, timeout: float) -> Planned:
    """Whether these credentials may use it."""
    request = iam_policy_pb2.TestIamPermissionsRequest(resource=path, permissions=[permission])
    try:
        answer = link.ask(
            "google.iam.v1.IAMPolicy/TestIamPermissions",
            request,
            iam_policy_pb2.TestIamPermissionsResponse,
            timeout,
        )
    except NotSupported:  # the fake allows everything
        return Planned(what, "ready")
    if permission not in answer.permissions:
        return Planned(what, "differs", f"these credentials lack {permission}, which not everyone needs")
    return Planned(what, "ready")


def _refused(what: str, error: BrokerRefuses) -> Planned:
    return Planned(what, "unfit", str(error), "see the roles in docs/brokers.md")


def _delete_detached(link: Link, name: str, timeout: float) -> None:
    """A subscription of a topic that was deleted would never get a message of the new one."""
    try:
        if link.topic_of(name).rpartition("/")[2] == "_deleted-topic_":
            request = _DeleteSubscriptionRequest(subscription=link.subscription(name))
            link.ask("Subscriber/DeleteSubscription", request, Empty, timeout)
    except BrokerRefuses as error:
        _log.debug("%s", error)


class PubSubPosition(NamedTuple):
    """The Position of a message: when it was published, in epoch milliseconds, and its id.

    place: in a frame, or ALONE.
    """

    published_ms: int
    id: str
    place: int = ALONE

    def __str__(self) -> str:
        return self.id if self.place == ALONE else f"{self.id}.{self.place}"


def delivery_of(topic: str, received: Any) -> Delivery:
    """A frame as it was sent."""
    message = received.message
    published_ms = message.publish_time.ToMilliseconds()
    return Delivery(
        Message(message.data, headers_of(message.attributes)),
        topic,
        PubSubPosition(published_ms, message.message_id),
        published_ms,
        received.ack_id,
    )


class PubSubRecords:
    """Implements broker.Records: takes what a subscription keeps, and hands it back.

    Meanwhile nobody else sees it. It is made with the topic; what was published before it is not there.
    """

    def __init__(self, link: Link, topic: str, clock: Callable[[], float] = time.time) -> None:
        """clock: epoch seconds. Raises BrokerError."""
        self._link = link
        self._topic = topic
        self._clock = clock
        self._name = subscription_of(topic, _READERS)
        self._path = link.subscription(self._name)
        self._held: dict[str, str] = {}
        """What is to be handed back: ack ids by position."""
        try:
            create_subscription(link, topic, self._name, expiration_policy=_ExpirationPolicy())
        except BrokerRefuses as error:  # it may read the one that is there
            _log.debug("%s", error)
        except BrokerError:
            link.close()
            raise

    def count(self, before: str = "") -> int:
        everything = list(self._taken())
        try:
            return len(_older(everything, before))
        finally:
            self._hand_back()

    def read(self, newest: int | None = None) -> Iterator[Delivery]:
        """All of them, whatever newest is: the service has no order, and no end to begin from."""
        try:
            yield from self._taken()
        finally:
            self._hand_back()

    def find(self, position: str) -> Delivery:
        try:
            for each in self._taken():
                if str(each.position) == position:
                    return each
        finally:
            self._hand_back()
        raise NoSuchRecord(f"no record {position} in {self._topic}, unless another command is reading it")

    def delete(self, positions: Collection[str]) -> int:
        try:
            found = [str(each.position) for each in self._taken() if str(each.position) in positions]
            self._acknowledge([self._held.pop(each) for each in found])
            return len(found)
        finally:
            self._hand_back()

    def purge(self, before: str = "") -> int:
        if before:
            return self.delete({str(each.position) for each in _older(list(self.read()), before)})
        deleted = self.count()
        now = Timestamp()
        now.FromNanoseconds(int(self._clock() * 1e9))
        self._link.ask("Subscriber/Seek", _SeekRequest(subscription=self._path, time=now), _SeekResponse)
        return deleted

    def close(self) -> None:
        self._link.close()

    def _taken(self) -> Iterator[Delivery]:
        """What was published before now. Ends when twice in a row nothing new comes."""
        until_ms, empty = self._clock() * 1000, 0
        while empty < 2:
            request = _PullRequest(subscription=self._path, max_messages=_AT_ONCE)
            received = self._link.ask("Subscriber/Pull", request, _PullResponse).received_messages
            taken = [(delivery_of(self._topic, each), each.ack_id) for each in received]
            new = [each for each, _ in taken if str(each.position) not in self._held]
            self._held.update((str(each.position), ack_id) for each, ack_id in taken)
            self._modify([ack_id for _, ack_id in taken], _LETTERS_LEASE_S)
            empty = 0 if new else empty + 1
            yield from (each for each in new if each.timestamp_ms <= until_ms)

    def _hand_back(self) -> None:
        held, self._held = list(self._held.values()), {}
        self._modify(held, 0)

    def _modify(self, ack_ids: Sequence[str], seconds: int) -> None:
        for start in range(0, len(ack_ids), MOST_ACK_IDS):
            some = ack_ids[start : start + MOST_ACK_IDS]
            request = _ModifyAckDeadlineRequest(
                subscription=self._path, ack_ids=some, ack_deadline_seconds=seconds
            )
            self._link.ask("Subscriber/ModifyAckDeadline", request, Empty)

    def _acknowledge(self, ack_ids: Sequence[str]) -> None:
        for start in range(0, len(ack_ids), MOST_ACK_IDS):
            some = ack_ids[start : start + MOST_ACK_IDS]
            request = _AcknowledgeRequest(subscription=self._path, ack_ids=some)
            self._link.ask("Subscriber/Acknowledge", request, Empty)


def _older(deliveries: Sequence[Delivery], before: str) -> Sequence[Delivery]:
    """Those that were published before this one; without one, all. Raises NoSuchRecord."""
    if not before:
        return deliveries
    its = next((each.position for each in deliveries if str(each.position) == before), None)
    if its is None:
        raise NoSuchRecord(f"no record {before}")
    return [each for each in deliveries if each.position < its]
