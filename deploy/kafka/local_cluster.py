"""Runs several Apache Kafka brokers on this machine, without containers."""

from typing import Self

from deploy.kafka.local_kafka import LocalKafka, Node
from deploy.kafka.ports import free_port


class LocalCluster:
    """A cluster of brokers that are also controllers, so a majority must be up. A context manager."""

    def __init__(self, size: int = 3) -> None:
        first = free_port(in_a_row=size)
        ports = tuple(range(first, first + size))
        self.brokers = [LocalKafka(node=Node(number, ports)) for number in range(1, size + 1)]

    @property
    def bootstrap_servers(self) -> str:
        return ",".join(broker.bootstrap_servers for broker in self.brokers)

    def __enter__(self) -> Self:
        try:
            for broker in self.brokers:
                broker.launch()
            for broker in self.brokers:
                broker.wait_until_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for broker in self.brokers:
            broker.kill()
            broker.__exit__()
