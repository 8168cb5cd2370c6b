"""The wire contract between gateway and worker, and whoever else speaks to them over the broker.

A request's body is the picture as uploaded. Everything else is a text header:

    schema          version of this contract; none means 1
    correlation_id  chosen by the requester, returned with the reply
    reply_to        the inbox's address
    deadline_ms     epoch; after it nobody waits any more; none means no deadline
    content_type    of the body; PING asks which models there are, and carries no picture
    model           name of the model wanted; none means the default
    mode            how the picture is made into the model's input, one of MODES; none means auto
    explain         input: return what the model saw, too
    traceparent     W3C trace context

A client of Spring for Apache Kafka or of Nest may send kafka_correlationId, kafka_replyTopic and
kafka_replyPartition instead; it gets its own names back.

A reply's body is JSON: a `Reply`. Its header correlation_id says which request it answers.

A cancellation goes to the feed of the topic for it, which all workers hear. Its body is JSON: a list of the
correlation ids that nobody waits for any more.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Literal, get_args

import msgspec

from messaging.served_model import ServedModel

Mode = Literal["auto", "raw28", "product", "photo"]
Explain = Literal["", "input"]

SCHEMA = "1"
ACCEPTED_SCHEMAS = ("1",)
PING = "application/vnd.mlaas.ping"
MODES: tuple[Mode, ...] = get_args(Mode)
EXPLAINS: tuple[Explain, ...] = get_args(Explain)


class ErrorCode(StrEnum):
    INVALID_PICTURE = "invalid_picture"
    INVALID_REQUEST = "invalid_request"
    UNKNOWN_MODEL = "unknown_model"
    UNSUPPORTED_SCHEMA = "unsupported_schema"
    INTERNAL = "internal"


class ContractError(Exception):
    """The message does not keep the contract; it never will, so retrying does not help."""

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


Milliseconds = Annotated[float, msgspec.Meta(ge=0)]
Pixels = Annotated[bytes, msgspec.Meta(min_length=28 * 28, max_length=28 * 28)]


class Timings(msgspec.Struct, frozen=True, kw_only=True):
    """Where the worker's time went. batch_ms is the wait for the model, batch_size how many shared it."""

    queue_ms: Milliseconds
    batch_ms: Milliseconds
    decode_ms: Milliseconds
    infer_ms: Milliseconds
    batch_size: int


class Failure(msgspec.Struct, frozen=True):
    """Why there is no prediction; the detail is fit to be shown to the one who asked."""

    code: ErrorCode
    detail: str


class Reply(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One answer: probabilities (label to number, summing to 1), or an error.

    sha256 is the digest of the request's body, so that anyone can prove which request this answers.
    ood_score is above 1 where the picture is not in the distribution that the model knows; mode is the one
    that auto chose; input the 28 x 28 grey values that the model saw, row by row, in base64. models is all
    that the worker serves, in the reply to a ping; empty from a worker that does not say.
    """

    sha256: str
    model: str = ""
    version: str = ""
    probabilities: dict[str, float] = {}
    in_distribution: bool | None = None
    ood_score: float | None = None
    mode: str = ""
    warnings: list[str] = []
    input: Pixels | None = None
    timings: Timings | None = None
    models: list[ServedModel] = []
    error: Failure | None = None
