"""The contract's requests, replies and cancellations as messages, and back."""

from collections.abc import Sequence

import msgspec

from messaging import headers as reading
from messaging.broker import Message
from messaging.contract import (
    ACCEPTED_SCHEMAS,
    EXPLAINS,
    MODES,
    SCHEMA,
    ContractError,
    ErrorCode,
    Reply,
    Request,
    ReturnAddress,
)

# What msgspec raises for text that is not UTF-8, and for what is nested too deep.
NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""msgspec's, on what is no JSON, or of another type; not UTF-8; nested too deeply."""

_encode = msgspec.json.Encoder().encode
_decode_reply = msgspec.json.Decoder(Reply).decode
_decode_cancellation = msgspec.json.Decoder(list[str]).decode


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
    """Read where the reply goes. Raises ContractError: then nobody can be answered."""
    headers = message.headers
    try:
        return ReturnAddress(correlation=reading.correlation(headers), reply_to=reading.reply_to(headers))
    except ValueError as error:
        raise ContractError(str(error)) from error


def decode_request(message: Message) -> Request:
    """Raises ContractError, with the code to answer where a return address can be read."""
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
    try:
        return _decode_cancellation(message.body)
    except NOT_JSON as error:
        raise ContractError(f"cancellation: {error}") from error


def correlation_id(message: Message) -> str:
    """Which request a reply answers; empty when it does not say."""
    return message.headers.get("correlation_id", "")


def decode_reply(message: Message) -> Reply:
    """Raises ContractError."""
    try:
        reply = _decode_reply(message.body)
    except NOT_JSON as error:
        raise ContractError(f"reply: {error}") from error
    if reply.error is None and not reply.probabilities and not reply.model:
        raise ContractError("reply: neither an answer nor an error")
    return reply
