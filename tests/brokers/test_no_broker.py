import logging
import threading
import time

import pytest

from messaging import BrokerSettings, administration, connect
from messaging.broker import BrokerError, BrokerUnavailable, Message, Retries
from mlaas.settings import load

NOBODY = "kafka://127.0.0.1:1"


def test_retries_go_on_until_success_and_log_the_first_failure_of_a_series(
    caplog: pytest.LogCaptureFixture,
) -> None:
    answers: list[str | BrokerError] = [BrokerUnavailable("away"), BrokerUnavailable("still away"), "opened"]
    told: list[str] = []
    log = logging.getLogger("mlaas.test")
    retries = Retries("open it", log, 0.0, threading.Event(), lambda error: told.append(str(error)))

    def attempt() -> str:
        answer = answers.pop(0)
        if isinstance(answer, BrokerError):
            raise answer
        return answer

    assert retries.until_success(attempt) == "opened"
    assert told == ["away", "still away"]
    assert [record.getMessage() for record in caplog.records] == ["cannot open it, retrying: away"]
    retries.failed(BrokerUnavailable("before anything came"))
    retries.succeeded()
    retries.failed(BrokerUnavailable("away again"))
    assert [record.getMessage() for record in caplog.records][1:] == ["cannot open it, retrying: away again"]


def test_retries_end_when_they_are_stopped() -> None:
    stopping = threading.Event()
    retries = Retries("open it", logging.getLogger("mlaas.test"), 60.0, stopping, lambda _: stopping.set())
    attempts: list[None] = []

    def attempt() -> None:
        attempts.append(None)
        raise BrokerUnavailable("away")

    assert retries.until_success(attempt) is None
    assert len(attempts) == 1


def test_publishing_into_nothing_returns_at_once_and_fails_in_time() -> None:
    broker = connect(NOBODY, publish_timeout_ms=1_000)
    started = time.monotonic()
    published = broker.publish("t", Message(b""))
    assert time.monotonic() - started < 1
    assert isinstance(published.exception(10), BrokerUnavailable)
    broker.close()


def test_opening_an_inbox_on_nothing_says_so() -> None:
    broker = connect(NOBODY)
    with pytest.raises(BrokerUnavailable):
        broker.open_inbox("t", "i")
    broker.close()


def test_looking_for_topics_on_nothing_says_so() -> None:
    settings = BrokerSettings(url=NOBODY, max_message_bytes=1, publish_timeout_ms=1)
    with pytest.raises(BrokerUnavailable, match=r"127\.0\.0\.1:1"):
        administration(settings, load(None, {}).topics).plan([], timeout=1)
