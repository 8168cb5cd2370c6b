"""Reads headers, which anyone may have written. Raises ValueError, saying what is wrong."""

from collections.abc import Iterable, Mapping
from typing import TypeVar

from messaging.contract import MAX_CORRELATION_ID, MAX_HEADERS, MAX_REPLY_TO

Choice = TypeVar("Choice", bound=str)
Headers = Mapping[str, str]

_CORRELATION = ("correlation_id", "kafka_correlationId")
RETURN_ADDRESS = (*_CORRELATION, "reply_to", "kafka_replyTopic", "kafka_replyPartition")


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
