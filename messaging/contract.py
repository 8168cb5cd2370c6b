"""The wire contract: what requests, replies and cancellations say, over any broker. See codec.py."""

import hashlib
import sys
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Annotated, Literal, get_args

import msgspec

SCHEMA = "1"
ACCEPTED_SCHEMAS = ("1",)
PING = "application/vnd.mlaas.ping"
TENSOR = "application/vnd.mlaas.tensor"

Mode = Literal["auto", "raw28", "product", "photo"]
Explain = Literal["", "input"]
MODES: tuple[Mode, ...] = get_args(Mode)
EXPLAINS: tuple[Explain, ...] = get_args(Explain)

MOST_LABELS = 10
"""How many of the most probable labels an answer has unless more or fewer are asked for."""

# Anyone may send messages, whose ids are kept in memory and whose headers are copied into dead letters.
MAX_CORRELATION_ID = 256
MAX_REPLY_TO = 512
MAX_HEADERS = 65_536
MAX_CANCELLED = 1_000
MAX_OUTPUTS = 40_000  # in JSON, numbers of 24 characters then take less than a reply may have

CancelledIds = Annotated[
    list[Annotated[str, msgspec.Meta(max_length=MAX_CORRELATION_ID)]], msgspec.Meta(max_length=MAX_CANCELLED)
]


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A picture to classify, or a ping.

    deadline_ms: epoch; nobody waits for the reply after it. version: the only one of the model that may
    answer; by default the worker chooses. Older workers ignore it, so compare it with the reply's.
    reads_frames: whether all who read the reply's address read frames.

    With the content type TENSOR, the body is one input of the model's network, as its ServedModel describes
    it: numbers of its dtype in little-endian order, row by row; a bool is one byte, 0 or 1.

    top_k: how many of the most probable labels the reply needs; 0: all. Older workers send all.
    """

    body: bytes
    correlation_id: str
    reply_to: str
    deadline_ms: int | None = None
    content_type: str = ""
    model: str = ""
    version: str = ""
    mode: Mode = "auto"
    explain: Explain = ""
    top_k: int = 0
    traceparent: str = ""
    reads_frames: bool = False

    @property
    def is_ping(self) -> bool:
        return self.content_type == PING

    @property
    def is_tensor(self) -> bool:
        return self.content_type == TENSOR


class ReturnAddress(msgspec.Struct, frozen=True):
    """Where the reply goes, and the headers that tell the requester which request it answers.

    reads_frames: see Request.
    """

    reply_to: str
    correlation: Mapping[str, str]
    reads_frames: bool = False

    @property
    def correlation_id(self) -> str:
        return next(iter(self.correlation.values()))


class ErrorCode(StrEnum):
    INVALID_PICTURE = "invalid_picture"
    INVALID_REQUEST = "invalid_request"
    UNKNOWN_MODEL = "unknown_model"
    UNSUPPORTED_SCHEMA = "unsupported_schema"
    OVERLOADED = "overloaded"
    INTERNAL = "internal"

    @classmethod
    def _missing_(cls, value: object) -> "ErrorCode | None":
        """Codes that only newer workers know are internal errors."""
        return cls.INTERNAL if isinstance(value, str) else None


class ContractError(Exception):
    """The message breaks the contract. Do not retry. code: what to answer."""

    def __init__(self, detail: str, code: ErrorCode = ErrorCode.INVALID_REQUEST) -> None:
        super().__init__(detail)
        self.code = code


class Failure(msgspec.Struct, frozen=True):
    """Why there is no prediction. The detail is shown to the caller."""

    code: ErrorCode
    detail: str


# Clocks of two machines may differ by years, but not by more than this.
Milliseconds = Annotated[float, msgspec.Meta(ge=0, le=1e15)]
Shown = Annotated[bytes, msgspec.Meta(max_length=1_048_576)]
GREY_28 = 28 * 28
MAX_AXES = 8
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
Count = Annotated[int, msgspec.Meta(ge=0)]
Probability = Annotated[float, msgspec.Meta(ge=0, le=1)]
# JSON has no infinity, and readers differ in what they make of larger numbers.
Finite = Annotated[float, msgspec.Meta(ge=-sys.float_info.max, le=sys.float_info.max)]
Name = Annotated[str, msgspec.Meta(max_length=256)]
Warnings = Annotated[list[Annotated[str, msgspec.Meta(max_length=1_000)]], msgspec.Meta(max_length=32)]


def _one_of(*values: str) -> msgspec.Meta:
    """Documents the values. Others are accepted, because newer workers may know more of them."""
    return msgspec.Meta(max_length=256, extra_json_schema={"enum": [*values]})


class Timings(msgspec.Struct, frozen=True, kw_only=True):
    """Where the worker's time went.

    queue_ms: in the broker. batch_ms: waiting for the model. infer_ms: of the whole batch of batch_size.
    """

    queue_ms: Milliseconds
    batch_ms: Milliseconds
    decode_ms: Milliseconds
    infer_ms: Milliseconds
    batch_size: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]


class Agreement(msgspec.Struct, frozen=True, kw_only=True):
    """How often a version's label was the same as the one that was answered, or another one.

    failed: pictures that it could not classify. skipped: pictures that it did not see, because it was behind.
    """

    same: Count = 0
    other: Count = 0
    failed: Count = 0
    skipped: Count = 0


class ServedVersion(msgspec.Struct, frozen=True, kw_only=True):
    """A version of a model that is served, or is wanted and cannot be: problem then says why.

    share_percent: of the requests that name no version. shadow: not None for a version that classifies what
    another one answers. sha256 and accuracy: see ServedModel.
    """

    version: str
    share_percent: Annotated[int, msgspec.Meta(ge=0, le=100)] = 0
    shadow: Agreement | None = None
    sha256: str = ""
    accuracy: float | None = None
    problem: str = ""

    @property
    def answers(self) -> bool:
        """Whether requests may name it."""
        return self.share_percent > 0


class ServedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model that a worker serves.

    version: the one that answers most requests; what follows describes it. default: whether the model
    answers requests that name none. runtime: onnx or keras. kind: what it takes: pictures of clothing
    (garment), other pictures (image), or numbers (tensor). input: what the network sees, in words; shape and
    dtype: the same, of one input. output: what the network gives, see model.manifest.Manifest; output_size:
    how many numbers. sha256: of the weights file. accuracy: on the test pictures, from 0 to 1. versions: all
    of them; older workers leave it empty. Where a gateway lists a model that cannot be served, what only a
    loaded network tells is empty.
    """

    name: str
    version: str
    default: bool = False
    runtime: str = ""
    labels: list[str] = []
    kind: Annotated[str, _one_of("garment", "image", "tensor", "")] = "garment"
    input: str = ""
    shape: Annotated[tuple[int, ...], msgspec.Meta(max_length=MAX_AXES)] = (28, 28)
    dtype: Name = "uint8"
    output: Name = "probabilities"
    output_size: int = 0
    sha256: str = ""
    accuracy: float | None = None
    versions: list[ServedVersion] = []

    @property
    def answering(self) -> list[str]:
        """The versions that requests may name."""
        return [each.version for each in self.versions if each.answers] or [self.version]

    @property
    def takes_mode(self) -> bool:
        """Whether requests may choose how their picture is prepared."""
        return self.kind == "garment"


class UnservedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model that a worker should serve and cannot: each of its versions has a problem.

    If not even a version can be told, there is one without a name.
    """

    name: str
    versions: Annotated[list[ServedVersion], msgspec.Meta(min_length=1)]


class Reply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A prediction, an error, or the answer to a ping. Decoding checks the bounds.

    sha256: of the request's body, which proves what a prediction is about; errors may leave it empty.
    probabilities: by label, see Request.top_k. outputs: the numbers that a model without labels gives.
    ood_score: above 1 if the picture is unlike the training data. mode: used, or chosen by auto; tensor
    for a tensor. input: what the model saw, in base64: 28 x 28 grey values, row by row, or a PNG file.
    models: all that the worker serves, in answer to a ping; older workers leave it empty. unserved: those
    that it should serve and cannot; older gateways ignore them.
    """

    sha256: Annotated[str, msgspec.Meta(max_length=64)]
    model: Name = ""
    version: Name = ""
    probabilities: dict[Name, Probability] = {}
    outputs: Annotated[list[Finite], msgspec.Meta(max_length=MAX_OUTPUTS)] = []
    in_distribution: bool | None = None
    ood_score: float | None = None
    mode: Name = ""
    warnings: Warnings = []
    input: Shown | None = None
    timings: Timings | None = None
    models: list[ServedModel] = []
    unserved: list[UnservedModel] = []
    error: Failure | None = None

    def __post_init__(self) -> None:
        if self.input is not None and len(self.input) != GREY_28 and not self.input.startswith(PNG_SIGNATURE):
            raise ValueError("input is neither 28 x 28 grey values nor a PNG file")


def sha256_of(picture: bytes) -> str:
    """The digest that a reply to this picture carries, in hexadecimal."""
    return hashlib.sha256(picture).hexdigest()


def check_prediction(reply: Reply, sha256: str | None) -> None:
    """Check for a prediction or an error that is about the picture with this digest; None: any picture.

    Raises ContractError.
    """
    if reply.error is None and not reply.probabilities and not reply.outputs:
        raise ContractError("reply: neither probabilities, outputs nor an error")
    if sha256 is None or reply.sha256 == sha256 or (reply.error is not None and reply.sha256 == ""):
        return
    raise ContractError(f"reply: for another picture, with sha256 {reply.sha256!r}")


def cannot_be_served(name: str, version: str, problem: str) -> str:
    """What to tell who asked for a model or version that should be served. version may be empty."""
    return f"{' '.join(filter(None, (name, version)))} cannot be served: {problem}"


def no_such_model(name: str, version: str, served: Iterable[ServedModel]) -> str:
    """What to tell who asked for a model or version that is not served."""
    what = f"no model {name[:100]!r}" + (f" of version {version[:100]!r}" if version else "")
    return f"{what}; served: {', '.join(f'{each.name} {one}' for each in served for one in each.answering)}"
