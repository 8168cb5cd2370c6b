"""What the consumer and its processes send each other: msgpack over a socket pair per process.

consumer                     model process, decoder
         ◄──── Loaded ──────               once; or LoadFailed, and the process exits
         ───── Pictures ───►
         ◄──── Predicted ───               from the model process, for each batch, in order
         ◄──── Decoded ─────               from a decoder, for each picture, in order
"""

from collections.abc import Callable
from enum import StrEnum
from multiprocessing.connection import Connection

import msgspec

from messaging.contract import ErrorCode, Mode, ServedModel


class Role(StrEnum):
    """What a process of the worker does."""

    MODEL = "model"
    """Has the models: prepares small pictures, and predicts."""
    DECODER = "decoder"
    """Prepares one picture at a time, and has neither models nor their runtime."""


class Loaded(msgspec.Struct, frozen=True, tag=True):
    """The process is ready. The first model is the default; a decoder has none."""

    models: list[ServedModel]

    @property
    def default(self) -> ServedModel:
        return self.models[0]

    def named(self, name: str) -> ServedModel | None:
        """The default model for an empty name; None if no model has this name."""
        return next((model for model in self.models if name in ("", model.name)), None)


class LoadFailed(msgspec.Struct, frozen=True, tag=True):
    detail: str


class Picture(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """A picture file, and what to do with it.

    limit_s: the process is killed if preparing the picture takes more processor time; 0 for no limit.
    with_input: whether the outcome carries the prepared pixels.
    """

    content: bytes
    model: str
    mode: Mode
    with_input: bool
    limit_s: float = 0.0


class Tensor(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """One input of the model's network; see messaging.contract.Request."""

    content: bytes
    model: str


class PreparedPicture(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """A picture as a decoder has prepared it for the model; see model.preprocessing.Prepared.

    pixels: uint8, row by row, in the height, width and channels of the model's input.
    """

    pixels: bytes
    used_mode: str
    warnings: tuple[str, ...]
    decode_ms: float
    model: str
    with_input: bool


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What the model says of one picture or tensor, or an error code with its detail.

    probabilities: in the order of the model's labels; outputs: the numbers of a model without labels.
    infer_ms: the model's time for all its pictures in the batch. input: see Reply; only if asked for.
    """

    probabilities: list[float] = []
    outputs: list[float] = []
    in_distribution: bool | None = None
    ood_score: float | None = None
    mode: str = ""
    warnings: list[str] = []
    input: bytes | None = None
    decode_ms: float = 0.0
    infer_ms: float = 0.0
    error: ErrorCode | None = None
    detail: str = ""


class Predicted(msgspec.Struct, frozen=True, tag=True):
    """Outcome i is for picture i."""

    outcomes: list[Outcome]


class Decoded(msgspec.Struct, frozen=True, tag=True):
    """prepared is None if the picture cannot be used; detail says why."""

    prepared: PreparedPicture | None = None
    detail: str = ""


Pictures = list[Picture | PreparedPicture | Tensor]
Answer = Loaded | LoadFailed | Predicted | Decoded

_encode = msgspec.msgpack.Encoder().encode
_decode_answer: Callable[[bytes], Answer] = msgspec.msgpack.Decoder(Answer).decode
_decode_pictures: Callable[[bytes], Pictures] = msgspec.msgpack.Decoder(Pictures).decode


def send_pictures(connection: Connection, pictures: Pictures) -> None:
    connection.send_bytes(_encode(pictures))


def receive_pictures(connection: Connection) -> Pictures:
    """Raises EOFError when the consumer is gone."""
    return _decode_pictures(connection.recv_bytes())


def send_answer(connection: Connection, answer: Answer) -> None:
    connection.send_bytes(_encode(answer))


def receive_answer(connection: Connection) -> Answer:
    """Raises EOFError when the process is gone."""
    return _decode_answer(connection.recv_bytes())
