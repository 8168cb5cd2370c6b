"""What comes back. Fields that a later server adds are in raw, and break nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from typing import Any, TypeVar

from client.errors import MlaasError, of_problem

T = TypeVar("T")
Document = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """What is on one picture. probabilities sum to 1; timings are milliseconds; input is a data URI.

    in_distribution is false, and ood_score above 1, where the picture is unlike the model's training.
    """

    label: str
    confidence: float
    probabilities: Mapping[str, float]
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
class Model:
    """One that is served. accuracy is a fraction of the test pictures; sha256 is of the file."""

    name: str
    version: str
    default: bool = False
    runtime: str = ""
    labels: Sequence[str] = ()
    input: str = ""
    sha256: str = ""
    accuracy: float | None = None
    raw: Document = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Item:
    """One picture of a job that is finished: what is on it, or why that is not known."""

    index: int
    filename: str
    outcome: Prediction | MlaasError


@dataclass(frozen=True, kw_only=True)
class Job:
    """status: accepted, running, done, canceled or expired. items: the finished ones. Times: RFC 3339."""

    id: str
    status: str
    total: int = 0
    completed: int = 0
    created_at: str = ""
    expires_at: str = ""
    items: Sequence[Item] = ()
    request_id: str = ""
    raw: Document = field(default_factory=dict, repr=False)

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come."""
        return self.status not in ("accepted", "running")


def read(kind: type[T], document: Document, **more: object) -> T:
    """Raises TypeError if what every server says is not there."""
    known = {name: document[name] for name in _names(kind) if name in document}  # type: ignore[arg-type]
    return kind(**{**known, **more, "raw": document})


@cache
def _names(kind: Any) -> tuple[str, ...]:
    return tuple(its.name for its in fields(kind))


def item(entry: Document) -> Item:
    """One of the results of a batch or a job."""
    problem = entry.get("problem")
    outcome = of_problem(problem, problem["status"]) if problem else read(Prediction, entry["prediction"])
    return Item(entry["index"], entry.get("filename", ""), outcome)


def job(document: Document, request_id: str) -> Job:
    return read(Job, document, items=[*map(item, document.get("results", ()))], request_id=request_id)
