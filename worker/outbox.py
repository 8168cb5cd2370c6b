"""Publishing what a message led to, and acknowledging the message once that is safe."""

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future

from messaging import codec, dead_letters
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

# Trying again will not help, and keeping the message would hold up its partition.
_HOPELESS = (TopicMissing, MessageTooLarge)

# A broken client is replaced by the broker's own thread.
_PASSING = (BrokerUnavailable, ClientBroken)


class Outbox:
    """Nothing is acknowledged before the broker has its reply or its dead letter.

    fail is called, in any thread, where neither can be: the worker is to end, for its messages to come again.
    """

    def __init__(
        self,
        broker: Broker,
        acknowledge: Callable[[list[Delivery]], None],
        dead_letters_topic: str,
        fail: Callable[[BaseException], None],
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.gather = False
        """Whether many more are about to be published; see Broker.publish."""
        self._broker = broker
        self._acknowledge = acknowledge
        self._dead_letters_topic = dead_letters_topic
        self._fail = fail
        self._wall_clock = wall_clock

    def reply(
        self, delivery: Delivery, address: ReturnAddress, reply: Reply, deadline_ms: int | None = None
    ) -> None:
        message = codec.encode_reply(reply, address)
        self._publish(address.reply_to, message, deadline_ms, lambda: self.drop([delivery]))

    def reply_and_bury(self, delivery: Delivery, address: ReturnAddress, reply: Reply, reason: str) -> None:
        """For a message that could be read, and cannot be processed."""
        message = codec.encode_reply(reply, address)
        self._publish(address.reply_to, message, None, lambda: self.bury(delivery, reason))

    def bury(self, delivery: Delivery, reason: str) -> None:
        """Keep a message nobody could process, with the reason and where it was."""
        _log.error("%s/%d@%d: %s", delivery.topic, delivery.partition, delivery.offset, reason)
        letter = dead_letters.encode_letter(delivery, reason)
        self._publish(self._dead_letters_topic, letter, None, lambda: self.drop([delivery]))

    def drop(self, deliveries: list[Delivery]) -> None:
        """Nobody waits for these any more."""
        self._acknowledge(deliveries)

    def _publish(
        self, address: str, message: Message, deadline_ms: int | None, then: Callable[[], None]
    ) -> None:
        """Again until the broker has it, the deadline is past, or there is no hope; in the end, then().

        Raises BrokerError when the client itself cannot go on.
        """

        def finished(published: Future[None]) -> None:
            try:
                follow(published.exception())
            except BrokerError as error:
                _log.error("%s was not reached, its message comes again: %s", address, error)
                self._fail(error)

        def follow(error: BaseException | None) -> None:
            if error is None:
                then()
            elif isinstance(error, _HOPELESS) or self._is_past(deadline_ms):
                give_up(error)
            elif isinstance(error, _PASSING):
                self._publish(address, message, deadline_ms, then)
            else:
                raise error

        def give_up(error: BaseException) -> None:
            _log.error("%s cannot be reached: %s", address, error)
            then()

        try:
            self._broker.publish(address, message, gather=self.gather).add_done_callback(finished)
        except _HOPELESS as error:
            give_up(error)
        except BrokerUnavailable:
            _log.warning("closing before %s was reached; its message comes again", address)

    def _is_past(self, deadline_ms: int | None) -> bool:
        return deadline_ms is not None and deadline_ms < self._wall_clock() * 1000
