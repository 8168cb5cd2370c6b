"""GET /models."""

from typing import Any

import msgspec
from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict
from starlette.requests import Request
from starlette.responses import Response

from gateway import errors
from gateway.catalogue import Catalogue
from gateway.conditional import respond
from gateway.errors import Unavailable
from gateway.examples import SHIPPED
from gateway.request_reply import Requester
from gateway.schemas import path_parameter, problems
from gateway.settings import GatewaySettings


class Model(BaseModel):
    """default: it answers where no model is named. sha256 is of the file that is served.

    accuracy: the share of the data set's test pictures that it is right on; null where it is not known.
    """

    model_config = ConfigDict(json_schema_extra={"example": SHIPPED})

    name: str
    version: str
    default: bool
    runtime: str
    labels: list[str]
    input: str
    sha256: str
    accuracy: float | None


class Models(BaseModel):
    """The default one is among them."""

    models: list[Model]


_UNCHANGED: dict[int | str, dict[str, Any]] = {304: {"description": "What If-None-Match names still holds"}}
_NO_WORKER = (errors.TooManyInFlight, errors.GatewayError, errors.Unavailable, errors.ReplyTimeout)


def router(requester: Requester, settings: GatewaySettings) -> APIRouter:
    routes = APIRouter(tags=["models"])

    @routes.get(
        "/models",
        summary="Which models are there?",
        response_model=Models,
        responses={**_UNCHANGED, **problems(*_NO_WORKER)},
    )
    async def models(request: Request) -> Response:
        """What the workers said last. `ETag` and `If-None-Match` tell whether it still holds."""
        known = await known_models(requester, settings)
        return respond(request, msgspec.json.encode({"models": known.models}))

    @routes.get(
        "/models/{name}",
        summary="What is known of the model?",
        response_model=Model,
        responses={**_UNCHANGED, **problems(errors.UnknownModel, *_NO_WORKER)},
        openapi_extra={"parameters": [path_parameter("name", "fashion-mnist")]},
    )
    async def model(request: Request) -> Response:
        """What the workers said last."""
        known = await known_models(requester, settings)
        return respond(request, msgspec.json.encode(known.named(request.path_params["name"])))

    return routes


async def known_models(requester: Requester, settings: GatewaySettings) -> Catalogue:
    """The models; if none is known yet, a worker is asked. Raises GatewayError."""
    if not requester.catalogue.models:
        requester.admit(0, settings.worker_silence_ms / 1000)
        await requester.ping()
    if not requester.catalogue.models:
        raise Unavailable("the workers are of an older version, which does not say which models it serves")
    return requester.catalogue
