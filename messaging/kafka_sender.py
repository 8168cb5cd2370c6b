"""Publishing through librdkafka: a producer that can be replaced, and the thread that serves its reports."""

import threading
from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass, field

from confluent_kafka import KafkaError, KafkaException, Producer

from messaging.broker import BrokerError, BrokerUnavailable, Message, QueueFull
from messaging.kafka_config import ClientLog, Properties, is_fatal, translate, translated
from messaging.kafka_reader import encode_headers
from messaging.kafka_topics import ANY

_ANSWER_TIMEOUT_S = 2.0
_TURN_S = 0.1


@dataclass(slots=True, eq=False)
class _Sending:
    """One message on its way, over as many producers as it takes.

    or_any: another partition will do. unknown: the producer did not know the partition.
    """

    topic: str
    partition: int
    message: Message
    or_any: bool
    unknown: bool = False
    published: Future[None] = field(default_factory=Future)


class Sender:
    """Safe to use from several threads.

    The producer is replaced when it cannot go on: after a fatal error, after renew(), and when a message
    timed out, for there may be a broker that the producer does not find. What it has not sent yet, its
    successor sends.
    """

    def __init__(self, properties: Properties) -> None:
        """Connects in the background. Raises ValueError or BrokerError for properties that cannot be."""
        self._properties = properties
        self._stale = threading.Event()
        self._changing = threading.Lock()
        self._producer = self._new_producer()
        self._retired: list[Producer] = []
        self._unsent: deque[_Sending] = deque()
        self._closing = threading.Event()
        self._poller = threading.Thread(target=self._serve, name="kafka-reports", daemon=True)
        self._poller.start()

    def send(self, topic: str, partition: int, message: Message, *, or_any: bool = False) -> Future[None]:
        """To a partition, or to any for ANY. or_any: to another if there is no such. See Broker.publish."""
        if self._closing.is_set():
            raise BrokerUnavailable("the broker is closed")
        sending = _Sending(topic, partition, message, or_any)
        sending.published.set_running_or_notify_cancel()  # else a waiter's cancel makes the report raise
        self._produce(sending)
        return sending.published

    def led_partitions(self, topic: str) -> list[int]:
        """Those that have a leader. The producer knows them from then on. Raises BrokerError."""
        with translated(f"topic {topic}"):
            found = self._producer.list_topics(topic, timeout=_ANSWER_TIMEOUT_S).topics[topic]
        return sorted(number for number, its in found.partitions.items() if its.leader >= 0)

    def renew(self) -> None:
        """Go on with another producer, soon."""
        self._stale.set()

    def close(self) -> None:
        """Send what is still waiting, for a short while."""
        if not self._closing.is_set():
            self._closing.set()
            self._poller.join()
            self._producer.flush(5)
            for sending in self._unsent:
                sending.published.set_exception(BrokerUnavailable("the broker is closed"))

    def _produce(self, sending: _Sending) -> None:
        what = f"publish to {sending.topic}"
        headers = encode_headers(sending.message.headers)
        try:
            with self._changing:
                producer = self._producer

                def report(error: KafkaError | None, _: object) -> None:
                    self._report(producer, sending, error)

                producer.produce(
                    sending.topic,
                    sending.message.body,
                    partition=sending.partition,
                    headers=headers,
                    on_delivery=report,
                )
        except BufferError as error:
            raise QueueFull(f"{what}: {error}") from error
        except KafkaException as error:
            if not self._goes_on(sending, error.args[0]):
                raise translate(error.args[0], what) from error

    def _report(self, producer: Producer, sending: _Sending, error: KafkaError | None) -> None:
        if error is None:
            sending.published.set_result(None)
            return
        if error.code() == KafkaError._MSG_TIMED_OUT and producer is self._producer:
            self._stale.set()
        if not self._goes_on(sending, error):
            sending.published.set_exception(translate(error, f"publish to {sending.topic}"))

    def _goes_on(self, sending: _Sending, error: KafkaError) -> bool:
        """Whether it is sent again: by another producer, or when this one has asked for new partitions."""
        is_new = error.code() == KafkaError._UNKNOWN_PARTITION and not sending.unknown
        if not is_new and error.code() != KafkaError._PURGE_QUEUE:
            return False
        sending.unknown = sending.unknown or is_new
        self._unsent.append(sending)
        return True

    def _send_again(self) -> None:
        learned: dict[str, BrokerError | None] = {}
        for _ in range(len(self._unsent)):
            sending = self._unsent.popleft()
            try:
                if sending.unknown:
                    self._learn(sending.topic, learned)
                    sending.partition = ANY if sending.or_any else sending.partition
                self._produce(sending)
            except BrokerError as error:
                sending.published.set_exception(error)

    def _learn(self, topic: str, learned: dict[str, BrokerError | None]) -> None:
        """Once for all that wait for it. Raises BrokerError."""
        if topic not in learned:
            learned[topic] = None
            try:
                self.led_partitions(topic)
            except BrokerError as error:
                learned[topic] = error
        if (failure := learned[topic]) is not None:
            raise failure

    def _new_producer(self) -> Producer:
        with translated(f"broker {self._properties['bootstrap.servers']}"):
            return Producer(self._properties, logger=ClientLog(), error_cb=self._note)

    def _note(self, error: KafkaError) -> None:
        """A message fails or succeeds by its own delivery report. After a fatal error all of them fail."""
        if is_fatal(error):
            self._stale.set()

    def _serve(self) -> None:
        while not self._closing.is_set():
            if self._stale.is_set():
                self._stale.clear()
                self._replace_producer()
            self._producer.poll(_TURN_S)
            self._serve_retired()
            if self._unsent:
                self._send_again()
        self._send_again()

    def _replace_producer(self) -> None:
        successor = self._new_producer()
        with self._changing:
            retired, self._producer = self._producer, successor
        retired.purge(in_queue=True, in_flight=False)
        self._retired.append(retired)

    def _serve_retired(self) -> None:
        """Until the broker has said of each message what became of it."""
        for retired in self._retired:
            retired.poll(0)
        self._retired = [retired for retired in self._retired if len(retired)]
