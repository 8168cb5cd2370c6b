from concurrent.futures import Future

import pytest

from messaging.broker import (
    BrokerError,
    BrokerUnavailable,
    ClientBroken,
    Delivery,
    LogPosition,
    Message,
    QueueFull,
    TopicMissing,
)
from messaging.contract import Reply, ReturnAddress
from worker.outbox import Outbox

ADDRESS = ReturnAddress("predict.replies/3", {"correlation_id": "1"})
DELIVERY = Delivery(Message(b"x", {"correlation_id": "1"}), "predict.requests", LogPosition(5, 42), 123)
REPLY = Reply(sha256="", model="m")


class Ledger:
    """Broker and subscription in one: writes down what happens; the test decides how publishing ends."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.published: list[Message] = []
        self.gathered: list[bool] = []
        self.futures: list[Future[None]] = []

    def publish(self, address: str, message: Message, *, gather: bool = False) -> Future[None]:
        self.events.append(f"publish {address}")
        self.published.append(message)
        self.gathered.append(gather)
        self.futures.append(Future())
        return self.futures[-1]

    def acknowledge(self, deliveries: list[Delivery]) -> None:
        self.events += [f"acknowledge {delivery.position}" for delivery in deliveries]


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
def failures() -> list[BaseException]:
    return []


@pytest.fixture
def outbox(ledger: Ledger, failures: list[BaseException]) -> Outbox:
    return Outbox(ledger, ledger.acknowledge, "dead", failures.append, wall_clock=lambda: 10.0)  # type: ignore[arg-type]


def test_only_replies_to_who_reads_frames_are_gathered(ledger: Ledger, outbox: Outbox) -> None:
    reader = ReturnAddress("predict.replies/3", {"correlation_id": "1"}, reads_frames=True)
    outbox.reply(DELIVERY, reader, REPLY)
    outbox.gather = True
    outbox.reply(DELIVERY, ADDRESS, REPLY)
    outbox.dead_letter(DELIVERY, "why")
    outbox.reply(DELIVERY, reader, REPLY)
    ledger.futures[-1].set_exception(BrokerUnavailable("away"))  # so that it is sent again
    assert ledger.gathered == [False, False, False, True, True]


def test_nothing_is_acknowledged_before_its_reply_is_published(ledger: Ledger, outbox: Outbox) -> None:
    outbox.reply(DELIVERY, ADDRESS, REPLY)
    assert ledger.events == ["publish predict.replies/3"]
    ledger.futures[0].set_result(None)
    assert ledger.events == ["publish predict.replies/3", "acknowledge 5/42"]


@pytest.mark.parametrize("error", [BrokerUnavailable("away"), ClientBroken("fenced")])
def test_a_reply_is_published_again_while_somebody_waits(
    ledger: Ledger, outbox: Outbox, error: BrokerError
) -> None:
    outbox.reply(DELIVERY, ADDRESS, REPLY, deadline_ms=10_000)
    ledger.futures[0].set_exception(error)
    assert ledger.events == ["publish predict.replies/3"] * 2
    ledger.futures[1].set_result(None)
    assert ledger.events[-1] == "acknowledge 5/42"


def test_a_reply_nobody_waits_for_any_more_is_given_up(ledger: Ledger, outbox: Outbox) -> None:
    outbox.reply(DELIVERY, ADDRESS, REPLY, deadline_ms=9_999)
    ledger.futures[0].set_exception(BrokerUnavailable("away"))
    assert ledger.events == ["publish predict.replies/3", "acknowledge 5/42"]


def test_an_address_that_cannot_be_reached_does_not_hold_up_the_rest(ledger: Ledger, outbox: Outbox) -> None:
    outbox.reply(DELIVERY, ADDRESS, REPLY, deadline_ms=99_999)
    ledger.futures[0].set_exception(TopicMissing("unknown partition"))
    assert ledger.events == ["publish predict.replies/3", "acknowledge 5/42"]


def test_a_reply_that_the_broker_refuses_ends_the_worker_and_acknowledges_nothing(
    ledger: Ledger, outbox: Outbox, failures: list[BaseException]
) -> None:
    outbox.reply(DELIVERY, ADDRESS, REPLY, deadline_ms=99_999)
    ledger.futures[0].set_exception(BrokerError("not authorized"))
    assert ledger.events == ["publish predict.replies/3"]
    assert [str(failure) for failure in failures] == ["not authorized"]


@pytest.mark.parametrize("first", [BrokerUnavailable("away"), None])
def test_so_does_one_that_cannot_be_sent_again_or_followed_by_its_letter(
    ledger: Ledger,
    outbox: Outbox,
    failures: list[BaseException],
    monkeypatch: pytest.MonkeyPatch,
    first: BrokerError | None,
) -> None:
    def full(address: str, message: Message, *, gather: bool = False) -> Future[None]:
        raise QueueFull("full")

    outbox.reply_and_dead_letter(DELIVERY, ADDRESS, REPLY, "code -11")
    monkeypatch.setattr(ledger, "publish", full)
    ledger.futures[0].set_exception(first) if first else ledger.futures[0].set_result(None)
    assert ledger.events == ["publish predict.replies/3"]
    assert [str(failure) for failure in failures] == ["full"]


def test_an_error_before_anything_is_sent_is_raised(
    ledger: Ledger, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(address: str, message: Message, *, gather: bool = False) -> Future[None]:
        raise BrokerError("fatal")

    monkeypatch.setattr(ledger, "publish", broken)
    with pytest.raises(BrokerError, match="fatal"):
        outbox.reply(DELIVERY, ADDRESS, REPLY)
    assert ledger.events == []


def test_a_dead_letter_says_why_and_where_it_was(ledger: Ledger, outbox: Outbox) -> None:
    outbox.dead_letter(DELIVERY, "no reply_to")
    assert ledger.events == ["publish dead"]
    assert ledger.published[0] == Message(
        b"x",
        {
            "correlation_id": "1",
            "kafka_dlt-original-topic": "predict.requests",
            "kafka_dlt-original-position": "5/42",
            "kafka_dlt-original-timestamp": "123",
            "kafka_dlt-exception-message": "no reply_to",
        },
    )
    ledger.futures[0].set_result(None)
    assert ledger.events[-1] == "acknowledge 5/42"


def test_what_killed_the_model_is_answered_then_dead_lettered_then_acknowledged(
    ledger: Ledger, outbox: Outbox
) -> None:
    outbox.reply_and_dead_letter(DELIVERY, ADDRESS, REPLY, "code -11")
    for future in ledger.futures:  # grows while it is read: the dead letter follows the reply
        future.set_result(None)
    assert ledger.events == ["publish predict.replies/3", "publish dead", "acknowledge 5/42"]


def test_closing_before_a_reply_is_out_leaves_the_message_to_another_worker(
    ledger: Ledger, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(address: str, message: Message, *, gather: bool = False) -> Future[None]:
        raise BrokerUnavailable("the broker is closed")

    monkeypatch.setattr(ledger, "publish", closed)
    outbox.reply(DELIVERY, ADDRESS, REPLY)
    assert ledger.events == []
