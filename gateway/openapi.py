"""The OpenAPI document: FastAPI's paths, with the msgspec types of requests and answers as schemas."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import msgspec
from fastapi import FastAPI

from gateway import errors
from gateway.answer import REQUEST_ID
from gateway.asked import NAMES, OTHER_FIELDS
from gateway.errors import GatewayError
from gateway.problem import ErrorForm, Problem, form_of
from messaging.picture_header import ACCEPTED, MEDIA_TYPES

Tree = dict[str, Any]
Responses = dict[int | str, Tree]
Type = type[msgspec.Struct]

DETAILS: Mapping[type[GatewayError], str] = {
    errors.InvalidRequest: "unknown parameter 'modle'; known: model, version, mode, explain, top_k",
    errors.KeyReused: "this Idempotency-Key was used for another job; use a new one",
    errors.NotAPicture: f"the bytes are not a picture in {ACCEPTED}",
    errors.BrokenForm: "the form is cut off: its last line, --boundary--, is missing",
    errors.UnacceptedMedia: f"text/html is not accepted; send {ACCEPTED}",
    errors.UnacceptedCoding: "Content-Encoding 'gzip' is not accepted; send the body uncompressed",
    errors.TooLarge: "the picture has 27000000 pixels; at most 25000000 are accepted",
    errors.SlowBody: "only 65536 bytes of the body arrived within 30 s; send it faster, or make it smaller",
    errors.Unauthorized: "send an API key as X-API-Key, or as Authorization: Bearer",
    errors.RateLimited: "API key 'shop' exceeded 10 requests per second",
    errors.UnknownModel: "no model 'fashion'; served: fashion-mnist 1.4.0",
    errors.NotListed: "without API keys, only its id gives access to a job: keep what submitting returns",
    errors.UnknownJob: f"no job '{REQUEST_ID}'",
    errors.JobExpired: "the job's results were kept until expires_at and have been deleted",
    errors.ClientGone: "the client closed the connection",
    errors.TooManyInFlight: "the estimated wait of 4.2 s is too close to the deadline of 5 s",
    errors.TooManyJobs: "unfinished jobs have reached the limit of pictures or bytes",
    errors.Unavailable: "no worker has answered for 16 s",
    errors.ReplyTimeout: "no answer within 30 s",
    errors.WorkerFailed: errors.WorkerFailed.title,
    GatewayError: GatewayError.title,
}
"""An example of each error's detail."""

OF_A_PICTURE = (
    errors.BrokenForm,
    errors.UnknownModel,
    errors.SlowBody,
    errors.TooLarge,
    errors.UnacceptedMedia,
    errors.UnacceptedCoding,
    errors.InvalidRequest,
    errors.NotAPicture,
    errors.TooManyInFlight,
    errors.GatewayError,
    errors.Unavailable,
    errors.ReplyTimeout,
)
"""The errors of a call that waits for pictures to be classified."""

BINARY: Tree = {"type": "string", "format": "binary"}
BINARIES: Tree = {"type": "array", "minItems": 1, "items": BINARY}

_PRIVATE = (errors.Unauthorized, errors.RateLimited)
_SCHEMES: Tree = {
    "ApiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "Bearer": {"type": "http", "scheme": "bearer"},
}
_REFERENCE = "#/components/schemas/{name}"


def reference(kind: Type) -> Tree:
    """A schema that refers to the type's own among the components."""
    return {"$ref": _REFERENCE.format(name=kind.__name__)}


def answers(
    kind: Type, *kinds: type[GatewayError], status: int = 200, description: str = "", example: Any = None
) -> Responses:
    """The responses of a route that answers with this type as JSON, or with one of these errors."""
    return {status: answer(kind, description, example), **problems(*kinds)}


def answer(kind: Type, description: str = "", example: Any = None) -> Tree:
    """One response, with this type as JSON."""
    shown = {} if example is None else {"example": example}
    content = {"application/json": {"schema": reference(kind), **shown}}
    return {"description": description or "Successful response", "content": content}


def problems(*kinds: type[GatewayError]) -> Responses:
    """The responses for these errors, by status. Errors with the same status share one, with examples."""
    form = reference(Problem)
    return by_status(kinds, errors.PROBLEM_MEDIA_TYPE, form, _problem_example, lambda status: status)


def _problem_example(kind: type[GatewayError]) -> Problem:
    kind_of_problem = f"urn:mlaas:problem:{kind.kind}"
    return Problem(kind_of_problem, kind.title, kind.status, DETAILS[kind], REQUEST_ID)


def by_status(
    kinds: Iterable[type[GatewayError]],
    media_type: str,
    schema: Tree,
    example: Callable[[type[GatewayError]], msgspec.Struct],
    status_of: Callable[[int], int],
) -> Responses:
    """status_of: the status to answer with instead of an error's own."""
    found: dict[int | str, list[type[GatewayError]]] = {}
    for kind in kinds:
        found.setdefault(status_of(kind.status), []).append(kind)
    return {
        status: {
            "description": "; ".join(kind.title for kind in its),
            "content": {
                media_type: {
                    "schema": schema,
                    "examples": {kind.kind: {"value": msgspec.to_builtins(example(kind))} for kind in its},
                }
            },
        }
        for status, its in found.items()
    }


_ROWS: Tree = {
    "type": "object",
    "description": "For models of kind tensor: rows of numbers, nested as the model's shape says.",
    "required": ["inputs"],
    "additionalProperties": False,
    "properties": {"inputs": {"type": "array", "minItems": 1, "items": {}}},
}


def body(file: Tree, *media_types: str) -> Tree:
    """A form whose file has this schema, the picture itself as one of these media types, or rows in JSON."""
    form = {
        "type": "object",
        "description": f"Other fields are ignored; {', '.join(NAMES)} belong in the query.",
        "required": ["file"],
        "maxProperties": 1 + OTHER_FIELDS,
        "properties": {"file": file},
    }
    raw = {media_type: {"schema": BINARY} for media_type in media_types}
    return {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": form},
            **raw,
            "application/json": {"schema": _ROWS, "example": {"inputs": [[5.1, 3.5, 1.4, 0.2]]}},
        },
    }


PICTURE_BODY: Tree = {"requestBody": body(BINARY, *MEDIA_TYPES)}
PICTURES_BODY: Tree = {"requestBody": body(BINARIES)}


def header_parameter(name: str, description: str, **schema: object) -> Tree:
    return {"name": name, "in": "header", "description": description, "schema": schema}


def path_parameter(name: str, example: str) -> Tree:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string"}, "example": example}


TIMEOUT = header_parameter(
    "X-Request-Timeout-Ms",
    "How long the caller waits, including the time to send the pictures. The gateway's settings cap it.",
    type="integer",
    minimum=1,
    maximum=999_999_999_999_999,
)
_ASKED = (
    header_parameter(
        "X-Request-ID",
        "1 to 64 of A-Z, a-z, 0-9, `.`, `_` and `-`. Any other value is replaced by a new id.",
        type="string",
    ),
    header_parameter(
        "traceparent",
        "W3C Trace Context. A valid one is passed to the worker with the picture.",
        type="string",
    ),
)


def _header(description: str, example: str, *, always: bool = True, **schema: object) -> Tree:
    found: Tree = {"description": description, "schema": {"type": "string", **schema}, "example": example}
    return {**found, "required": True} if always else found


_HEADERS: dict[str, Tree] = {
    "X-Request-ID": _header("The request's id, or a new one.", "7d6bd088794840c69cf72e11b36f0d14"),
    "Server-Timing": _header("Milliseconds.", "total;dur=8.368"),
    "traceparent": _header(
        "The request's, if it is valid.",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        always=False,
    ),
    "Retry-After": _header("Seconds.", "2", pattern="^[0-9]+$"),
    "ETag": _header("The value for If-None-Match.", '"5f0c1a0e"'),
    "WWW-Authenticate": _header("How to send a key.", "Bearer"),
}
_EVERYWHERE = ("X-Request-ID", "Server-Timing", "traceparent")
_OF_STATUS = {"401": ["WWW-Authenticate"], "429": ["Retry-After"], "503": ["Retry-After"], "304": ["ETag"]}


def install(
    app: FastAPI, types: Iterable[Type], private: Collection[str], forms: Sequence[ErrorForm]
) -> None:
    """Complete the application's document when it is first asked for.

    types: those that routes refer to. private: the paths that need an API key.
    """
    make = app.openapi

    def document() -> Tree:
        if app.openapi_schema is None:
            _complete(make(), tuple(types), private, forms)
        return make()

    app.openapi = document  # type: ignore[method-assign]


def _complete(
    document: Tree, types: tuple[Type, ...], private: Collection[str], forms: Sequence[ErrorForm]
) -> None:
    components = document.setdefault("components", {})
    components["schemas"] = components.get("schemas", {}) | schemas(types)
    components["headers"] = _HEADERS
    if private:
        components["securitySchemes"] = _SCHEMES
    for path, operations in document["paths"].items():
        form = form_of(path, forms)
        for operation in operations.values():
            operation["parameters"] = [*operation.get("parameters", []), *_ASKED]
            if path in private:
                _require_key(operation, (form.describe if form else problems)(*_PRIVATE))
            for status, response in operation["responses"].items():
                names = [*_EVERYWHERE, *_OF_STATUS.get(status, ())]
                if status == "200" and "304" in operation["responses"]:
                    names.append("ETag")
                headers = {name: {"$ref": f"#/components/headers/{name}"} for name in names}
                response["headers"] = {**response.get("headers", {}), **headers}


def schemas(types: tuple[Type, ...]) -> Tree:
    """The schemas of these types and of those inside them, with each type's `example`."""
    _, found = msgspec.json.schema_components(types, ref_template=_REFERENCE)
    for kind in types:
        if example := getattr(kind, "example", None):
            found[kind.__name__]["example"] = example
    return found


def _require_key(operation: Tree, refusals: Responses) -> None:
    operation["security"] = [{name: []} for name in _SCHEMES]
    for status, response in refusals.items():
        before = operation["responses"].setdefault(str(status), response)
        if before is not response:
            _add_examples(before, response)


def _add_examples(into: Tree, more: Tree) -> None:
    into["description"] = f"{into['description']}; {more['description']}"
    for media_type, content in more["content"].items():
        into["content"][media_type].setdefault("examples", {}).update(content.get("examples", {}))
