"""One librdkafka producer, and the thread that serves its delivery reports."""

import threading
from concurrent.futures import Future

from confluent_kafka import KafkaError, Producer

from messaging.broker import BrokerUnavailable, Message, QueueFull
from messaging.kafka_config import Properties
from messaging.kafka_errors import is_fatal, translate, translated
from messaging.kafka_log import ClientLog
from messaging.kafka_reader import encode_headers

_ANSWER_TIMEOUT_S = 2.0


class Sender:
    """Safe to use from several threads. A producer that cannot go on is replaced by another."""

    def __init__(self, properties: Properties) -> None:
        """Connects in the background. Raises ValueError or BrokerError for properties that cannot be."""
        self._properties = properties
        self._broken = threading.Event()
        self._producer = self._new_producer()
        self._closing = threading.Event()
        self._poller = threading.Thread(
            target=self._serve_delivery_reports, name="kafka-reports", daemon=True
        )
        self._poller.start()

    def send(self, topic: str, partition: int, message: Message) -> Future[None]:
        """To a partition, or to any for -1. See Broker.publish."""
        if self._closing.is_set():
            raise BrokerUnavailable("the broker is closed")
        published: Future[None] = Future()
        published.set_running_or_notify_cancel()  # else a waiter's cancel makes the delivery report raise

        def report(error: KafkaError | None, _: object) -> None:
            if error is None:
                published.set_result(None)
            else:
                published.set_exception(translate(error, f"publish to {topic}"))

        headers = encode_headers(message.headers)
        try:
            with translated(f"publish to {topic}"):
                self._producer.produce(
                    topic, message.body, partition=partition, headers=headers, on_delivery=report
                )
        except BufferError as error:
            raise QueueFull(f"publish to {topic}: {error}") from error
        return published

    def led_partitions(self, topic: str) -> list[int]:
        """Those that have a leader. Raises BrokerError."""
        with translated(f"topic {topic}"):
            found = self._producer.list_topics(topic, timeout=_ANSWER_TIMEOUT_S).topics[topic]
        return sorted(number for number, its in found.partitions.items() if its.leader >= 0)

    def close(self) -> None:
        """Send what is still waiting, for a short while."""
        if not self._closing.is_set():
            self._closing.set()
            self._poller.join()
            self._producer.flush(5)

    def _new_producer(self) -> Producer:
        with translated(f"broker {self._properties['bootstrap.servers']}"):
            return Producer(self._properties, logger=ClientLog(), error_cb=self._note)

    def _note(self, error: KafkaError) -> None:
        """A message fails or succeeds by its own delivery report. After a fatal error all of them fail."""
        if is_fatal(error):
            self._broken.set()

    def _serve_delivery_reports(self) -> None:
        while not self._closing.is_set():
            if self._broken.is_set():
                self._broken.clear()
                broken, self._producer = self._producer, self._new_producer()
                broken.flush(1)
            self._producer.poll(0.1)
