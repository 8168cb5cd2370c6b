"""What the cluster says about the topics in use: where messages go, and which topics were created again."""

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from messaging.broker import BrokerError
from messaging.kafka_config import ClientLog, Properties, translated

ANY = -1
"""The client chooses."""

_ASK_AGAIN_S = 1.0
_ANSWER_TIMEOUT_S = 5.0
# Half of a worker's batch. With more, some workers wait for others; with fewer, the broker has more to do.
_GATHERED_IN_A_ROW = 16
# A group reads partitions that were added after its next look at the metadata
# (topic.metadata.refresh.interval.ms) and two rebalances.
READ_AFTER_S = 15.0


@dataclass(slots=True)
class _Topic:
    """since: when each partition was first seen to have a leader. sent counts in messages sent alone."""

    led: Sequence[int] = ()
    since: dict[int, float] = field(default_factory=dict)
    sent: int = 0
    published: bool = False
    id: str = ""
    incarnation: int = 0


class Topics:
    """Asks about the topics in use once a second, in a thread of its own.

    ask_led returns a topic's partitions that have a leader now, and may raise BrokerError. ask_ids returns
    the ids of those topics that it knows by now, and does not wait. on_recreated is called when a topic has
    another id than before: librdkafka takes what it hears about such a topic for outdated while the leader
    epochs are below those of the deleted one, so clients that knew it must be replaced.
    """

    def __init__(
        self,
        ask_led: Callable[[str], Sequence[int]],
        ask_ids: Callable[[Collection[str]], Mapping[str, str]],
        on_recreated: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask_led = ask_led
        self._ask_ids = ask_ids
        self._on_recreated = on_recreated
        self._clock = clock
        self._lock = threading.Lock()
        self._topics: dict[str, _Topic] = {}
        self._closing = threading.Event()
        self._asker: threading.Thread | None = None

    def next(self, topic: str, *, gather: bool) -> int:
        """Every partition that has a leader gets its turn; ANY while they are unknown.

        librdkafka's own choice is random, and what comes within 10 ms goes to the same partition: of workers
        that answer a batch at once, some get several and some none. Gathered messages go to one partition
        several in a row. Partitions that were added get their turn when workers have had time to find them.
        """
        with self._lock:
            its = self._watched(topic)
            its.published = True
            if not its.led:
                return ANY
            sent = its.sent
            its.sent += 1 if gather else _GATHERED_IN_A_ROW
            return its.led[sent // _GATHERED_IN_A_ROW % len(its.led)]

    def watch(self, topic: str) -> None:
        """Notice from now on when it is deleted and created again."""
        with self._lock:
            self._watched(topic)

    def incarnation(self, topic: str) -> int:
        """Rises each time that it was created again."""
        with self._lock:
            return self._watched(topic).incarnation

    def id(self, topic: str) -> str:
        """Empty while it is unknown."""
        with self._lock:
            return self._watched(topic).id

    def refresh(self) -> None:
        """Of a topic that nothing is heard of, what was known stays."""
        self._refresh_ids()
        for name, its in list(self._topics.items()):
            if its.published:
                self._refresh_led(name, its)

    def close(self) -> None:
        self._closing.set()

    def _watched(self, topic: str) -> _Topic:
        its = self._topics.setdefault(topic, _Topic())
        if self._asker is None:
            self._asker = threading.Thread(target=self._keep_asking, name="kafka-topics", daemon=True)
            self._asker.start()
        return its

    def _refresh_ids(self) -> None:
        try:
            ids = self._ask_ids(list(self._topics))
        except BrokerError:
            return
        recreated = False
        with self._lock:
            for name, found in ids.items():
                its = self._topics[name]
                if its.id not in ("", found):
                    recreated = True
                    its.incarnation += 1
                    its.since.clear()
                its.id = found
        if recreated:
            self._on_recreated()

    def _refresh_led(self, name: str, its: _Topic) -> None:
        try:
            led = self._ask_led(name)
        except BrokerError:
            return
        now = self._clock()
        with self._lock:
            first = now if its.since else now - READ_AFTER_S
            for partition in led:
                its.since.setdefault(partition, first)
            its.led = [partition for partition in led if now - its.since[partition] >= READ_AFTER_S]

    def _keep_asking(self) -> None:
        while not self._closing.is_set():
            self.refresh()
            self._closing.wait(_ASK_AGAIN_S)


class TopicIds:
    """Asks for the ids of topics, and returns at once with what came of the question before.

    A broker that cannot say, as librdkafka's mock, lets the question time out; it holds nobody up.
    """

    def __init__(self, properties: Properties) -> None:
        self._properties = properties
        self._admin: AdminClient | None = None
        self._asked: Mapping[str, Future[object]] = {}

    def __call__(self, topics: Collection[str]) -> Mapping[str, str]:
        """Raises BrokerError."""
        if not all(asked.done() for asked in self._asked.values()):
            return {}
        found = {name: its for name, asked in self._asked.items() if (its := _topic_id(asked))}
        with translated("topic ids"):
            self._admin = self._admin or AdminClient(self._properties, logger=ClientLog())
            self._asked = (
                self._admin.describe_topics(TopicCollection(list(topics)), request_timeout=_ANSWER_TIMEOUT_S)
                if topics
                else {}
            )
        return found


def _topic_id(asked: "Future[object]") -> str:
    """Empty for a topic that is not there, and from brokers before 2.8, which have none."""
    try:
        found = asked.result().topic_id  # type: ignore[attr-defined]
    except KafkaException:
        return ""
    return "" if not found.get_most_significant_bits() else str(found)
