"""What the consumer and its model process say to each other, and how: msgpack over a socket pair.

consumer                     model process
         ◄──── Loaded ──────               once, or LoadFailed and the end
         ───── pictures ───►
         ◄──── Predicted ───               for each batch, in order
"""

from collections.abc import Callable
from multiprocessing.connection import Connection

import msgspec

from messaging.contract import ErrorCode


class Loaded(msgspec.Struct, frozen=True, tag=True):
    model: str
    version: str
    runtime: str
    labels: list[str]


class LoadFailed(msgspec.Struct, frozen=True, tag=True):
    detail: str


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """One picture's: probabilities in the order of the labels, or an error code with its detail."""

    probabilities: list[float] = []
    decode_ms: float = 0.0
    error: ErrorCode | None = None
    detail: str = ""


class Predicted(msgspec.Struct, frozen=True, tag=True):
    """Outcome i is picture i's. infer_ms is the whole batch's."""

    outcomes: list[Outcome]
    infer_ms: float


_encode = msgspec.msgpack.Encoder().encode
Answer = Loaded | LoadFailed | Predicted

_decode_answer: Callable[[bytes], Answer] = msgspec.msgpack.Decoder(Answer).decode
_decode_pictures = msgspec.msgpack.Decoder(list[bytes]).decode


def send_pictures(connection: Connection, pictures: list[bytes]) -> None:
    connection.send_bytes(_encode(pictures))


def receive_pictures(connection: Connection) -> list[bytes]:
    """Raises EOFError when the consumer is gone."""
    return _decode_pictures(connection.recv_bytes())


def send_answer(connection: Connection, answer: Answer) -> None:
    connection.send_bytes(_encode(answer))


def receive_answer(connection: Connection) -> Answer:
    """Raises EOFError when the model process is gone."""
    return _decode_answer(connection.recv_bytes())
