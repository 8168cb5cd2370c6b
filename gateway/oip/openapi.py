"""What the OpenAPI document says of the protocol's routes."""

from typing import Any

from gateway import errors
from gateway.errors import GatewayError
from gateway.examples import DETAILS, SHIPPED
from gateway.oip import schemas
from gateway.schemas import TIMEOUT, path_parameter

# A PNG of one black pixel.
_BLACK = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
_PARAMETERS = {"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}}
_NAMED = {"name": {"type": "string"}, "parameters": _PARAMETERS}
_BODY = {
    "type": "object",
    "required": ["inputs"],
    "properties": {
        "id": {"type": "string"},
        "parameters": _PARAMETERS,
        "inputs": {
            "type": "array",
            "minItems": 1,
            "maxItems": 1,
            "items": {
                "type": "object",
                "required": ["name", "datatype", "shape"],
                "properties": {
                    **_NAMED,
                    "datatype": {"enum": ["UINT8", "FP32", "BYTES"]},
                    "shape": {"type": "array", "items": {"type": "integer"}},
                    "data": {"type": "array", "items": {}},
                },
            },
        },
        "outputs": {
            "type": "array",
            "items": {"type": "object", "required": ["name"], "properties": _NAMED},
        },
    },
}
_OUTPUTS = [{"name": "label"}, {"name": "class"}]
_EXAMPLES = {
    "pixels": {
        "summary": "28 x 28 grey values, all of them black",
        "value": {
            "id": "42",
            "inputs": [{"name": "image", "datatype": "UINT8", "shape": [1, 784], "data": 784 * [0]}],
            "outputs": _OUTPUTS,
        },
    },
    "file": {
        "summary": "A picture file in base64",
        "value": {
            "inputs": [
                {
                    "name": "image",
                    "datatype": "BYTES",
                    "shape": [1],
                    "data": [_BLACK],
                }
            ],
            "outputs": _OUTPUTS,
            "parameters": {"mode": "auto"},
        },
    },
}
_BINARY = {"schema": {"type": "string", "format": "binary"}}
_NAME = path_parameter("name", "fashion-mnist")
_VERSION = path_parameter("version", SHIPPED["version"])
_DETAILS = {
    **DETAILS,
    errors.InvalidRequest: "there is no output 'labels'; there are: probabilities, label, class",
}
_LENGTH = {
    "name": "Inference-Header-Content-Length",
    "in": "header",
    "description": "With binary data: how many bytes of the body are JSON.",
    "schema": {"type": "integer"},
}


def _errors(*kinds: type[GatewayError]) -> dict[int | str, dict[str, Any]]:
    """For a route: its model becomes the schema."""
    return {status: {**its, "model": schemas.Error} for status, its in _described(*kinds).items()}


def plain_errors(*kinds: type[GatewayError]) -> dict[int | str, dict[str, Any]]:
    """For a document that is complete."""
    described = _described(*kinds)
    for its in described.values():
        its["content"]["application/json"]["schema"] = {"$ref": "#/components/schemas/Error"}
    return described


def _described(*kinds: type[GatewayError]) -> dict[int | str, dict[str, Any]]:
    by_status: dict[int | str, list[type[GatewayError]]] = {}
    for kind in kinds:
        by_status.setdefault(400 if kind.status == 422 else kind.status, []).append(kind)
    return {
        status: {
            "description": "; ".join(kind.title for kind in its),
            "content": {
                "application/json": {
                    "examples": {kind.kind: {"value": {"error": _DETAILS[kind]}} for kind in its}
                }
            },
        }
        for status, its in by_status.items()
    }


def _versioned(route: dict[str, Any], summary: str) -> dict[str, Any]:
    extra = route["openapi_extra"]
    parameters = [*extra["parameters"], _VERSION]
    return {**route, "summary": summary, "openapi_extra": {**extra, "parameters": parameters}}


_OF_MODELS = _errors(
    errors.UnknownModel,
    errors.TooManyInFlight,
    errors.GatewayError,
    errors.Unavailable,
    errors.ReplyTimeout,
)
SERVER: dict[str, Any] = {"summary": "Which server is this?", "response_model": schemas.Server}
LIVE: dict[str, Any] = {
    "summary": "Is the process sound?",
    "response_model": schemas.Live,
    "responses": {503: {"model": schemas.Live}},
}
READY: dict[str, Any] = {
    "summary": "Can it answer?",
    "response_model": schemas.Ready,
    "responses": {503: {"model": schemas.Ready}},
}
MODEL: dict[str, Any] = {
    "summary": "What does the model take and give?",
    "response_model": schemas.ModelMetadata,
    "responses": _OF_MODELS,
    "openapi_extra": {"parameters": [_NAME]},
}
MODEL_READY: dict[str, Any] = {
    "summary": "Can the model answer?",
    "response_model": schemas.ModelReady,
    "responses": _OF_MODELS,
    "openapi_extra": {"parameters": [_NAME]},
}
INFER: dict[str, Any] = {
    "summary": "What is on the pictures?",
    "response_model": schemas.InferenceResponse,
    "responses": {
        200: {"content": {"application/octet-stream": _BINARY}},
        **_errors(
            errors.InvalidRequest,
            errors.NotAPicture,
            errors.TooLarge,
            errors.UnacceptedCoding,
            errors.SlowBody,
        ),
        **_OF_MODELS,
    },
    "openapi_extra": {
        "parameters": [_NAME, _LENGTH, TIMEOUT],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": _BODY, "examples": _EXAMPLES},
                "application/octet-stream": _BINARY,
            },
        },
    },
}
VERSIONED_MODEL = _versioned(MODEL, "What does this version of the model take and give?")
VERSIONED_MODEL_READY = _versioned(MODEL_READY, "Can this version of the model answer?")
VERSIONED_INFER = _versioned(INFER, "What is on the pictures, to this version of the model?")
