"""The results of calls. raw has the whole JSON, including fields that newer servers add."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeAlias, TypeVar

from mlaas_client.errors import AnswerMismatch, MlaasError, of_problem

T = TypeVar("T")
Document = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The prediction for a picture, or for a row of numbers.

    probabilities sum to 1 over all labels; timings are in milliseconds; input is a data URI. in_distribution
    is false, and ood_score is above 1, if the picture is unlike the training data. A model without labels
    leaves label empty, and answers with outputs.
    """

    label: str = ""
    confidence: float = 0.0
    probabilities: Mapping[str, float]
    outputs: Sequence[float] = ()
    in_distribution: bool | None = None
    ood_score: float | None = None
    mode: str = ""
    warnings: Sequence[str] = ()
    input: str | None = None
    model: str = ""
    version: str = ""
    request_id: str = ""
    sha256: str = ""
    timings: Mapping[str, float] = field(default_factory=dict)
    raw: Document = field(default_factory=dict, repr=False)


@dataclass(frozen=True, kw_only=True)
class Version:
    """A version of a model. share_percent is that of the requests that name no version.

    shadow is not None for a version that classifies what another one answers: how often its label was the
    same, or another one, and how many pictures failed or were skipped. problem says why a version that is
    wanted is not served.
    """

    version: str
    share_percent: int = 0
    shadow: Mapping[str, int] | None = None
    sha256: str = ""
    accuracy: float | None = None
    problem: str = ""
    raw: Document = field(default_factory=dict, repr=False)


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model. kind is what it takes: garment, image or tensor; shape and dtype are the network's own.

    accuracy is the fraction of test pictures it gets right; sha256 is the file's digest. version is the one
    that answers most requests; versions are all of them. queue is where its requests wait; ready: whether it
    would answer now. Of a model that is not served, only the versions and their problems are known.
    """

    name: str
    version: str
    default: bool = False
    runtime: str = ""
    labels: Sequence[str] = ()
    kind: str = ""
    input: str = ""
    shape: Sequence[int] = ()
    dtype: str = ""
    output: str = ""
    sha256: str = ""
    accuracy: float | None = None
    versions: Sequence[Version] = ()
    queue: str = ""
    ready: bool = True
    raw: Document = field(default_factory=dict, repr=False)

    @property
    def is_served(self) -> bool:
        """Whether a version of it answers. Older gateways list no others, and none of their versions."""
        return not self.versions or any(its.share_percent for its in self.versions)


Outcome: TypeAlias = Prediction | MlaasError


@dataclass(frozen=True)
class Item:
    """A finished picture of a job: its prediction or its error."""

    index: int
    filename: str
    outcome: Outcome


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job. status is accepted, running, done, canceled or expired; items are the finished pictures.

    Times are in RFC 3339. sha256s has the digests of the pictures if this client submitted them.
    """

    id: str
    status: str
    total: int = 0
    completed: int = 0
    created_at: str = ""
    expires_at: str = ""
    items: Sequence[Item] = ()
    request_id: str = ""
    sha256s: Sequence[str] = field(default=(), repr=False)
    raw: Document = field(default_factory=dict, repr=False)

    @property
    def is_over(self) -> bool:
        """Whether the job gets no more results."""
        return self.status not in ("accepted", "running")


def read(kind: type[T], document: Document, **more: object) -> T:
    """Raises TypeError if a required field is missing or null."""
    names = (each.name for each in fields(kind))  # type: ignore[arg-type]
    known = {name: document[name] for name in names if document.get(name) is not None}
    return kind(**{**known, **more, "raw": document})


def model(document: Document) -> Model:
    return read(Model, document, versions=[read(Version, each) for each in document.get("versions", ())])


def item(entry: Document) -> Item:
    """An entry of the results of a batch or job."""
    problem = entry.get("problem")
    outcome = of_problem(problem, problem["status"]) if problem else read(Prediction, entry["prediction"])
    return Item(entry["index"], entry.get("filename", ""), outcome)


def job(document: Document, request_id: str, sha256s: Sequence[str] = ()) -> Job:
    items = [*map(item, document.get("results", ()))]
    if sha256s:
        items = [replace(each, outcome=checked(each.outcome, sha256s[each.index])) for each in items]
    return read(Job, document, items=items, request_id=request_id, sha256s=sha256s)


def checked(outcome: Outcome, sha256: str) -> Outcome:
    """The outcome, or AnswerMismatch if it is a prediction for a picture with another digest."""
    if isinstance(outcome, MlaasError) or outcome.sha256 in ("", sha256):
        return outcome
    error = AnswerMismatch(
        f"the answer is for another picture: {outcome.sha256} was classified, {sha256} was sent; "
        "something between here and the gateway mixes up answers"
    )
    error.request_id = outcome.request_id
    return error
