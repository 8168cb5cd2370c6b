"""What the OpenAPI document says of every route alike."""

from typing import Any

from fastapi import FastAPI

from gateway import errors
from gateway.api_keys import is_open
from gateway.oip import errors as oip_errors
from gateway.oip import openapi as oip
from gateway.schemas import problems

Tree = dict[str, Any]

_PRIVATE = (errors.Unauthorized, errors.RateLimited)
_SCHEMES: Tree = {
    "ApiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    "Bearer": {"type": "http", "scheme": "bearer"},
}


def _header(description: str, example: str, **schema: object) -> Tree:
    return {"description": description, "schema": {"type": "string", **schema}, "example": example}


_HEADERS: dict[str, Tree] = {
    "X-Request-ID": _header("The request's own, or a new one.", "7d6bd088794840c69cf72e11b36f0d14"),
    "Server-Timing": _header("Milliseconds.", "total;dur=8.368"),
    "traceparent": _header(
        "The request's, if it came with a valid one.",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    ),
    "Retry-After": _header("Seconds.", "2", pattern="^[0-9]+$"),
    "ETag": _header("For If-None-Match.", '"5f0c1a0e"'),
    "WWW-Authenticate": _header("How a key may come.", "Bearer"),
}
_EVERYWHERE = ("X-Request-ID", "Server-Timing", "traceparent")
_OF_STATUS = {
    "401": ("WWW-Authenticate",),
    "429": ("Retry-After",),
    "503": ("Retry-After",),
    "304": ("ETag",),
}
_ALWAYS_THERE = {"X-Request-ID", "Server-Timing", "Retry-After", "ETag", "WWW-Authenticate"}
_ASKED: list[Tree] = [
    {
        "name": "X-Request-ID",
        "in": "header",
        "description": "1 to 64 of A-Z, a-z, 0-9, `.`, `_` and `-`; another one is replaced by a new one.",
        "schema": {"type": "string"},
    },
    {
        "name": "traceparent",
        "in": "header",
        "description": "W3C Trace Context; goes with the picture to the worker, unless it is not valid.",
        "schema": {"type": "string"},
    },
]


def install(app: FastAPI, with_keys: bool) -> None:
    make = app.openapi

    def document() -> Tree:
        if app.openapi_schema is None:
            _complete(make(), with_keys)
        return make()

    app.openapi = document  # type: ignore[method-assign]


def _complete(document: Tree, with_keys: bool) -> None:
    components = document.setdefault("components", {})
    components["headers"] = {name: _required(name, its) for name, its in _HEADERS.items()}
    if with_keys:
        components["securitySchemes"] = _SCHEMES
    for path, operations in document["paths"].items():
        for operation in operations.values():
            operation["parameters"] = [*operation.get("parameters", []), *_ASKED]
            if with_keys and not is_open("GET", path):
                _keep_private(operation, path)
            for status, response in operation["responses"].items():
                names = [*_EVERYWHERE, *_OF_STATUS.get(status, ())]
                if status == "200" and "304" in operation["responses"]:
                    names.append("ETag")
                references_ = {name: {"$ref": f"#/components/headers/{name}"} for name in names}
                response["headers"] = {**response.get("headers", {}), **references_}


def _required(name: str, header: Tree) -> Tree:
    return {**header, "required": True} if name in _ALWAYS_THERE else header


def _keep_private(operation: Tree, path: str) -> None:
    """It wants a key, and says so."""
    operation["security"] = [{name: []} for name in _SCHEMES]
    of_keys = oip.plain_errors(*_PRIVATE) if f"{path}/".startswith(oip_errors.PREFIX) else problems(*_PRIVATE)
    for status, response in of_keys.items():
        before = operation["responses"].setdefault(str(status), response)
        if before is not response:
            _add_examples(before, response)


def _add_examples(into: Tree, more: Tree) -> None:
    into["description"] = f"{into['description']}; {more['description']}"
    for media_type, content in more["content"].items():
        examples = content.get("examples", {})
        if examples:
            into["content"][media_type].setdefault("examples", {}).update(examples)
