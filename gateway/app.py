"""The HTTP application: its routes, and the layer around them."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

from fastapi import FastAPI
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from fastapi.routing import APIRoute
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway import GatewaySettings, openapi
from gateway.answer import Prediction
from gateway.api_keys import ApiKeys, open_key_file
from gateway.body import BodyBounds, body_of_form
from gateway.jobs.rendering import JobDocument
from gateway.jobs.routes import JobRoutes
from gateway.jobs.service import Jobs
from gateway.metrics import AccessLog
from gateway.middleware import Middleware, RouteTable
from gateway.models import Health, ModelRoutes, Models
from gateway.oip import routes as oip
from gateway.page import Pages
from gateway.predict import BatchResult, PredictRoutes
from gateway.problem import Problem, Problems
from gateway.request_reply import Requester
from messaging.tracing import CallSpans

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

    app = Application(
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
    keys = open_key_file(settings.api_keys_file)

    def wrap(routed: ASGIApp) -> ASGIApp:
        wrapped = Middleware(
            routed,
            [route for route in predicting.routes if isinstance(route, APIRoute)],
            table,
            None if keys is None else ApiKeys(keys, table.is_open, requester.metrics),
            BodyBounds(
                body_of_form(settings.max_upload_bytes, "gateway.max_upload_bytes"),
                limits=table.bodies,
                max_bytes_in_memory=settings.max_body_bytes_in_memory,
                timeout_ms=settings.body_timeout_ms,
            ),
            requester.metrics,
            is_leaving=lambda: requester.leaving,
            answer=problems.answer,
            spans=spans,
            access_log=access_log,
        )
        return _for_origins(wrapped, settings.cors_allowed_origins)

    app.wrap = wrap
    return app


class Application(FastAPI):
    """FastAPI, with one layer around its routes instead of its own ones."""

    wrap: Callable[[ASGIApp], ASGIApp]

    def build_middleware_stack(self) -> ASGIApp:
        routed = AsyncExitStackMiddleware(self.router)  # FastAPI's routes need it
        return self.wrap(ExceptionMiddleware(routed, self.exception_handlers))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Past FastAPI's telemetry, which is off."""
        if scope["type"] != "http":
            return await super().__call__(scope, receive, send)
        if self.middleware_stack is None:
            self.middleware_stack = self.build_middleware_stack()
        scope["app"] = self
        await self.middleware_stack(scope, receive, send)


def _for_origins(app: ASGIApp, origins: Sequence[str]) -> ASGIApp:
    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=_CORS_METHODS,
        allow_headers=_CORS_SENT,
        expose_headers=_CORS_READ,
    )


async def _until_ready(requester: Requester) -> None:
    """Until then, the processes that share the port answer requests that this one would refuse."""
    end = time.monotonic() + _OTHERS_ANSWER_S
    while requester.why_not_ready() is not None and time.monotonic() < end:
        await asyncio.sleep(0.02)
