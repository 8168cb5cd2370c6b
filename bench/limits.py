"""Each part alone, as the floor that mlaas is measured against; prints JSON.

python -m bench.limits model JPEG        decoding, and the network, in one thread
python -m bench.limits kafka HOST:PORT   a picture to Kafka and back, and nothing else
python -m bench.limits bare --port 8123  an HTTP server that reads the body and answers
"""

import argparse
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import msgspec

from tests.e2e.services import ROOT, SAMPLES

BATCHES = (1, 2, 4, 8, 16, 32)
IN_FLIGHT = 64
_MAX_PIXELS = 25_000_000
_WARM_UP = 200
_PATIENCE_S = 10.0


class ModelAlone(msgspec.Struct, frozen=True):
    """Medians. inference_ms is by batch size; pictures_per_s includes decoding, in batches of 32."""

    inference_ms: dict[int, float]
    decode_small_ms: float
    decode_large_ms: float
    pictures_per_s: float


class KafkaAlone(msgspec.Struct, frozen=True):
    """p50_ms is for one message at a time; per_s is with IN_FLIGHT messages in flight."""

    p50_ms: float
    per_s: float


def model_alone(large: Path, seconds: float) -> ModelAlone:
    import numpy as np

    from model.classifier import load
    from model.preprocessing import prepare

    classifier = load(ROOT / "weights", "fashion-mnist", "onnx", 1)
    small = [path.read_bytes() for path in SAMPLES]
    batch = [small[number % len(small)] for number in range(max(BATCHES))]
    photo = large.read_bytes()

    def pixels(pictures: list[bytes]) -> Any:
        return np.stack([prepare(one, max_pixels=_MAX_PIXELS).pixels for one in pictures])

    seen = pixels(batch)
    share_s = seconds / (len(BATCHES) + 3)
    return ModelAlone(
        inference_ms={
            size: _median_ms(lambda size=size: classifier.predict(seen[:size]), share_s)  # type: ignore[misc]
            for size in BATCHES
        },
        decode_small_ms=_median_ms(lambda: pixels(small), share_s) / len(small),
        decode_large_ms=_median_ms(lambda: pixels([photo]), share_s),
        pictures_per_s=1000 * len(batch) / _median_ms(lambda: classifier.predict(pixels(batch)), share_s),
    )


def _median_ms(work: Callable[[], object], seconds: float) -> float:
    """The median of at least three runs, after one to warm up."""
    work()
    took_ms: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(took_ms) < 3:
        started = time.perf_counter()
        work()
        took_ms.append((time.perf_counter() - started) * 1000)
    return median(took_ms)


class _Line:
    """Sends to one topic and receives from another, each with one partition, without lingering."""

    def __init__(self, servers: str, out: str, back: str) -> None:
        from confluent_kafka import Consumer, Producer, TopicPartition

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
        message = self._consumer.poll(_PATIENCE_S)
        if message is None or message.error():
            sys.exit(f"no message came back over Kafka: {message and message.error()}")
        return message.value() or b""


def kafka_alone(servers: str, seconds: float) -> KafkaAlone:
    from confluent_kafka.admin import AdminClient, NewTopic

    there, back = (f"ping-pong.{uuid.uuid4().hex[:8]}.{way}" for way in ("there", "back"))
    admin = AdminClient({"bootstrap.servers": servers})
    for future in admin.create_topics([NewTopic(name, 1, 1) for name in (there, back)]).values():
        future.result(_PATIENCE_S)
    with _echoing(servers, back, there):
        line, body = _Line(servers, there, back), SAMPLES[0].read_bytes()

        def there_and_back() -> None:
            line.send(body)
            line.receive()

        for _ in range(_WARM_UP):
            there_and_back()
        found = KafkaAlone(_median_ms(there_and_back, seconds / 2), _pipelined(line, body, seconds / 2))
    for future in admin.delete_topics([there, back]).values():
        future.result(_PATIENCE_S)
    return found


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
def _echoing(servers: str, out: str, back: str) -> Iterator[None]:
    with subprocess.Popen([sys.executable, "-m", "bench.limits", "echo", servers, out, back]) as process:
        try:
            yield
        finally:
            process.kill()


def echo(servers: str, out: str, back: str) -> None:
    line = _Line(servers, out, back)
    while body := line.receive():
        line.send(body)


async def bare(_: Any, receive: Any, send: Any) -> None:
    """The least that an ASGI application can do."""
    while (await receive()).get("more_body"):
        pass
    headers = [(b"content-type", b"application/json"), (b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"{}"})


def serve_bare(port: int) -> None:
    import uvicorn

    uvicorn.run(bare, port=port, lifespan="off", access_log=False, log_level="warning")


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure a part alone and print JSON.")
    parts = parser.add_subparsers(dest="part", required=True)
    model, kafka = parts.add_parser("model"), parts.add_parser("kafka")
    model.add_argument("large", type=Path, help="a large JPEG")
    kafka.add_argument("servers")
    for measured in (model, kafka):
        measured.add_argument("--seconds", type=float, default=5)
    parts.add_parser("bare").add_argument("--port", type=int, required=True)
    parts.add_parser("echo").add_argument("line", nargs=3, metavar=("SERVERS", "OUT", "BACK"))
    chosen = parser.parse_args()
    if chosen.part == "bare":
        serve_bare(chosen.port)
    elif chosen.part == "echo":
        echo(*chosen.line)
    else:
        of_model = chosen.part == "model"
        measure, subject = (model_alone, chosen.large) if of_model else (kafka_alone, chosen.servers)
        print(msgspec.json.encode(measure(subject, chosen.seconds)).decode())


if __name__ == "__main__":
    main()
