"""Tells the workers which requests nobody waits for any more."""

import asyncio
import logging

from messaging import codec
from messaging.broker import Broker, BrokerError, feed
from messaging.contract import MAX_CANCELLED

_log = logging.getLogger("mlaas.gateway")

_GATHER_S = 0.005


class Cancellations:
    """Belongs to the event loop's thread. A cancellation that cannot be sent only costs needless work."""

    def __init__(self, broker: Broker, topic: str) -> None:
        self._broker = broker
        self._address = feed(topic)
        self._waiting: list[str] = []

    def add(self, correlation_id: str) -> None:
        """Send it together with others, within a few milliseconds."""
        if not self._waiting:
            asyncio.get_running_loop().call_later(_GATHER_S, self._send)
        self._waiting.append(correlation_id)

    def _send(self) -> None:
        waiting, self._waiting = self._waiting, []
        for start in range(0, len(waiting), MAX_CANCELLED):
            message = codec.encode_cancellation(waiting[start : start + MAX_CANCELLED])
            try:
                self._broker.publish(self._address, message)
            except BrokerError as error:
                _log.debug("cancellations: %s", error)
