"""What the consumer and its processes say to each other, and how: msgpack over a socket pair each.

consumer                     model process, decoder
         ◄──── Loaded ──────               once, or LoadFailed and the end
         ───── pictures ───►
         ◄──── Predicted ───               from the model process, for each batch, in order
         ◄──── Decoded ─────               from a decoder, for each picture, in order
"""

from collections.abc import Callable
from enum import StrEnum
from multiprocessing.connection import Connection

import msgspec

from messaging.contract import ErrorCode, Mode


class Role(StrEnum):
    """What a process of the worker does."""

    MODEL = "model"
    """Prepares small pictures and predicts: it has the models."""
    DECODER = "decoder"
    """Prepares one picture at a time, and has neither models nor their runtime."""


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
    """The process is ready. The first model is the default; a decoder has none."""

    models: list[LoadedModel]

    @property
    def default(self) -> LoadedModel:
        return self.models[0]

    def named(self, name: str) -> LoadedModel | None:
        """The default for the empty name, None for one that is not loaded."""
        return next((model for model in self.models if name in ("", model.name)), None)


class LoadFailed(msgspec.Struct, frozen=True, tag=True):
    detail: str


class Picture(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """A file to be prepared, and what for.

    limit_s: the process is killed if preparing the picture takes more processor time. 0: no limit.
    """

    content: bytes
    model: str
    mode: Mode
    with_input: bool
    limit_s: float = 0.0


class Prepared(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """A picture as the network sees it: what a decoder has made of one.

    See model.preprocessing.Prepared; pixels are 28 x 28 grey values, row by row.
    """

    pixels: bytes
    used_mode: str
    warnings: tuple[str, ...]
    decode_ms: float
    model: str
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


class Decoded(msgspec.Struct, frozen=True, tag=True):
    """prepared is None if the picture cannot be used; detail says why."""

    prepared: Prepared | None = None
    detail: str = ""


_encode = msgspec.msgpack.Encoder().encode
Pictures = list[Picture | Prepared]
Answer = Loaded | LoadFailed | Predicted | Decoded

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
