"""Publishes replies and dead letters, and acknowledges each message once the broker has what it led to."""

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future

from messaging import codec
from messaging.broker import (
    Broker,
    BrokerError,
    BrokerUnavailable,
    ClientBroken,
    Delivery,
    Message,
    MessageTooLarge,
    TopicMissing,
)
from messaging.contract import Reply, ReturnAddress

_log = logging.getLogger("mlaas.worker")

# Retrying would not help, and leaving the message unacknowledged would hold up its partition.
_PERMANENT = (TopicMissing, MessageTooLarge)

# The broker's own thread replaces a broken client.
_TEMPORARY = (BrokerUnavailable, ClientBroken)


class Outbox:
    """No message is acknowledged before the broker has its reply or its dead letter.

    fail is called, in any thread, with an error that prevents both. The worker must then exit, so that its
    messages are delivered again.
    """

    def __init__(
        self,
        broker: Broker,
        acknowledge: Callable[[list[Delivery]], None],
        dead_letters_topic: str,
        fail: Callable[[BaseException], None],
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """wall_clock: epoch seconds."""
        self.gather = False
        """Whether many replies are about to be published; see Broker.publish."""
        self._broker = broker
        self._acknowledge = acknowledge
        self._dead_letters_topic = dead_letters_topic
        self._fail = fail
        self._wall_clock = wall_clock

    def reply(
        self, delivery: Delivery, address: ReturnAddress, reply: Reply, deadline_ms: int | None = None
    ) -> None:
        """deadline_ms: epoch; after it the reply is not retried. Raises BrokerError, as all that publish."""
        message = codec.encode_reply(reply, address)
        gather = self.gather and address.reads_frames
        self._publish(address.reply_to, message, deadline_ms, lambda: self.drop([delivery]), gather)

    def reply_and_dead_letter(
        self, delivery: Delivery, address: ReturnAddress, reply: Reply, reason: str
    ) -> None:
        """For a message that can be answered but not processed."""
        message = codec.encode_reply(reply, address)
        self._publish(address.reply_to, message, None, lambda: self.dead_letter(delivery, reason))

    def dead_letter(self, delivery: Delivery, reason: str) -> None:
        """Keep a message that cannot be processed, with the reason and where it came from."""
        _log.error("%s/%s: %s", delivery.topic, delivery.position, reason)
        letter = codec.encode_letter(delivery, reason)
        self._publish(self._dead_letters_topic, letter, None, lambda: self.drop([delivery]))

    def drop(self, deliveries: list[Delivery]) -> None:
        """Acknowledge messages that need no reply, or none any more."""
        self._acknowledge(deliveries)

    def _publish(
        self,
        address: str,
        message: Message,
        deadline_ms: int | None,
        then: Callable[[], None],
        gather: bool = False,
    ) -> None:
        """Call then() once the broker has the message, the deadline passes, or retrying would not help."""

        def finished(published: Future[None]) -> None:
            failure = published.exception()
            try:
                if failure is None:
                    then()
                elif isinstance(failure, _PERMANENT) or self._is_past(deadline_ms):
                    give_up(failure)
                elif isinstance(failure, _TEMPORARY):
                    self._publish(address, message, deadline_ms, then, gather)
                else:
                    raise failure
            except BrokerError as error:
                _log.error("cannot publish to %s, the message will be redelivered: %s", address, error)
                self._fail(error)

        def give_up(failure: BaseException) -> None:
            _log.error("cannot publish to %s, giving up: %s", address, failure)
            then()

        try:
            self._broker.publish(address, message, gather=gather).add_done_callback(finished)
        except _PERMANENT as error:
            give_up(error)
        except BrokerUnavailable:
            _log.warning("closed before publishing to %s; the message will be redelivered", address)

    def _is_past(self, deadline_ms: int | None) -> bool:
        return deadline_ms is not None and deadline_ms < self._wall_clock() * 1000
