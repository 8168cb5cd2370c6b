"""The HTTP application: its routes, and the middlewares around them."""

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

from gateway import GatewaySettings, openapi
from gateway.answer import Prediction
from gateway.api_keys import ApiKeys, open_key_file
from gateway.asked import FORM_OVERHEAD_BYTES
from gateway.jobs.rendering import JobDocument
from gateway.jobs.routes import JobRoutes
from gateway.jobs.service import Jobs
from gateway.middleware import AccessLog, BodyLimit, Observing, RouteTable
from gateway.models import Health, ModelRoutes, Models
from gateway.oip import routes as oip
from gateway.page import Pages
from gateway.predict import BatchResult, PredictRoutes
from gateway.problem import Problem, Problems
from gateway.request_reply import Requester
from messaging.tracing import CallSpans

Endpoint = Callable[[Request], Awaitable[Response]]

_TYPES = (Prediction, BatchResult, Models, Health, Problem, JobDocument, *oip.TYPES)

_CORS_METHODS = ("GET", "HEAD", "POST", "DELETE", "OPTIONS")
_CORS_SENT = (
    "Authorization", "Content-Type", "Idempotency-Key", "If-None-Match", "Inference-Header-Content-Length",
    "Last-Event-ID", "traceparent", "X-API-Key", "X-Request-ID", "X-Request-Timeout-Ms",
)  # fmt: skip
_CORS_READ = (
    "Allow", "ETag", "Idempotent-Replayed", "Inference-Header-Content-Length", "Location", "Retry-After",
    "Server-Timing", "traceparent", "WWW-Authenticate", "X-Request-ID",
)  # fmt: skip

# After this long the process listens, ready or not: the others may not be ready either.
_OTHERS_ANSWER_S = 5.0


def create_app(
    requester: Requester,
    settings: GatewaySettings,
    version: str = "unknown",
    jobs: Jobs | None = None,
    *,
    spans: CallSpans | None = None,
    access_log: AccessLog | None = None,
) -> FastAPI:
    """The application, which starts and closes the requester and the jobs with itself.

    spans: starts the spans of requests, if they are traced. access_log: has a line for each answer.

    Raises KeyFileError if the file of API keys cannot be used.
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
        redirect_slashes=False,  # a redirect would lead to whatever Host the client was made to send
        lifespan=lifespan,
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    predicting = PredictRoutes(requester, settings).router()
    routers = [
        predicting,
        *([] if jobs is None else [JobRoutes(jobs).router()]),
        ModelRoutes(requester).router(),
        oip.InferenceRoutes(requester, settings, version).router(),
        Pages(app, settings).router(),
    ]
    for router in routers:
        app.include_router(router)
    table, forms = RouteTable(routers), (oip.ERRORS,)
    private = {path for path in table.facts if not table.is_open(path)} if settings.api_keys_file else set()
    openapi.install(app, _TYPES, private, forms)
    problems = Problems(forms)
    problems.install(app)
    busiest = [route for route in predicting.routes if isinstance(route, APIRoute)]
    app.add_middleware(Shortcut, routes=busiest, handlers=app.exception_handlers)
    _wrap(app, requester, settings, problems, table, spans, access_log)
    return app


async def _until_ready(requester: Requester) -> None:
    """Until then, the processes that share the port answer requests that this one would refuse."""
    end = time.monotonic() + _OTHERS_ANSWER_S
    while requester.why_not_ready() is not None and time.monotonic() < end:
        await asyncio.sleep(0.02)


def _wrap(
    app: FastAPI,
    requester: Requester,
    settings: GatewaySettings,
    problems: Problems,
    table: RouteTable,
    spans: CallSpans | None,
    access_log: AccessLog | None,
) -> None:
    """From the innermost middleware to the outermost."""
    app.add_middleware(
        BodyLimit,
        max_bytes=settings.max_upload_bytes + FORM_OVERHEAD_BYTES,
        limits=table.max_body_bytes,
        max_bytes_in_memory=settings.max_body_bytes_in_memory,
        timeout_ms=settings.body_timeout_ms,
    )
    keys = open_key_file(settings.api_keys_file)
    if keys is not None:
        app.add_middleware(ApiKeys, file=keys, is_open=table.is_open, metrics=requester.metrics)
    app.add_middleware(
        Observing,
        metrics=requester.metrics,
        uncounted=table.uncounted,
        is_leaving=lambda: requester.leaving,
        answer=problems.answer,
        spans=spans,
        access_log=access_log,
    )
    if settings.cors_allowed_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_allowed_origins,
            allow_methods=_CORS_METHODS,
            allow_headers=_CORS_SENT,
            expose_headers=_CORS_READ,
        )


class Shortcut:
    """Calls endpoints directly, past the framework's routing; all other requests go on to the app.

    With it, the gateway spends 80 µs of processor time on a POST /predict instead of 122, network and broker
    left out. The endpoints take a Request and return a Response; their errors meet the app's handlers.
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
