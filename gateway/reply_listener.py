"""The thread that reads the gateway's inbox."""

import logging
import threading
import time
from collections.abc import Callable, Sequence

from messaging.broker import Broker, BrokerError, ClientBroken, Inbox, Message

_log = logging.getLogger("mlaas.gateway")

_MOST_AT_ONCE = 500
_RETRY_S = 0.25


class ReplyListener:
    """Opens the inbox, as often as it takes, and hands on what arrives. Calls back from its own thread.

    An inbox that is silent for silence_s is renewed: somebody may have answered. One that cannot be read by
    this process any more, or an exception that nobody foresaw, ends the listener.
    """

    def __init__(
        self,
        broker: Broker,
        topic: str,
        instance_id: str,
        silence_s: float,
        *,
        on_open: Callable[[str], None],
        on_replies: Callable[[Sequence[Message]], None],
        on_lost: Callable[[str], None],
    ) -> None:
        self._broker = broker
        self._topic = topic
        self._instance_id = instance_id
        self._silence_s = silence_s
        self._on_open = on_open
        self._on_replies = on_replies
        self._on_lost = on_lost
        self._stopping = threading.Event()
        self._lost = False
        self._address = ""
        self._heard_at = 0.0
        self.failure: Exception | None = None
        """What ended it."""
        self._thread = threading.Thread(target=self._run, name="reply-listener", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Blocks until the inbox is closed."""
        self._stopping.set()
        self._thread.join()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def _run(self) -> None:
        try:
            self._read()
        except Exception as error:
            self.failure = error

    def _read(self) -> None:
        inbox = self._open()
        if inbox is None:
            return
        try:
            while not self._stopping.is_set():
                self._listen(inbox)
        finally:
            inbox.close()

    def _open(self) -> Inbox | None:
        while not self._stopping.is_set():
            try:
                inbox = self._broker.open_inbox(self._topic, self._instance_id)
            except BrokerError as error:
                self._on_lost(str(error))
                self._stopping.wait(_RETRY_S)
            else:
                self._heard_at = time.monotonic()
                self._note_address(inbox)
                return inbox
        return None

    def _listen(self, inbox: Inbox) -> None:
        try:
            messages = inbox.receive(_MOST_AT_ONCE, 0.2)
            self._note_address(inbox)
            if messages:
                self._lost = False
                self._heard_at = time.monotonic()
                self._on_replies(messages)
            elif time.monotonic() - self._heard_at > self._silence_s:
                self._heard_at = time.monotonic()
                inbox.renew()
        except ClientBroken:
            raise
        except BrokerError as error:
            if not self._lost:
                _log.warning("reading replies: %s", error)
            self._lost = True
            self._on_lost(str(error))
            self._stopping.wait(_RETRY_S)

    def _note_address(self, inbox: Inbox) -> None:
        if inbox.address != self._address:
            self._address = inbox.address
            _log.info("replies come to %s", inbox.address)
            self._on_open(inbox.address)
