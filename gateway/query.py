"""What may be asked for in the query of POST /predict."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from starlette.requests import Request

from gateway.errors import InvalidRequest
from messaging.contract import EXPLAINS, MODES, Explain, Mode
from messaging.headers import one_of


class Query(NamedTuple):
    """See messaging.contract for what they mean."""

    model: str = ""
    mode: Mode = "auto"
    explain: Explain = ""
    top_k: int = 0


NAMES = Query._fields
_NOTHING_ASKED = Query()


def read_query(request: Request) -> Query:
    """Raises InvalidRequest, with what would be accepted."""
    if not request.scope["query_string"]:
        return _NOTHING_ASKED
    given = request.query_params
    check_names(given, NAMES)
    try:
        mode = one_of(given, "mode", MODES, "auto")
        explain = one_of(given, "explain", EXPLAINS, "")
        return Query(given.get("model", ""), mode, explain, _top_k(given.get("top_k")))
    except ValueError as error:
        raise InvalidRequest(str(error)) from error


def check_names(given: Iterable[str], known: Sequence[str]) -> None:
    """Raises InvalidRequest for an unknown parameter."""
    for name in given:
        if name not in known:
            raise InvalidRequest(f"unknown parameter {name[:50]!r}; known: {', '.join(known)}")


def _top_k(given: str | None) -> int:
    """0, for all, if it is not asked for."""
    if given is None:
        return 0
    if not (given.isascii() and given.isdigit() and len(given) <= 6 and int(given) > 0):
        raise ValueError(f"top_k {given[:20]!r} is not a whole number above 0")
    return int(given)


def parameter(name: str, description: str, **schema: object) -> dict[str, Any]:
    """One query parameter, as OpenAPI describes it."""
    return {"name": name, "in": "query", "description": description, "schema": {"type": "string", **schema}}


PARAMETERS = [
    parameter("model", "Name of the model that is to answer; none: the default."),
    parameter(
        "mode",
        "How the picture becomes the model's 28 x 28 grey pixels. raw28: it has that size; product: one "
        "piece on a plain background; photo: cut out of a busy one; auto: whichever suits.",
        enum=[*MODES, ""],
        default="auto",
    ),
    parameter("explain", "input: the answer shows what the model saw.", enum=["input", ""]),
    parameter(
        "top_k", "Only so many of the most probable labels.", type="integer", minimum=1, maximum=999_999
    ),
]
