"""What every scenario plays on."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from tests.faults.fleet import Fleet
from tests.faults.pictures import Pictures

TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Stage:
    """kafka: bootstrap servers of the shared broker.

    quick: the form for a two-minute run. defect: one of tests.faults.planted's, in every process.
    """

    kafka: str
    pictures: Pictures
    quick: bool = False
    defect: str = ""

    def size(self, full: int, quick: int) -> int:
        return quick if self.quick else full

    def fleet(self, kafka: str = "", query: str = "", **settings: str) -> Fleet:
        """On another broker, if one is named; query: librdkafka's properties, as in `?acks=all`."""
        return Fleet(kafka or self.kafka, query, self.defect, **settings)


def under_load(load: Coroutine[Any, Any, None], *faults: Callable[[threading.Event], None]) -> None:
    """Each fault runs in a thread until the load has ended, which the event tells it."""

    async def both() -> None:
        over = threading.Event()
        breaking = [asyncio.create_task(asyncio.to_thread(fault, over)) for fault in faults]
        try:
            await load
        finally:
            over.set()
            await asyncio.gather(*breaking)

    asyncio.run(both())
