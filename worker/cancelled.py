"""The requests that gateways have announced as cancelled."""

import logging
import sys
import threading
from collections.abc import Iterable

from messaging import codec
from messaging.broker import Broker, BrokerError, Inbox, Retries
from messaging.contract import ContractError

_log = logging.getLogger("mlaas.worker")

_MAX_BYTES = 16_777_216  # 16 MiB: 70,000 ids of gateways
_ENTRY_BYTES = 150  # measured: a string's header and its entry in the dictionary
_RETRY_S = 1.0


class Cancelled:
    """The most recent cancelled correlation ids. One thread adds, others look up."""

    def __init__(self, max_bytes: int = _MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._ids: dict[str, int] = {}
        self._bytes = 0

    def __contains__(self, correlation_id: object) -> bool:
        return correlation_id in self._ids

    def add(self, correlation_ids: Iterable[str]) -> None:
        for correlation_id in correlation_ids:
            if correlation_id not in self._ids:
                self._ids[correlation_id] = size = sys.getsizeof(correlation_id) + _ENTRY_BYTES
                self._bytes += size
        while self._bytes > self._max_bytes:
            self._bytes -= self._ids.pop(next(iter(self._ids)))


class CancellationListener:
    """Reads cancellations in a thread of its own. Those it misses only cost needless work."""

    def __init__(self, broker: Broker, topic: str, cancelled: Cancelled) -> None:
        self._broker = broker
        self._topic = topic
        self._cancelled = cancelled
        self._stopping = threading.Event()
        self._retries = Retries("read cancellations", _log, _RETRY_S, self._stopping)
        self._thread = threading.Thread(target=self._run, name="cancellations", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        inbox = self._retries.until_success(lambda: self._broker.listen(self._topic))
        if inbox is None:
            return
        while not self._stopping.is_set():
            self._read(inbox)
        inbox.close()

    def _read(self, inbox: Inbox) -> None:
        try:
            messages = inbox.receive(100, 0.2)
        except BrokerError as error:
            self._retries.failed(error)
            return
        for message in messages:
            self._retries.succeeded()
            try:
                self._cancelled.add(codec.decode_cancellation(message))
            except ContractError as error:
                _log.warning("%s", error)
