"""Encodes and decodes the messages of the contract, and dead letters. Anyone may write, so all is checked.

A dead letter is the message as it was, with headers that are named as Spring names them:
kafka_dlt-exception-message    why it could not be processed
kafka_dlt-original-topic, -position, -timestamp    where it came from; epoch milliseconds
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

import msgspec

from messaging.broker import Delivery, Message, Position
from messaging.contract import (
    ACCEPTED_SCHEMAS,
    EXPLAINS,
    MAX_CORRELATION_ID,
    MAX_HEADERS,
    MAX_REPLY_TO,
    MODES,
    SCHEMA,
    CancelledIds,
    ContractError,
    ErrorCode,
    Reply,
    Request,
    ReturnAddress,
    check_prediction,
)
from messaging.frames import READS_FRAMES, reads_frames, why_not_read

Choice = TypeVar("Choice", bound=str)
Headers = Mapping[str, str]

CORRELATION = ("correlation_id", "kafka_correlationId")
RETURN_ADDRESS = (*CORRELATION, "reply_to", "kafka_replyTopic", "kafka_replyPartition", *READS_FRAMES)

# Spring's headers of dead letters, of delivery attempts, and of delayed retries.
_MARKS = ("kafka_dlt-", "kafka_deliveryAttempt", "retry_topic-")

NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for invalid JSON or wrong types, invalid UTF-8, and too deep nesting."""

_MAX_PREDICTION_BYTES = 1_048_576  # 21,000 labels, the most of any public data set, take 840 kB
_MAX_CANCELLATION_BYTES = 524_288  # MAX_CANCELLED ids of twice MAX_CORRELATION_ID

_encode = msgspec.json.Encoder().encode
_decode_reply = msgspec.json.Decoder(Reply).decode
_decode_cancellation = msgspec.json.Decoder(CancelledIds).decode


def encode_request(request: Request) -> Message:
    headers = {
        "schema": SCHEMA,
        "correlation_id": request.correlation_id,
        "reply_to": request.reply_to,
        "deadline_ms": "" if request.deadline_ms is None else str(request.deadline_ms),
        "content_type": request.content_type,
        "model": request.model,
        "version": request.version,
        "mode": "" if request.mode == "auto" else request.mode,
        "explain": request.explain,
        "top_k": str(request.top_k or ""),
        "traceparent": request.traceparent,
    }
    said = READS_FRAMES if request.reads_frames else {}
    return Message(request.body, {name: value for name, value in headers.items() if value} | said)


def decode_request(message: Message, address: ReturnAddress | None = None) -> Request:
    """Raises ContractError with the code to answer, if return_address() does not raise it.

    address: what that returned, if it is known.
    """
    headers = message.headers
    if address is None:
        address = return_address(message)
    try:
        one_of(headers, "schema", ACCEPTED_SCHEMAS, SCHEMA)
    except ValueError as error:
        raise ContractError(str(error), ErrorCode.UNSUPPORTED_SCHEMA) from error
    try:
        return Request(
            body=message.body,
            correlation_id=address.correlation_id,
            reply_to=address.reply_to,
            deadline_ms=_whole_number(headers, "deadline_ms", "of milliseconds"),
            content_type=headers.get("content_type", ""),
            model=headers.get("model", ""),
            version=headers.get("version", ""),
            mode=one_of(headers, "mode", MODES, "auto"),
            explain=one_of(headers, "explain", EXPLAINS, ""),
            top_k=_whole_number(headers, "top_k", "of labels") or 0,
            traceparent=headers.get("traceparent", ""),
            reads_frames=address.reads_frames,
        )
    except ValueError as error:
        raise ContractError(str(error)) from error


def return_address(message: Message) -> ReturnAddress:
    """Where the reply goes. Raises ContractError if the request cannot be answered."""
    headers = message.headers
    if problem := why_not_read(message):
        raise ContractError(problem)
    size = sum(len(name) + len(value) for name, value in headers.items())
    if size > MAX_HEADERS:
        raise ContractError(f"headers have {size} characters; at most {MAX_HEADERS} are accepted")
    try:
        correlated, reply_to = correlation(headers), _reply_to(headers)
    except ValueError as error:
        raise ContractError(str(error)) from error
    return ReturnAddress(reply_to, correlated, reads_frames(message))


def encode_reply(reply: Reply, address: ReturnAddress) -> Message:
    return Message(_encode(reply), {"schema": SCHEMA, **address.correlation, **READS_FRAMES})


def correlation_id(message: Message) -> str:
    """Which request a reply answers; empty if it does not say."""
    return message.headers.get("correlation_id", "")


def decode_prediction(message: Message, sha256: str | None) -> Reply:
    """The reply to the picture with this digest; None: to any picture. Raises ContractError."""
    if len(message.body) > _MAX_PREDICTION_BYTES:
        raise ContractError(f"reply: {len(message.body)} bytes; at most {_MAX_PREDICTION_BYTES} are accepted")
    reply = decode_reply(message)
    check_prediction(reply, sha256)
    return reply


def decode_pong(message: Message) -> Reply:
    """The reply to a ping. Raises ContractError."""
    reply = decode_reply(message)
    if reply.error is not None or reply.probabilities or reply.outputs or not reply.model:
        raise ContractError("reply: does not answer a ping")
    return reply


def decode_reply(message: Message) -> Reply:
    """A reply of any kind. Raises ContractError."""
    try:
        return _decode_reply(message.body)
    except NOT_JSON as error:
        raise ContractError(f"reply: {error}") from error


def encode_cancellation(correlation_ids: Sequence[str]) -> Message:
    return Message(_encode(correlation_ids), {"schema": SCHEMA})


def decode_cancellation(message: Message) -> list[str]:
    """The correlation ids of the cancelled requests. Raises ContractError."""
    if len(message.body) > _MAX_CANCELLATION_BYTES:
        size = len(message.body)
        raise ContractError(f"cancellation: {size} bytes; at most {_MAX_CANCELLATION_BYTES} are accepted")
    try:
        return _decode_cancellation(message.body)
    except NOT_JSON as error:
        raise ContractError(f"cancellation: {error}") from error


def correlation(headers: Headers) -> Headers:
    """The headers that name the request: ours, or those of Spring and Nest. Raises ValueError."""
    found = {name: headers[name] for name in CORRELATION if headers.get(name)}
    if not found:
        raise ValueError("no correlation_id")
    for name, value in found.items():
        if len(value) > MAX_CORRELATION_ID:
            raise ValueError(f"{name} has {len(value)} characters; at most {MAX_CORRELATION_ID} are accepted")
    return found


def one_of(given: Headers, name: str, accepted: Iterable[Choice], default: Choice) -> Choice:
    """The value of this name, or the default if it is missing or empty. Raises ValueError."""
    value = given.get(name) or default
    for choice in accepted:
        if value == choice:
            return choice
    known = ", ".join(filter(None, accepted))
    raise ValueError(f"{name} {value[:20]!r} is not supported; accepted: {known}")


def _whole_number(headers: Headers, name: str, unit: str) -> int | None:
    value = headers.get(name, "")
    if not value:
        return None
    if not (value.isascii() and value.isdigit() and len(value) <= 15):
        raise ValueError(f"{name} is not a number {unit}")
    return int(value)


def _reply_to(headers: Headers) -> str:
    address = headers.get("reply_to") or _foreign_reply_to(headers)
    if not address:
        raise ValueError("no reply_to")
    if len(address) > MAX_REPLY_TO:
        raise ValueError(f"reply_to has {len(address)} characters; at most {MAX_REPLY_TO} are accepted")
    if not address.isprintable():
        raise ValueError(f"reply_to {address[:100]!r} has unprintable characters")
    return address


def _foreign_reply_to(headers: Headers) -> str:
    """Spring writes the partition as four big-endian bytes, Nest as decimal text."""
    topic, partition = headers.get("kafka_replyTopic", ""), headers.get("kafka_replyPartition", "")
    if not topic or not partition:
        return topic
    if partition.isascii() and partition.isdigit():
        return f"{topic}/{partition}"
    raw = partition.encode("utf-8", "surrogateescape")
    if len(raw) != 4:
        raise ValueError("kafka_replyPartition is neither decimal text nor four bytes")
    return f"{topic}/{int.from_bytes(raw, 'big')}"


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
