"""A picture to Kafka and back, and nothing else: `python -m bench.limits.ping_pong HOST:PORT`.

Two processes, two topics of one partition, confluent-kafka with its producers told not to linger.
"""

import argparse
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

import msgspec
from confluent_kafka import Consumer, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from tests.e2e.services import SAMPLES

IN_FLIGHT = 64
_WARM_UP = 200
_PATIENCE_S = 10.0


class PingPong(msgspec.Struct, frozen=True):
    """p50_ms: one at a time. per_s: with IN_FLIGHT under way."""

    p50_ms: float
    per_s: float


class _Line:
    """What goes out on one topic, and what comes in on the other."""

    def __init__(self, servers: str, out: str, back: str) -> None:
        self._out = out
        self._producer = Producer(
            {"bootstrap.servers": servers, "linger.ms": 0, "acks": "all", "log_level": 3}
        )
        self._consumer = Consumer(
            {"bootstrap.servers": servers, "group.id": back, "enable.auto.commit": False}
        )
        self._consumer.assign([TopicPartition(back, 0, 0)])

    def send(self, body: bytes) -> None:
        self._producer.produce(self._out, body, partition=0)
        self._producer.poll(0)

    def receive(self) -> bytes:
        message: Message | None = self._consumer.poll(_PATIENCE_S)
        if message is None or message.error():
            sys.exit(f"nothing came back over Kafka: {message and message.error()}")
        return message.value() or b""


def echo(servers: str, out: str, back: str) -> None:
    line = _Line(servers, out, back)
    while body := line.receive():
        line.send(body)


def measure(line: _Line, body: bytes, seconds: float) -> PingPong:
    for _ in range(_WARM_UP):
        _once(line, body)
    end = time.perf_counter() + seconds / 2
    waits_ms = []
    while time.perf_counter() < end:
        waits_ms.append(_once(line, body))
    return PingPong(median(waits_ms), _pipelined(line, body, seconds / 2))


def _once(line: _Line, body: bytes) -> float:
    started = time.perf_counter()
    line.send(body)
    line.receive()
    return (time.perf_counter() - started) * 1000


def _pipelined(line: _Line, body: bytes, seconds: float) -> float:
    for _ in range(IN_FLIGHT):
        line.send(body)
    came, started = 0, time.perf_counter()
    while (passed_s := time.perf_counter() - started) < seconds:
        line.receive()
        line.send(body)
        came += 1
    for _ in range(IN_FLIGHT):
        line.receive()
    return came / passed_s


@contextmanager
def _echoing(servers: str, line_topics: tuple[str, str]) -> Iterator[None]:
    command = [sys.executable, "-m", "bench.limits.ping_pong", servers, "--echo", *line_topics]
    with subprocess.Popen(command) as process:
        try:
            yield
        finally:
            process.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description="Send a picture to Kafka and back; print JSON.")
    parser.add_argument("servers")
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--echo", nargs=2, metavar="TOPIC", help="where to send, where to receive")
    chosen = parser.parse_args()
    if chosen.echo:
        return echo(chosen.servers, *chosen.echo)
    there, back = (f"ping-pong.{uuid.uuid4().hex[:8]}.{way}" for way in ("there", "back"))
    admin = AdminClient({"bootstrap.servers": chosen.servers})
    made = admin.create_topics([NewTopic(name, 1, 1) for name in (there, back)])
    for future in made.values():
        future.result(_PATIENCE_S)
    with _echoing(chosen.servers, (back, there)):
        found = measure(_Line(chosen.servers, there, back), SAMPLES[0].read_bytes(), chosen.seconds)
    for future in admin.delete_topics([there, back]).values():
        future.result(_PATIENCE_S)
    print(msgspec.json.encode(found).decode())


if __name__ == "__main__":
    main()
