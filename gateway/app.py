"""The HTTP application."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway import openapi
from gateway.answer import Prediction
from gateway.api_keys import ApiKeys, open_key_file
from gateway.jobs.rendering import JobDocument
from gateway.jobs.routes import JobRoutes
from gateway.jobs.service import Jobs
from gateway.middleware import BodyLimit, Observing
from gateway.models import Health, ModelRoutes, Models
from gateway.oip import routes as oip
from gateway.page import Pages
from gateway.predict import BatchResult, PredictRoutes
from gateway.problem import Problem, Problems
from gateway.request_reply import Requester
from gateway.settings import GatewaySettings

Endpoint = Callable[[Request], Awaitable[Response]]

# After so long it answers that it is not ready, since the others may not be either.
_OTHERS_ANSWER_S = 5.0
_FORM_OVERHEAD_BYTES = 64 * 1024
_FORM_PART_BYTES = 512  # a boundary, two headers, a filename
_TYPES = (Prediction, BatchResult, Models, Health, Problem, JobDocument, *oip.TYPES)

_CORS_METHODS = ("GET", "HEAD", "POST", "DELETE", "OPTIONS")
_CORS_SENT = (
    "Authorization",
    "Content-Type",
    "Idempotency-Key",
    "If-None-Match",
    "Inference-Header-Content-Length",
    "Last-Event-ID",
    "traceparent",
    "X-API-Key",
    "X-Request-ID",
    "X-Request-Timeout-Ms",
)
_CORS_READ = (
    "Allow",
    "ETag",
    "Idempotent-Replayed",
    "Inference-Header-Content-Length",
    "Location",
    "Retry-After",
    "Server-Timing",
    "traceparent",
    "WWW-Authenticate",
    "X-Request-ID",
)
_MANY_PICTURES = ("/predict/batch", "/v2/models/")


class Shortcut:
    """Calls an endpoint that takes a Request and returns a Response, past the framework's routing.

    Routing, and solving dependencies that such an endpoint has not, take longer than POST /predict itself.
    Errors meet the same handlers, by their type. Other requests go on to the app.
    """

    def __init__(self, app: ASGIApp, routes: Iterable[APIRoute], handlers: Mapping[Any, Any]) -> None:
        self._app = app
        self._known = {
            (method, route.path): (route, ExceptionMiddleware(_asgi(route.endpoint), handlers))
            for route in routes
            for method in route.methods or ()
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        known = self._known.get((scope["method"], scope["path"])) if scope["type"] == "http" else None
        if known is None:
            return await self._app(scope, receive, send)
        scope["route"], app = known
        await app(scope, receive, send)


def _asgi(endpoint: Endpoint) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        response = await endpoint(Request(scope, receive, send))
        await response(scope, receive, send)

    return app


def create_app(
    requester: Requester,
    settings: GatewaySettings,
    version: str = "unknown",
    jobs: Jobs | None = None,
) -> FastAPI:
    """The requester, and the jobs if there are any, are started and closed with the application.

    Raises KeyFileError.
    """

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await requester.start()
        try:
            if jobs is not None:
                await jobs.start()
            if settings.processes > 1:
                await _until_ready(requester)
            yield
        finally:
            if jobs is not None:
                await jobs.close()
            await requester.close()

    app = FastAPI(
        title="mlaas",
        version=version,
        summary="Send a picture of clothing, get what it is.",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,  # it would send clients to whatever Host they were made to name
        lifespan=lifespan,
    )
    predicting = PredictRoutes(requester, settings).router()
    app.include_router(predicting)
    if jobs is not None:
        app.include_router(JobRoutes(jobs).router())
    app.include_router(ModelRoutes(requester, settings).router())
    app.include_router(oip.InferenceRoutes(requester, settings, version).router())
    Pages(app, settings).install()
    openapi.install(app, _TYPES, bool(settings.api_keys_file), {oip.PREFIX: oip.problems})
    problems = Problems({oip.PREFIX: oip.respond_error})
    problems.install(app)
    busiest = [route for route in predicting.routes if isinstance(route, APIRoute)]
    app.add_middleware(Shortcut, routes=busiest, handlers=app.exception_handlers)
    more = dict.fromkeys(_MANY_PICTURES, settings.max_batch_bytes + _FORM_OVERHEAD_BYTES)
    if jobs is not None:
        more["/jobs"] = jobs.settings.max_bytes + jobs.settings.max_pictures * _FORM_PART_BYTES
    _wrap(app, requester, settings, problems, more)
    return app


async def _until_ready(requester: Requester) -> None:
    """Before it listens: others who share the port can answer what this one could only refuse."""
    end = time.monotonic() + _OTHERS_ANSWER_S
    while requester.why_not_ready() is not None and time.monotonic() < end:
        await asyncio.sleep(0.02)


def _wrap(
    app: FastAPI,
    requester: Requester,
    settings: GatewaySettings,
    problems: Problems,
    more_bytes: Mapping[str, int],
) -> None:
    """From the innermost to the outermost. more_bytes: beginnings of paths whose bodies may be larger."""
    app.add_middleware(
        BodyLimit,
        max_bytes=settings.max_upload_bytes + _FORM_OVERHEAD_BYTES,
        max_bytes_in_memory=settings.max_body_bytes_in_memory,
        timeout_ms=settings.body_timeout_ms,
        more=more_bytes,
    )
    keys = open_key_file(settings.api_keys_file)
    if keys is not None:
        app.add_middleware(ApiKeys, file=keys, metrics=requester.metrics)
    app.add_middleware(
        Observing,
        metrics=requester.metrics,
        is_leaving=lambda: requester.leaving,
        answer=problems.answer,
    )
    if settings.cors_allowed_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_allowed_origins,
            allow_methods=_CORS_METHODS,
            allow_headers=_CORS_SENT,
            expose_headers=_CORS_READ,
        )
