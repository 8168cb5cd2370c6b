"""The requests that nobody waits for any more, as gateways announce them."""

import logging
import sys
import threading
from collections.abc import Iterable

from messaging import codec
from messaging.broker import Broker, BrokerError, Inbox
from messaging.contract import ContractError

_log = logging.getLogger("mlaas.worker")

_MOST_BYTES = 16_777_216  # 16 MiB: 70,000 ids of gateways
_ENTRY_BYTES = 150  # of a string's header and its share of the table, measured
_RETRY_S = 1.0


class Cancelled:
    """The correlation ids that came last. One thread adds, others look."""

    def __init__(self, most_bytes: int = _MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._ids: dict[str, int] = {}
        self._bytes = 0

    def __contains__(self, correlation_id: object) -> bool:
        return correlation_id in self._ids

    def add(self, correlation_ids: Iterable[str]) -> None:
        for correlation_id in correlation_ids:
            if correlation_id not in self._ids:
                self._ids[correlation_id] = size = sys.getsizeof(correlation_id) + _ENTRY_BYTES
                self._bytes += size
        while self._bytes > self._most_bytes:
            self._bytes -= self._ids.pop(next(iter(self._ids)))


class CancellationListener:
    """Reads the feed in a thread of its own. Without it, cancelled work is done in vain, nothing else."""

    def __init__(self, broker: Broker, topic: str, cancelled: Cancelled) -> None:
        self._broker = broker
        self._topic = topic
        self._cancelled = cancelled
        self._stopping = threading.Event()
        self._lost = False
        self._thread = threading.Thread(target=self._run, name="cancellations", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        inbox = self._open()
        while inbox is not None and not self._stopping.is_set():
            self._read(inbox)
        if inbox is not None:
            inbox.close()

    def _open(self) -> Inbox | None:
        """None if stopped before."""
        while not self._stopping.is_set():
            try:
                return self._broker.listen(self._topic)
            except BrokerError as error:
                self._wait_after(error)
        return None

    def _read(self, inbox: Inbox) -> None:
        try:
            messages = inbox.receive(100, 0.2)
        except BrokerError as error:
            self._wait_after(error)
            return
        for message in messages:
            self._lost = False
            try:
                self._cancelled.add(codec.decode_cancellation(message))
            except ContractError as error:
                _log.warning("%s", error)

    def _wait_after(self, error: BrokerError) -> None:
        if not self._lost:
            _log.warning("cannot read cancellations, trying again: %s", error)
        self._lost = True
        self._stopping.wait(_RETRY_S)
