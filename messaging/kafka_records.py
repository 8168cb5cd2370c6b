"""A topic as Kafka keeps it: reading it without a group, and deleting from its old end."""

import time
from collections.abc import Callable, Iterator, Mapping

from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from messaging.broker import BrokerUnavailable, Delivery, NotSupported
from messaging.kafka_config import Properties
from messaging.kafka_errors import translated
from messaging.kafka_log import ClientLog
from messaging.kafka_reader import Reader, delivery_of

_SILENCE_S = 30.0
_DELETE_TIMEOUT_S = 30.0


class KafkaRecords:
    def __init__(
        self, reader: Reader, topic: str, admin: Properties, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """admin: the properties of the client that deletes. Raises TopicMissing."""
        self._reader = reader
        self._topic = topic
        self._admin = admin
        self._clock = clock
        self._partitions = reader.partitions(topic)

    def bounds(self) -> Mapping[int, range]:
        return {
            partition: self._reader.offsets(self._topic, partition) for partition in range(self._partitions)
        }

    def read(self, partition: int, offsets: range) -> Iterator[Delivery]:
        """Ends at the last of the offsets, or where the partition ends before."""
        if not offsets:
            return
        self._reader.read_from(self._topic, partition, offsets.start)
        heard_at = self._clock()
        while not self._reader.is_at_end:
            records = self._reader.read(100, 0.2)
            for record in records:
                delivery = delivery_of(record)
                if delivery.offset in offsets:
                    yield delivery
                if delivery.offset >= offsets[-1]:
                    return
            if records:
                heard_at = self._clock()
            elif self._clock() - heard_at > _SILENCE_S:
                raise BrokerUnavailable(f"read {self._topic}/{partition}: nothing came for {_SILENCE_S:g} s")

    def delete_before(self, offsets: Mapping[int, int]) -> None:
        if not offsets:
            return
        client = AdminClient(self._admin, logger=ClientLog())
        wanted = [TopicPartition(self._topic, partition, offset) for partition, offset in offsets.items()]
        deleting = client.delete_records(
            wanted, request_timeout=_DELETE_TIMEOUT_S, operation_timeout=_DELETE_TIMEOUT_S
        )
        try:
            for place, future in deleting.items():
                with translated(f"delete from {self._topic}/{place.partition}"):
                    future.result()
        except NotSupported as error:
            raise NotSupported("this broker cannot delete; the embedded one ends with its process") from error

    def close(self) -> None:
        self._reader.close()
