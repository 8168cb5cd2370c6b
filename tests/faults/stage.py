"""What scenarios run on: the shared broker, fleets of processes, and pictures with known answers."""

import asyncio
import hashlib
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gateway.answer import grey_png
from mlaas.settings import load
from model import classifier
from model.preprocessing import prepare
from tests.e2e.services import ROOT
from tests.faults.corpus.files import png_chunk
from tests.faults.fleet import Address, Fleet
from tests.pubsub.local_pubsub import LocalPubSub

PUBSUB = "pubsub://faults"
TIMEOUT_S = 30.0

_AFTER_HEADER = 33  # in a PNG file: signature and IHDR


@dataclass(frozen=True, slots=True)
class Picture:
    """A file, and the SHA-256 digest and label that its answer must have."""

    content: bytes
    sha256: str
    label: str


class Pictures:
    """Test pictures made unique by a text chunk, with labels from the model, loaded here."""

    def __init__(self) -> None:
        with np.load(ROOT / "tests" / "data" / "fashion-mnist-test-500.npz") as arrays:
            images = arrays["images"]
        self._files = [grey_png(image.tobytes(), 28) for image in images]
        settings = load(None, {}).model
        asked = classifier.load(
            Path(settings.weights_dir), settings.default_name, settings.runtime, threads=1
        )
        pixels = np.stack(
            [prepare(file, mode="auto", max_pixels=settings.max_pixels).pixels for file in self._files]
        )
        labels = asked.manifest.labels
        self._labels = [labels[row] for row in asked.predict(pixels).answers.argmax(axis=1)]

    def __call__(self, number: int, mark: bytes = b"") -> Picture:
        """The picture of this number; mark is appended, where decoders ignore it."""
        which = number % len(self._files)
        png, text = self._files[which], png_chunk(b"tEXt", f"number\0{number}".encode())
        content = png[:_AFTER_HEADER] + text + png[_AFTER_HEADER:] + mark
        return Picture(content, hashlib.sha256(content).hexdigest(), self._labels[which])


@dataclass(frozen=True)
class Stage:
    """kafka: the bootstrap servers of the shared broker, and its process. pubsub: the fake, if it runs.

    quick: play short forms. defect: see planted.py.
    """

    kafka: str
    pictures: Pictures
    quick: bool = False
    defect: str = ""
    running_pubsub: LocalPubSub | None = None
    kafka_pid: int | None = None

    @property
    def pubsub(self) -> LocalPubSub:
        assert self.running_pubsub is not None
        return self.running_pubsub

    def size(self, full: int, quick: int) -> int:
        return quick if self.quick else full

    def fleet(self, kafka: str = "", query: str = "", broker: str = "", **settings: str) -> Fleet:
        """query has librdkafka's properties, as in `?acks=all`. broker: the URL of one other than Kafka."""
        return Fleet(kafka or self.kafka, query, self.defect, broker, **settings)

    @contextmanager
    def running(
        self,
        workers: int = 1,
        model: str = "",
        kafka: str = "",
        query: str = "",
        broker: str = "",
        **settings: str,
    ) -> Iterator[tuple[Fleet, Address]]:
        """A fleet with one ready gateway, `gateway`, and workers `worker-1` and so on."""
        with self.fleet(kafka, query, broker) as fleet:
            address = fleet.gateway("gateway")
            fleet.workers(workers, model, **settings)
            fleet.wait_until_ready()
            yield fleet, address


def under_load(load: Coroutine[Any, Any, None], *faults: Callable[[threading.Event], None]) -> None:
    """Run each fault in a thread until the load has ended, which sets the event."""

    async def both() -> None:
        over = threading.Event()
        breaking = [asyncio.create_task(asyncio.to_thread(fault, over)) for fault in faults]
        try:
            await load
        finally:
            over.set()
            await asyncio.gather(*breaking)

    asyncio.run(both())
