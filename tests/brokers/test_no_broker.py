import time

import pytest

from messaging.broker import BrokerUnavailable, Message
from messaging.connect import connect
from messaging.kafka_admin import partitions
from messaging.settings import BrokerSettings

NOBODY = "kafka://127.0.0.1:1"


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
        partitions(settings, timeout=1)
