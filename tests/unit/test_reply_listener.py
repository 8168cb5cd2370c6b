import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from gateway.request_reply import ReplyListener
from messaging.broker import BrokerUnavailable, ClientBroken, Message
from messaging.memory import MemoryBroker


class Inbox:
    """Does as a test says. renewed: how often."""

    def __init__(self) -> None:
        self.address = "replies/3"
        self.messages: list[Message] = []
        self.failure: Exception | None = None
        self.renewed = 0
        self.is_closed = False

    def receive(self, max_messages: int, timeout: float) -> Sequence[Message]:
        time.sleep(0.001)
        if self.failure is not None:
            raise self.failure
        taken, self.messages = self.messages, []
        return taken

    def renew(self) -> None:
        self.renewed += 1

    def close(self) -> None:
        self.is_closed = True


class Heard:
    """What the listener told."""

    def __init__(self) -> None:
        self.addresses: list[str] = []
        self.messages: list[Message] = []
        self.reasons: list[str] = []


@contextmanager
def listening(inbox: Inbox, silence_s: float = 60.0) -> Iterator[tuple[ReplyListener, Heard]]:
    class Broker(MemoryBroker):
        def open_inbox(self, topic: str, instance_id: str) -> Inbox:  # type: ignore[override]
            return inbox

    heard = Heard()
    listener = ReplyListener(
        Broker(),
        "replies",
        "gateway-1",
        silence_s,
        on_open=heard.addresses.append,
        on_replies=heard.messages.extend,
        on_lost=heard.reasons.append,
    )
    listener.start()
    try:
        yield listener, heard
    finally:
        listener.stop()
        assert inbox.is_closed


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        threading.Event().wait(0.005)


def test_a_silent_inbox_is_renewed_again_and_again() -> None:
    inbox = Inbox()
    with listening(inbox, silence_s=0.02):
        until(lambda: inbox.renewed >= 3)


def test_an_inbox_that_is_not_silent_stays() -> None:
    inbox = Inbox()
    with listening(inbox) as (_, heard):
        inbox.messages.append(Message(b"1"))
        until(lambda: [its.body for its in heard.messages] == [b"1"])
    assert inbox.renewed == 0


def test_the_address_is_told_once_and_again_when_it_changes() -> None:
    inbox = Inbox()
    with listening(inbox) as (_, heard):
        inbox.messages.append(Message(b"1"))
        until(lambda: bool(heard.messages))
        assert heard.addresses == ["replies/3"]
        inbox.address = "replies/1"
        until(lambda: heard.addresses == ["replies/3", "replies/1"])


def test_it_outlives_a_broker_that_is_away() -> None:
    inbox = Inbox()
    with listening(inbox) as (listener, heard):
        inbox.failure = BrokerUnavailable("away")
        until(lambda: "away" in heard.reasons)
        inbox.failure = None
        inbox.messages.append(Message(b"1"))
        until(lambda: bool(heard.messages))
        assert listener.alive


def test_it_ends_when_this_process_cannot_read_any_more() -> None:
    inbox = Inbox()
    with listening(inbox) as (listener, _):
        inbox.failure = ClientBroken("cannot be mended here")
        until(lambda: not listener.alive)
        assert listener.failure is inbox.failure
