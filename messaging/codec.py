"""Reads headers, which anyone may have written. Raises ValueError, saying what is wrong."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

import msgspec

from messaging.broker import Message
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
    check_pong,
    check_prediction,
)

Choice = TypeVar("Choice", bound=str)
Headers = Mapping[str, str]

_CORRELATION = ("correlation_id", "kafka_correlationId")
RETURN_ADDRESS = (*_CORRELATION, "reply_to", "kafka_replyTopic", "kafka_replyPartition")

NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises: not JSON or of the wrong types, not UTF-8, nested too deeply."""

_encode = msgspec.json.Encoder().encode
_decode_reply = msgspec.json.Decoder(Reply).decode
_decode_cancellation = msgspec.json.Decoder(CancelledIds).decode

_MAX_PREDICTION_BYTES = 1_048_576  # 21,000 labels, the most that a public data set has, take 840 kB
_MAX_CANCELLATION_BYTES = 524_288  # MAX_CANCELLED ids of twice the length that they may have


def check_size(headers: Headers) -> None:
    size = sum(len(name) + len(value) for name, value in headers.items())
    if size > MAX_HEADERS:
        raise ValueError(f"headers have {size} characters; at most {MAX_HEADERS} are accepted")


def correlation(headers: Headers) -> Headers:
    """Those that name the request: this project's own, or that of Spring and Nest."""
    found = {name: headers[name] for name in _CORRELATION if headers.get(name)}
    if not found:
        raise ValueError("no correlation_id")
    for name, value in found.items():
        if len(value) > MAX_CORRELATION_ID:
            raise ValueError(f"{name} has {len(value)} characters; at most {MAX_CORRELATION_ID} are accepted")
    return found


def reply_to(headers: Headers) -> str:
    """The address of an inbox."""
    address = headers.get("reply_to") or _foreign_reply_to(headers)
    if not address:
        raise ValueError("no reply_to")
    if len(address) > MAX_REPLY_TO:
        raise ValueError(f"reply_to has {len(address)} characters; at most {MAX_REPLY_TO} are accepted")
    if not address.isprintable():
        raise ValueError(f"reply_to {address[:100]!r} has characters that cannot be printed")
    return address


def milliseconds(headers: Headers, name: str) -> int | None:
    """None if there is no such header."""
    value = headers.get(name, "")
    if not value:
        return None
    if not (value.isascii() and value.isdigit() and len(value) <= 15):
        raise ValueError(f"{name} is not a number of milliseconds")
    return int(value)


def one_of(given: Headers, name: str, accepted: Iterable[Choice], default: Choice) -> Choice:
    """The default if there is nothing of that name, or it is empty."""
    value = given.get(name) or default
    for choice in accepted:
        if value == choice:
            return choice
    known = ", ".join(filter(None, accepted))
    raise ValueError(f"{name} {value[:20]!r} is not understood here; accepted: {known}")


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


def encode_request(request: Request) -> Message:
    headers = {
        "schema": SCHEMA,
        "correlation_id": request.correlation_id,
        "reply_to": request.reply_to,
        "deadline_ms": "" if request.deadline_ms is None else str(request.deadline_ms),
        "content_type": request.content_type,
        "model": request.model,
        "mode": "" if request.mode == "auto" else request.mode,
        "explain": request.explain,
        "traceparent": request.traceparent,
    }
    return Message(request.body, {name: value for name, value in headers.items() if value})


def return_address(message: Message) -> ReturnAddress:
    """Read where the reply goes. Raises ContractError if nobody can be answered."""
    headers = message.headers
    try:
        check_size(headers)
        return ReturnAddress(correlation=correlation(headers), reply_to=reply_to(headers))
    except ValueError as error:
        raise ContractError(str(error)) from error


def decode_request(message: Message) -> Request:
    """Raises ContractError, with the code to answer if a return address can be read."""
    headers = message.headers
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
            deadline_ms=milliseconds(headers, "deadline_ms"),
            content_type=headers.get("content_type", ""),
            model=headers.get("model", ""),
            mode=one_of(headers, "mode", MODES, "auto"),
            explain=one_of(headers, "explain", EXPLAINS, ""),
            traceparent=headers.get("traceparent", ""),
        )
    except ValueError as error:
        raise ContractError(str(error)) from error


def encode_reply(reply: Reply, address: ReturnAddress) -> Message:
    return Message(_encode(reply), {"schema": SCHEMA, **address.correlation})


def encode_cancellation(correlation_ids: Sequence[str]) -> Message:
    return Message(_encode(correlation_ids), {"schema": SCHEMA})


def decode_cancellation(message: Message) -> list[str]:
    """Raises ContractError."""
    if len(message.body) > _MAX_CANCELLATION_BYTES:
        raise ContractError(f"cancellation: {len(message.body)} bytes, over {_MAX_CANCELLATION_BYTES}")
    try:
        return _decode_cancellation(message.body)
    except NOT_JSON as error:
        raise ContractError(f"cancellation: {error}") from error


def correlation_id(message: Message) -> str:
    """The request that a reply answers; empty if it does not say."""
    return message.headers.get("correlation_id", "")


def decode_prediction(message: Message, sha256: str | None) -> Reply:
    """The reply to the picture with this digest; None: to any picture. Raises ContractError."""
    if len(message.body) > _MAX_PREDICTION_BYTES:
        raise ContractError(f"reply: {len(message.body)} bytes, over {_MAX_PREDICTION_BYTES}")
    reply = decode_reply(message)
    check_prediction(reply, sha256)
    return reply


def decode_pong(message: Message) -> Reply:
    """The reply to a ping. Raises ContractError."""
    reply = decode_reply(message)
    check_pong(reply)
    return reply


def decode_reply(message: Message) -> Reply:
    """A reply of any kind, within its bounds. Raises ContractError."""
    try:
        return _decode_reply(message.body)
    except NOT_JSON as error:
        raise ContractError(f"reply: {error}") from error
