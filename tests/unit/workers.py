"""A whole worker, its processes included, over a broker in memory."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from messaging import Queue, codec
from messaging.broker import Message, feed
from messaging.contract import Reply, Request
from messaging.memory import MemoryBroker
from mlaas.settings import load
from model import ModelSettings
from worker import WorkerSettings
from worker.consumer import Consumer
from worker.model_process import ModelProcess
from worker.pipe import ModelVersion, Role
from worker.rollout import Rollout

SETTINGS = load(None, {})
SHARED = SETTINGS.topics.queue_of("")
MODEL = msgspec.structs.replace(SETTINGS.model, names=("fashion-mnist",))
# What a picture hangs a decoder for, too: five times its processor time.
TIMEOUT_S = 2.0
POLL_S = 0.05
WORKER = msgspec.structs.replace(SETTINGS.worker, decode_timeout_ms=int(TIMEOUT_S * 200))

SANDAL = (Path(__file__).parents[2] / "samples" / "sandal.png").read_bytes()
# What follows a PNG's end decodes to nothing, but it counts as bytes of the file.
MEDIUM_SANDAL = SANDAL + bytes(1_000_000)
LARGE_SANDAL = SANDAL + bytes(9_000_000)


class Running:
    """The worker's surroundings: requests go in, replies come out."""

    def __init__(
        self, module: str, model: ModelSettings, settings: WorkerSettings, queue: Queue = SHARED
    ) -> None:
        self.broker = MemoryBroker(max_message_bytes=SETTINGS.broker.max_message_bytes)
        self.inbox = self.broker.open_inbox(SETTINGS.topics.replies, "test")
        self._module = module
        self._settings = model
        self.model = Rollout(model, self.start, POLL_S)
        self.consumer = Consumer(self.broker, SETTINGS.topics, queue, settings, self.model, model.max_pixels)
        self.thread = threading.Thread(target=self.consumer.run)

    def start(self, role: Role, versions: Sequence[ModelVersion]) -> ModelProcess:
        return ModelProcess(
            self._settings, versions, timeout_s=TIMEOUT_S, start_timeout_s=60, role=role, module=self._module
        )

    def send(self, name: str, body: bytes, topic: str = "", **fields: Any) -> None:
        request = Request(body=body, correlation_id=name, reply_to=self.inbox.address, **fields)
        self.broker.publish(topic or SETTINGS.topics.requests, codec.encode_request(request)).result()

    def replies(self, count: int) -> dict[str, Reply]:
        """In the order in which they come."""
        found: dict[str, Reply] = {}
        end = time.monotonic() + 60
        while len(found) < count:
            assert time.monotonic() < end, f"only {sorted(found)} answered"
            assert self.thread.is_alive(), "the worker has ended"
            for message in self.inbox.receive(100, 0.2):
                assert codec.correlation_id(message) not in found, "answered twice"
                found[codec.correlation_id(message)] = codec.decode_reply(message)
        return found

    def cancel(self, name: str) -> None:
        """Returns when the worker has heard it."""
        feed_of = feed(SETTINGS.topics.cancellations)
        self.broker.publish(feed_of, codec.encode_cancellation([name])).result()
        time.sleep(0.5)

    def ended(self) -> dict[str, float]:
        """How many requests ended in which way."""
        (family,) = self.consumer.metrics.requests.collect()
        return {
            sample.labels["outcome"]: sample.value
            for sample in family.samples
            if sample.name.endswith("_total") and sample.value
        }

    def dead_letters(self) -> list[Message]:
        subscription = self.broker.subscribe(SETTINGS.topics.dead_letters, "test")
        return [delivery.message for delivery in subscription.receive(100, 5)]


@contextmanager
def worker(
    module: str = "worker.model_main",
    before: Callable[[Running], None] | None = None,
    model: ModelSettings = MODEL,
    settings: WorkerSettings = WORKER,
    queue: Queue = SHARED,
) -> Iterator[Running]:
    """before is called with the broker there and the worker not yet: what it sends is one batch."""
    running = Running(module, model, settings, queue)
    if before is not None:
        before(running)
    running.thread.start()
    try:
        yield running
    finally:
        running.consumer.stop()
        running.thread.join(30)
    assert not running.thread.is_alive()


def label(reply: Reply) -> str:
    return max(reply.probabilities, key=reply.probabilities.__getitem__)
