"""What a worker says of a model that it serves."""

import hashlib
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Literal, get_args

import msgspec

Mode = Literal["auto", "raw28", "product", "photo"]
Explain = Literal["", "input"]

SCHEMA = "1"
ACCEPTED_SCHEMAS = ("1",)
PING = "application/vnd.mlaas.ping"

# Ids are kept in memory, and headers are copied into dead letters: strangers must not choose their size.
MAX_CORRELATION_ID = 256
MAX_REPLY_TO = 512
MAX_HEADERS = 65_536
MAX_CANCELLED = 1_000

MODES: tuple[Mode, ...] = get_args(Mode)
EXPLAINS: tuple[Explain, ...] = get_args(Explain)

CancelledIds = Annotated[
    list[Annotated[str, msgspec.Meta(max_length=MAX_CORRELATION_ID)]], msgspec.Meta(max_length=MAX_CANCELLED)
]


class ServedModel(msgspec.Struct, frozen=True, kw_only=True):
    """One model, as it is with the reply to a ping.

    default: it answers where no model is named. runtime is onnx or keras. input says in words what the
    network sees. sha256 is of the file that the runtime has loaded. accuracy: what share of the test pictures
    it is right on.
    """

    name: str
    version: str
    default: bool = False
    runtime: str = ""
    labels: list[str] = []
    input: str = ""
    sha256: str = ""
    accuracy: float | None = None


class ErrorCode(StrEnum):
    INVALID_PICTURE = "invalid_picture"
    INVALID_REQUEST = "invalid_request"
    UNKNOWN_MODEL = "unknown_model"
    UNSUPPORTED_SCHEMA = "unsupported_schema"
    OVERLOADED = "overloaded"
    INTERNAL = "internal"

    @classmethod
    def _missing_(cls, value: object) -> "ErrorCode | None":
        """A newer worker may know more codes: to this gateway, they are failures without a detail."""
        return cls.INTERNAL if isinstance(value, str) else None


class ContractError(Exception):
    """The message breaks the contract. It always will, so do not retry."""

    def __init__(self, detail: str, code: ErrorCode = ErrorCode.INVALID_REQUEST) -> None:
        super().__init__(detail)
        self.code = code


class ReturnAddress(msgspec.Struct, frozen=True):
    """Where the reply goes, and the headers that tell the requester which request it answers."""

    reply_to: str
    correlation: Mapping[str, str]

    @property
    def correlation_id(self) -> str:
        return next(iter(self.correlation.values()))


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """One picture to classify, or a ping."""

    body: bytes
    correlation_id: str
    reply_to: str
    deadline_ms: int | None = None
    content_type: str = ""
    model: str = ""
    mode: Mode = "auto"
    explain: Explain = ""
    traceparent: str = ""

    @property
    def is_ping(self) -> bool:
        return self.content_type == PING


def sha256_of(picture: bytes) -> str:
    """What a reply to this picture carries."""
    return hashlib.sha256(picture).hexdigest()


# Clocks of machines may differ by decades; more than this is no time at all.
Milliseconds = Annotated[float, msgspec.Meta(ge=0, le=1e15)]
Pixels = Annotated[bytes, msgspec.Meta(min_length=28 * 28, max_length=28 * 28)]
Probability = Annotated[float, msgspec.Meta(ge=0, le=1)]
Name = Annotated[str, msgspec.Meta(max_length=256)]
Warnings = Annotated[list[Annotated[str, msgspec.Meta(max_length=1_000)]], msgspec.Meta(max_length=32)]


class Timings(msgspec.Struct, frozen=True, kw_only=True):
    """Where the worker's time went. batch_ms is the wait for the model; batch_size pictures shared it."""

    queue_ms: Milliseconds
    batch_ms: Milliseconds
    decode_ms: Milliseconds
    infer_ms: Milliseconds
    batch_size: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]


class Failure(msgspec.Struct, frozen=True):
    """Why there is no prediction. The detail is shown to whoever asked."""

    code: ErrorCode
    detail: str


class Reply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A prediction, an error, or the answer to a ping. Bounds are checked when it is decoded.

    sha256 is the digest of the request's body, which proves what a prediction is about; an error may leave it
    empty. probabilities maps labels to numbers. ood_score is above 1 if the picture is unlike the model's
    training data. mode is the one that auto chose. input is the 28 x 28 grey values that the model saw, row
    by row, in base64. models answers a ping with all models that the worker serves; older workers leave it
    empty.
    """

    sha256: Annotated[str, msgspec.Meta(max_length=64)]
    model: Name = ""
    version: Name = ""
    probabilities: dict[Name, Probability] = {}
    in_distribution: bool | None = None
    ood_score: float | None = None
    mode: Name = ""
    warnings: Warnings = []
    input: Pixels | None = None
    timings: Timings | None = None
    models: list[ServedModel] = []
    error: Failure | None = None


def check_prediction(reply: Reply, sha256: str | None) -> None:
    """Whether it is a prediction for, or an error about, the picture with this digest; None: any picture.

    Raises ContractError.
    """
    if reply.error is None and not reply.probabilities:
        raise ContractError("reply: neither probabilities nor an error")
    of_another = reply.sha256 != sha256 and (reply.error is None or reply.sha256 != "")
    if sha256 is not None and of_another:
        raise ContractError(f"reply: for another picture, with sha256 {reply.sha256!r}")


def check_pong(reply: Reply) -> None:
    """Whether it answers a ping. Raises ContractError."""
    if reply.error is not None or reply.probabilities or not reply.model:
        raise ContractError("reply: does not answer a ping")
