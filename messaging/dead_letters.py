"""What a dead letter is on the wire: the message as it was, and beside its headers, under Spring's names,

kafka_dlt-exception-message    why nobody could process it
kafka_dlt-original-topic, -partition, -offset, -timestamp    where it was; the time is epoch milliseconds
"""

import msgspec

from messaging.broker import Delivery, Message
from messaging.codec import RETURN_ADDRESS, Headers, correlation

# Spring's: the letter's own, how often the message was tried before, when it is to be tried again.
_MARKS = ("kafka_dlt-", "kafka_deliveryAttempt", "retry_topic-")


class Origin(msgspec.Struct, frozen=True):
    """Where the message was before."""

    topic: str
    partition: int
    offset: int


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """A dead letter without its body. What the message did not say is empty."""

    partition: int
    offset: int
    buried_at_ms: int
    reason: str
    model: str
    request_id: str
    size_bytes: int
    original: Origin | None


def encode_letter(delivery: Delivery, reason: str) -> Message:
    headers = {
        **delivery.message.headers,
        "kafka_dlt-original-topic": delivery.topic,
        "kafka_dlt-original-partition": str(delivery.partition),
        "kafka_dlt-original-offset": str(delivery.offset),
        "kafka_dlt-original-timestamp": str(delivery.timestamp_ms),
        "kafka_dlt-exception-message": reason,
    }
    return Message(delivery.message.body, headers)


def decode_letter(delivery: Delivery) -> Letter:
    """Takes anything: others may write to the topic, too."""
    headers = delivery.message.headers
    return Letter(
        partition=delivery.partition,
        offset=delivery.offset,
        buried_at_ms=delivery.timestamp_ms,
        reason=headers.get("kafka_dlt-exception-message", ""),
        model=headers.get("model", ""),
        request_id=_request_id(headers),
        size_bytes=len(delivery.message.body),
        original=_origin(headers),
    )


def revive(letter: Message, *, correlation_id: str, reply_to: str, deadline_ms: int) -> Message:
    """The request as it was, for another who waits: nothing tells that it failed before."""
    kept = {
        name: value
        for name, value in letter.headers.items()
        if name not in RETURN_ADDRESS and not name.startswith(_MARKS)
    }
    fresh = {"correlation_id": correlation_id, "reply_to": reply_to, "deadline_ms": str(deadline_ms)}
    return Message(letter.body, {**kept, **fresh})


def _request_id(headers: Headers) -> str:
    try:
        return next(iter(correlation(headers).values()))
    except ValueError:
        return ""


def _origin(headers: Headers) -> Origin | None:
    """None if it does not say, or not in decimal digits."""
    partition = headers.get("kafka_dlt-original-partition", "")
    offset = headers.get("kafka_dlt-original-offset", "")
    if not all(text.isascii() and text.isdigit() and len(text) < 20 for text in (partition, offset)):
        return None
    return Origin(headers.get("kafka_dlt-original-topic", ""), int(partition), int(offset))
