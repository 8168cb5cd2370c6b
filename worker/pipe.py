"""What the consumer and its model process say to each other, and how: msgpack over socket pairs.

consumer                     model process
         ◄──── Loaded ──────               once, on the first pair, or LoadFailed and the end
         ───── pictures ───►
         ◄──── Predicted ───               for each batch, in order

Each lane has a pair of its own, and does not wait for what is under way on the other.
"""

from collections.abc import Callable
from enum import IntEnum
from multiprocessing.connection import Connection

import msgspec

from messaging.contract import ErrorCode, Mode


class Lane(IntEnum):
    """Which way pictures take to the model, and its place among the process's descriptors."""

    SMALL = 0
    """In batches."""
    LARGE = 1
    """Those that take long to decode, one at a time."""


class LoadedModel(msgspec.Struct, frozen=True):
    """See messaging.served_model.ServedModel for what they mean."""

    name: str
    version: str
    runtime: str
    labels: list[str]
    input: str = ""
    sha256: str = ""
    accuracy: float | None = None


class Loaded(msgspec.Struct, frozen=True, tag=True):
    """At least one model; the first is the default."""

    models: list[LoadedModel]

    @property
    def default(self) -> LoadedModel:
        return self.models[0]

    def named(self, name: str) -> LoadedModel | None:
        """The default for the empty name, None for one that is not loaded."""
        return next((model for model in self.models if name in ("", model.name)), None)


class LoadFailed(msgspec.Struct, frozen=True, tag=True):
    detail: str


class Picture(msgspec.Struct, frozen=True, array_like=True):
    """A file's content, the name of a loaded model, how to prepare, whether what it saw comes back."""

    content: bytes
    model: str
    mode: Mode
    with_input: bool


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """One picture's: probabilities in the order of the model's labels, or an error code with its detail.

    infer_ms is the time for all pictures of the batch that are for the same model. input is the 28 x 28 grey
    values, if wanted.
    """

    probabilities: list[float] = []
    in_distribution: bool = True
    ood_score: float = 0.0
    mode: str = ""
    warnings: list[str] = []
    input: bytes | None = None
    decode_ms: float = 0.0
    infer_ms: float = 0.0
    error: ErrorCode | None = None
    detail: str = ""


class Predicted(msgspec.Struct, frozen=True, tag=True):
    """Outcome i is picture i's."""

    outcomes: list[Outcome]


_encode = msgspec.msgpack.Encoder().encode
Answer = Loaded | LoadFailed | Predicted

_decode_answer: Callable[[bytes], Answer] = msgspec.msgpack.Decoder(Answer).decode
_decode_pictures = msgspec.msgpack.Decoder(list[Picture]).decode


def send_pictures(connection: Connection, pictures: list[Picture]) -> None:
    connection.send_bytes(_encode(pictures))


def receive_pictures(connection: Connection) -> list[Picture]:
    """Raises EOFError when the consumer is gone."""
    return _decode_pictures(connection.recv_bytes())


def send_answer(connection: Connection, answer: Answer) -> None:
    connection.send_bytes(_encode(answer))


def receive_answer(connection: Connection) -> Answer:
    """Raises EOFError when the model process is gone."""
    return _decode_answer(connection.recv_bytes())
