"""What there is to ask of the server and of a model besides inference."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gateway.errors import Unavailable
from gateway.models import known_models
from gateway.oip import openapi
from gateway.oip.request import INPUT
from gateway.oip.tensors import SIDE
from gateway.request_reply import Requester
from gateway.settings import GatewaySettings
from messaging.served_model import ServedModel

_EXTENSIONS = ["binary_tensor_data", "classification"]
_PLATFORMS = {"onnx": "onnx_onnxv1", "keras": "keras_keras"}


def router(requester: Requester, settings: GatewaySettings, version: str) -> APIRouter:
    routes = APIRouter(tags=["open inference protocol"])

    @routes.get("/v2/", include_in_schema=False)
    @routes.get("/v2", **openapi.SERVER)
    async def server() -> Response:
        """Its name, version and the protocol's extensions that it understands."""
        return JSONResponse({"name": "mlaas", "version": version, "extensions": _EXTENSIONS})

    @routes.get("/v2/health/live", **openapi.LIVE)
    async def live() -> Response:
        """503 only where a restart helps."""
        if requester.alive:
            return JSONResponse({"live": True})
        return _not("live", "the thread that reads replies has ended")

    @routes.get("/v2/health/ready", **openapi.READY)
    async def ready() -> Response:
        """200 while pictures sent now would be answered."""
        reason = requester.why_not_ready()
        return JSONResponse({"ready": True}) if reason is None else _not("ready", reason)

    async def find(request: Request) -> ServedModel:
        known = await known_models(requester, settings)
        return known.named(request.path_params["name"], request.path_params.get("version", ""))

    @routes.get("/v2/models/{name}", **openapi.MODEL)
    @routes.get("/v2/models/{name}/versions/{version}", **openapi.VERSIONED_MODEL)
    async def model(request: Request) -> Response:
        """Inputs, outputs, labels. An input's `parameters` say what its values mean."""
        return JSONResponse(_describe(await find(request)))

    @routes.get("/v2/models/{name}/ready", **openapi.MODEL_READY)
    @routes.get("/v2/models/{name}/versions/{version}/ready", **openapi.VERSIONED_MODEL_READY)
    async def model_ready(request: Request) -> Response:
        """200 while pictures sent now would be answered by this model."""
        its = await find(request)
        reason = requester.why_not_ready()
        if reason is not None:
            raise Unavailable(reason)
        return JSONResponse({"name": its.name, "ready": True})

    return routes


def _describe(model: ServedModel) -> dict[str, object]:
    return {
        "name": model.name,
        "versions": [model.version],
        "platform": _PLATFORMS.get(model.runtime, model.runtime),
        "inputs": [
            {
                "name": INPUT,
                "datatype": "UINT8",
                "shape": [-1, SIDE, SIDE],
                "parameters": {
                    "content": model.input,
                    "UINT8": "0 to 255; shape [n,28,28], [n,28,28,1] or [n,784]",
                    "FP32": "0 to 1; shape [n,28,28], [n,28,28,1] or [n,784]",
                    "BYTES": "PNG, JPEG or WebP files, base64 in JSON; shape [n] or [n,1]",
                },
            }
        ],
        "outputs": [
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, len(model.labels)]},
            {"name": "label", "datatype": "BYTES", "shape": [-1]},
            {"name": "class", "datatype": "INT64", "shape": [-1]},
        ],
        "parameters": {"labels": model.labels, "sha256": model.sha256, "accuracy": model.accuracy},
    }


def _not(what: str, reason: str) -> Response:
    headers = {"Retry-After": str(Unavailable.retry_after_s)}
    return JSONResponse({what: False, "error": reason}, 503, headers)
