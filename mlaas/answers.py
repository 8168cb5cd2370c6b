"""What `mlaas predict`, `watch` and `jobs` print of each picture. Pure."""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from mlaas.columns import aligned, harmless
from mlaas.hints import with_hint

_TITLES = ("FILE", "LABEL", "CONFIDENCE", "WARNINGS")
_WIDTHS = (32, 12, 10)


class Answer(NamedTuple):
    """The prediction as POST /predict has it, or the error that there is in its place."""

    name: str
    prediction: Mapping[str, Any] | None
    error: Exception | None = None


def table(answers: Sequence[Answer]) -> Iterable[str]:
    """A title line, and one for each that has a prediction."""
    rows = [_row(answer.name, answer.prediction) for answer in answers if answer.prediction is not None]
    return aligned([_TITLES, *rows]) if rows else ()


def row(answer: Answer) -> Iterable[str]:
    """One line, in columns that are the same whatever comes next; none without a prediction."""
    if answer.prediction is not None:
        cells = _row(answer.name, answer.prediction)
        yield "  ".join(cell.ljust(width) for cell, width in zip(cells, (*_WIDTHS, 0), strict=True)).rstrip()


def as_json(answer: Answer) -> str:
    """One line, whatever came of it."""
    if answer.prediction is not None:
        return json.dumps({"file": harmless(answer.name), **answer.prediction})
    problem = getattr(answer.error, "problem", None) or {"title": str(answer.error)}
    return json.dumps({"file": harmless(answer.name), "problem": problem})


def failures(answers: Iterable[Answer]) -> Iterable[str]:
    """One line for each that has none, with what to do."""
    for answer in answers:
        if answer.error is not None:
            yield f"{harmless(answer.name)}: {harmless(with_hint(answer.error))}"


def _row(name: str, prediction: Mapping[str, Any]) -> tuple[str, str, str, str]:
    warnings = "; ".join(prediction.get("warnings", ()))
    label, confidence = str(prediction["label"]), f"{prediction['confidence']:.1%}"
    return harmless(name), harmless(label), confidence.rjust(_WIDTHS[2]), harmless(warnings)
