"""Requests, replies and cancellations of the wire contract as messages, and back."""

from collections.abc import Sequence

import msgspec

from messaging import headers as reading
from messaging.broker import Message
from messaging.contract import (
    ACCEPTED_SCHEMAS,
    EXPLAINS,
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

NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises: not JSON or of the wrong types, not UTF-8, nested too deeply."""

_encode = msgspec.json.Encoder().encode
_decode_reply = msgspec.json.Decoder(Reply).decode
_decode_cancellation = msgspec.json.Decoder(CancelledIds).decode

_MAX_PREDICTION_BYTES = 1_048_576  # 21,000 labels, the most that a public data set has, take 840 kB
_MAX_CANCELLATION_BYTES = 524_288  # MAX_CANCELLED ids of twice the length that they may have


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
        reading.check_size(headers)
        return ReturnAddress(correlation=reading.correlation(headers), reply_to=reading.reply_to(headers))
    except ValueError as error:
        raise ContractError(str(error)) from error


def decode_request(message: Message) -> Request:
    """Raises ContractError, with the code to answer if a return address can be read."""
    headers = message.headers
    address = return_address(message)
    try:
        reading.one_of(headers, "schema", ACCEPTED_SCHEMAS, SCHEMA)
    except ValueError as error:
        raise ContractError(str(error), ErrorCode.UNSUPPORTED_SCHEMA) from error
    try:
        return Request(
            body=message.body,
            correlation_id=address.correlation_id,
            reply_to=address.reply_to,
            deadline_ms=reading.milliseconds(headers, "deadline_ms"),
            content_type=headers.get("content_type", ""),
            model=headers.get("model", ""),
            mode=reading.one_of(headers, "mode", MODES, "auto"),
            explain=reading.one_of(headers, "explain", EXPLAINS, ""),
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
