"""Dead letters on the wire: the message as it was, with headers that are named as Spring names them.

kafka_dlt-exception-message    why it could not be processed
kafka_dlt-original-topic, -position, -timestamp    where it came from; epoch milliseconds
"""

import msgspec

from messaging.broker import Delivery, Message, Position
from messaging.codec import RETURN_ADDRESS, Headers, correlation

# Spring's headers of dead letters, of delivery attempts, and of delayed retries.
_MARKS = ("kafka_dlt-", "kafka_deliveryAttempt", "retry_topic-")


class Origin(msgspec.Struct, frozen=True):
    """Where the message came from. position: as its broker prints it."""

    topic: str
    position: str


class Letter(msgspec.Struct, frozen=True, kw_only=True):
    """A dead letter without its body. Fields that the message did not give are empty."""

    position: Position
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
        "kafka_dlt-original-position": str(delivery.position),
        "kafka_dlt-original-timestamp": str(delivery.timestamp_ms),
        "kafka_dlt-exception-message": reason,
    }
    return Message(delivery.message.body, headers)


def decode_letter(delivery: Delivery) -> Letter:
    """Accepts any message: other programs may write to the topic, too."""
    headers = delivery.message.headers
    return Letter(
        position=delivery.position,
        buried_at_ms=delivery.timestamp_ms,
        reason=headers.get("kafka_dlt-exception-message", ""),
        model=headers.get("model", ""),
        request_id=_request_id(headers),
        size_bytes=len(delivery.message.body),
        original=_origin(headers),
    )


def revive(letter: Message, *, correlation_id: str, reply_to: str, deadline_ms: int) -> Message:
    """The original request, without the marks of its failure, for a new requester. deadline_ms: epoch."""
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
    """None if the headers do not give it.

    Older workers wrote partition and offset in decimal digits; Spring writes them as big-endian bytes.
    """
    topic = headers.get("kafka_dlt-original-topic", "")
    if position := headers.get("kafka_dlt-original-position", ""):
        return Origin(topic, position)
    partition = headers.get("kafka_dlt-original-partition", "")
    offset = headers.get("kafka_dlt-original-offset", "")
    if not all(text.isascii() and text.isdigit() and len(text) < 20 for text in (partition, offset)):
        return None
    return Origin(topic, f"{partition}/{offset}")
