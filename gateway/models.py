"""GET /models, /models/{name}, /health/live, /health/ready and /metrics."""

import asyncio
from time import monotonic
from typing import Any

import msgspec
from msgspec import UNSET, UnsetType
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from gateway import errors, openapi
from gateway.errors import Unavailable
from gateway.middleware import PROBE, Router
from gateway.page import conditional
from gateway.presence import KnownModel
from gateway.request_reply import Requester
from messaging.metrics import MEDIA_TYPE

EXAMPLE: dict[str, Any] = {
    "name": "fashion-mnist",
    "version": "1.4.0",
    "default": True,
    "runtime": "onnx",
    "labels": [
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ],
    "kind": "garment",
    "input": "28 x 28 grey, 0 to 255, bright clothing on black; a picture is made into it",
    "shape": [28, 28],
    "dtype": "uint8",
    "output": "probabilities",
    "output_size": 10,
    "sha256": "3fa04850755ddc9c3dd0d570f169750eed004757bc66f438670725d905c81755",
    "accuracy": 0.9522,
    "versions": [
        {
            "version": "1.4.0",
            "share_percent": 100,
            "sha256": "3fa04850755ddc9c3dd0d570f169750eed004757bc66f438670725d905c81755",
            "accuracy": 0.9522,
            "problem": "",
        }
    ],
    "queue": "shared",
    "ready": True,
}
"""The shipped model."""


class Models(msgspec.Struct, frozen=True):
    """The models that the workers serve, of which one is the default; then those that they cannot serve."""

    models: list[KnownModel]


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """status: live or dead, ready or not ready; reason says why not.

    queues: by name, whether a picture for a model of the queue would be answered, if there are several.
    """

    status: str
    reason: str | UnsetType = UNSET
    queues: dict[str, bool] | UnsetType = UNSET


_UNCHANGED: openapi.Responses = {304: {"description": "The version named by If-None-Match is current"}}
_NO_WORKER = (errors.TooManyInFlight, errors.GatewayError, errors.Unavailable, errors.ReplyTimeout)
_HEALTH: openapi.Responses = {200: openapi.answer(Health), 503: openapi.answer(Health, "The reason why not")}


class ModelRoutes:
    """Endpoints that tell what the requester knows about the workers and the gateway."""

    def __init__(self, requester: Requester) -> None:
        self._requester = requester

    def router(self) -> Router:
        router = Router()
        router.add(
            "GET",
            "/models",
            self.list_models,
            tags=["models"],
            summary="List the models",
            responses=_UNCHANGED | openapi.answers(Models, *_NO_WORKER, example={"models": [EXAMPLE]}),
        )
        router.add(
            "GET",
            "/models/{name}",
            self.describe_model,
            tags=["models"],
            summary="Describe a model",
            responses=_UNCHANGED
            | openapi.answers(KnownModel, errors.UnknownModel, *_NO_WORKER, example=EXAMPLE),
            openapi_extra={"parameters": [openapi.path_parameter("name", "fashion-mnist")]},
        )
        for path, endpoint, summary in (
            ("/health/live", self.live, "Is the process alive?"),
            ("/health/ready", self.ready, "Would a picture be answered?"),
        ):
            router.add("GET", path, endpoint, PROBE, tags=["health"], summary=summary, responses=_HEALTH)
        router.add(
            "GET",
            "/metrics",
            self.metrics,
            PROBE,
            tags=["health"],
            summary="Metrics",
            response_class=PlainTextResponse,
        )
        return router

    async def list_models(self, request: Request) -> Response:
        """What the workers last reported. `ETag` and `If-None-Match` tell whether it is still current.

        The `problem` of a version says why it is not served. Of a model without any version that is served,
        `ready` is false, and nothing else is known.
        """
        await heard(self._requester)
        return conditional(request, msgspec.json.encode(Models(self._requester.presence.listed(monotonic()))))

    async def describe_model(self, request: Request) -> Response:
        """What the workers last reported about this model."""
        await heard(self._requester)
        name, now = request.path_params["name"], monotonic()
        listed = (each for each in self._requester.presence.listed(now) if each.name == name)
        known = next(listed, None) or self._requester.presence.named(name, "", now)
        return conditional(request, msgspec.json.encode(known))

    async def live(self) -> Response:
        """503 only if a restart would help."""
        if self._requester.alive:
            return _json(Health(status="live"))
        return _unavailable("dead", f"this process can no longer read replies: {self._requester.failure}")

    async def ready(self) -> Response:
        """200 while a picture sent now would be answered by a model: a worker has answered lately."""
        reason, queues = self._requester.why_not_ready(), self._requester.queues()
        by_queue = queues if len(queues) > 1 else UNSET
        if reason is None:
            return _json(Health(status="ready", queues=by_queue))
        return _unavailable("not ready", reason, by_queue)

    async def metrics(self) -> Response:
        """Prometheus's text format, for all gateway processes that share this port."""
        metrics = self._requester.metrics
        text = await asyncio.to_thread(metrics.open_text) if metrics.has_siblings else metrics.open_text()
        return Response(text, media_type=MEDIA_TYPE)


async def named(requester: Requester, name: str, version: str = "") -> KnownModel:
    """The model with this name and, unless it is empty, this version. Raises GatewayError."""
    await heard(requester)
    return requester.presence.named(name, version, monotonic())


async def heard(requester: Requester) -> None:
    """Return when models are known, after asking for them if necessary. Raises GatewayError."""
    if not requester.presence.models(monotonic()) and (reason := requester.why_not_ready()):
        raise Unavailable(reason)
    await requester.hear_models()
    if not requester.presence.models(monotonic()):
        raise Unavailable("the workers run an older version, which does not report its models")


def _json(body: msgspec.Struct, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(body), status, headers, "application/json")


def _unavailable(status: str, reason: str, queues: dict[str, bool] | UnsetType = UNSET) -> Response:
    retry = {"Retry-After": str(errors.Unavailable.retry_after_s)}
    return _json(Health(status=status, reason=reason, queues=queues), 503, retry)
