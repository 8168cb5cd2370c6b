"""Frames: several messages that travel as one record, because a record costs about as much as a message.

The record has the header `frame`, the number of its messages in decimal digits. Its body is MessagePack: an
array of messages, each an array of its headers, a map from text to text, and its body, as bytes. Who reads
frames says so in the header `frames: 1` of its requests and replies, and gets none otherwise.

Anyone may write records, so everything is checked. A frame that cannot be read is delivered as it came, with
its header, which no message of a frame has.
"""

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Annotated, Generic, TypeVar

import msgspec

from messaging.broker import Message

FRAME = "frame"
READS_FRAMES = {"frames": "1"}

MAX_MESSAGES = 1_000
"""Larger frames are not read."""

_GATHERED_MESSAGES = 32
_GATHERED_BYTES = 262_144
# Packing a larger message would cost as much as sending it alone.
_LARGEST = 65_536
# Between the bursts in which the answers to a batch, and the next requests, come.
_TURNS_OPEN = 30

_Messages = Annotated[list[tuple[dict[str, str], bytes]], msgspec.Meta(min_length=1, max_length=MAX_MESSAGES)]

Place = TypeVar("Place")

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Messages).decode


def reads_frames(message: Message) -> bool:
    """Whether its sender says so."""
    return READS_FRAMES.items() <= message.headers.items()


def packed(message: Message) -> bytes | None:
    """The message as a part of a frame; None if it must travel alone.

    That is the case if it is large, if it would look like a frame, and if a header is not text.
    """
    if len(message.body) > _LARGEST or FRAME in message.headers:
        return None
    try:
        part = _encode((message.headers, message.body))
    except UnicodeEncodeError:
        return None
    return part if len(part) <= _LARGEST else None


def frame_of(parts: Sequence[bytes]) -> Message:
    return Message(_encode([msgspec.Raw(part) for part in parts]), {FRAME: str(len(parts))})


def messages_of(message: Message) -> list[Message] | None:
    """The messages of a frame; None for any other message, and for a frame that cannot be read."""
    if FRAME not in message.headers:
        return None
    try:
        return _unpacked(message)
    except ValueError:
        return None


def why_not_read(message: Message) -> str:
    """Why a frame, which has been delivered as it came, cannot be read; empty for any other message."""
    if FRAME not in message.headers:
        return ""
    try:
        _unpacked(message)
    except ValueError as error:
        return f"frame: {error}"
    return "frame: inside of another frame"


def _unpacked(frame: Message) -> list[Message]:
    """Raises ValueError."""
    try:
        messages = [Message(body, headers) for headers, body in _decode(frame.body)]
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(str(error)) from error
    if frame.headers[FRAME] != str(len(messages)):
        raise ValueError(f"has {len(messages)} messages, not {frame.headers[FRAME][:20]!r}")
    if any(FRAME in each.headers for each in messages):
        raise ValueError("contains a frame")
    return messages


def being_published() -> Future[None]:
    """Ends when a broker has what is being published. Whoever has it cannot cancel it."""
    published: Future[None] = Future()
    published.set_running_or_notify_cancel()
    return published


@dataclass(slots=True, eq=False)
class Gathered:
    """Messages that travel to one place together. published: ends for all of them at once."""

    first: Message
    parts: list[bytes]
    size: int
    published: Future[None] = field(default_factory=being_published)

    def together(self) -> Message:
        """The message itself if it is alone."""
        return self.first if len(self.parts) == 1 else frame_of(self.parts)


class Gathering(Generic[Place]):
    """Decides which messages go together. Pure; its owner locks it, and calls turn() every few milliseconds.

    It is closed at first: a message that comes while it is closed goes alone, at once. The next turn() opens
    it, and some turns later it closes if no more have come.
    """

    def __init__(self, max_message_bytes: int) -> None:
        self._turns_left = 0
        self._most_bytes = min(_GATHERED_BYTES, max_message_bytes // 2)
        self._came = False
        self._gathered: dict[Place, Gathered] = {}

    @property
    def is_open(self) -> bool:
        return self._turns_left > 0

    def add(self, place: Place, message: Message, part: bytes) -> tuple[Future[None], Gathered | None]:
        """Returns what ends when the message is published, and what is to be sent now.

        part: as packed() returned it.
        """
        self._came = True
        its, size, ready = self._gathered.get(place), len(part), None
        if its is not None and its.size + size > self._most_bytes:
            its, ready = None, self._gathered.pop(place)
        if its is None:
            its = self._gathered[place] = Gathered(message, [part], size)
        else:
            its.parts.append(part)
            its.size += size
        if not self.is_open or len(its.parts) >= _GATHERED_MESSAGES:
            ready = self._gathered.pop(place)
        return its.published, ready

    def turn(self) -> list[tuple[Place, Gathered]]:
        """Returns what is to be sent now, by place."""
        self._turns_left = _TURNS_OPEN if self._came else max(0, self._turns_left - 1)
        self._came = False
        return self._take()

    def close(self) -> list[tuple[Place, Gathered]]:
        """Returns what is to be sent now, by place. The next turn() opens it at the earliest."""
        self._turns_left = 0
        return self._take()

    def _take(self) -> list[tuple[Place, Gathered]]:
        taken, self._gathered = self._gathered, {}
        return list(taken.items())
