"""What may be asked for in the query of POST /predict."""

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


_NOTHING_ASKED = Query()


def read_query(request: Request) -> Query:
    """Raises InvalidRequest, with what would be accepted."""
    if not request.scope["query_string"]:
        return _NOTHING_ASKED
    given = request.query_params
    try:
        mode = one_of(given, "mode", MODES, "auto")
        return Query(given.get("model", ""), mode, one_of(given, "explain", EXPLAINS, ""))
    except ValueError as error:
        raise InvalidRequest(str(error)) from error


def parameter(name: str, description: str, **schema: object) -> dict[str, Any]:
    """One query parameter, as OpenAPI describes it."""
    return {"name": name, "in": "query", "description": description, "schema": {"type": "string", **schema}}


PARAMETERS = [
    parameter("model", "Name of the model that is to answer; none: the default."),
    parameter(
        "mode",
        "How the picture becomes the model's 28 x 28 grey pixels. raw28: it has that size; product: one "
        "piece on a plain background; photo: cut out of a busy one; auto: whichever suits.",
        enum=MODES,
        default="auto",
    ),
    parameter("explain", "input: the answer shows what the model saw.", enum=["input"]),
]
