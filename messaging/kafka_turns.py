"""Which partition of a topic the next message goes to."""

import threading
from collections.abc import Callable, Sequence

from messaging.broker import BrokerError

ANY = -1
"""The client chooses."""

_ASK_AGAIN_S = 1.0
# Half of a worker's batch. With more, some workers wait for others; with fewer, the broker has more to do.
_GATHERED_IN_A_ROW = 16


class Turns:
    """Every partition that has a leader gets its turn, so that every worker gets as much.

    librdkafka's own choice is random, and what comes within 10 ms goes to the same partition: of workers that
    answer a batch at once, some get several and some none. ask returns a topic's partitions that have a
    leader now, and may raise BrokerError; a thread asks again and again for the topics that are published to.
    """

    def __init__(self, ask: Callable[[str], Sequence[int]]) -> None:
        self._ask = ask
        self._lock = threading.Lock()
        self._led: dict[str, Sequence[int]] = {}
        self._sent: dict[str, int] = {}
        self._closing = threading.Event()
        self._asker: threading.Thread | None = None

    def next(self, topic: str, *, gather: bool) -> int:
        """ANY while the partitions are not known. Gathered messages go to one partition several in a row."""
        with self._lock:
            led = self._led.setdefault(topic, ())
            self._start_asking()
            if not led:
                return ANY
            sent = self._sent.get(topic, 0)
            self._sent[topic] = sent + (1 if gather else _GATHERED_IN_A_ROW)
            return led[sent // _GATHERED_IN_A_ROW % len(led)]

    def refresh(self) -> None:
        """Of a topic that nothing is heard of, what was known stays."""
        for topic in list(self._led):
            try:
                led = self._ask(topic)
            except BrokerError:
                continue
            with self._lock:
                self._led[topic] = led

    def close(self) -> None:
        self._closing.set()

    def _start_asking(self) -> None:
        if self._asker is None:
            self._asker = threading.Thread(target=self._keep_asking, name="kafka-partitions", daemon=True)
            self._asker.start()

    def _keep_asking(self) -> None:
        while not self._closing.is_set():
            self.refresh()
            self._closing.wait(_ASK_AGAIN_S)
