"""The HTTP application."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from gateway import batch, docs, health, models, predict, problem
from gateway.middleware import BodyLimit, RequestIds
from gateway.observing import Observing
from gateway.request_reply import Requester
from gateway.settings import GatewaySettings

_FORM_OVERHEAD_BYTES = 64 * 1024


def create_app(requester: Requester, settings: GatewaySettings) -> FastAPI:
    """The requester is started and closed with the application."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await requester.start()
        try:
            yield
        finally:
            await requester.close()

    app = FastAPI(
        title="mlaas",
        summary="Send a picture of clothing, get what it is.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
    )
    app.include_router(predict.router(requester, settings))
    app.include_router(batch.router(requester, settings))
    app.include_router(models.router(requester, settings))
    app.include_router(health.router(requester))
    docs.install(app)
    problem.install(app)
    app.add_middleware(
        BodyLimit,
        max_bytes=settings.max_upload_bytes + _FORM_OVERHEAD_BYTES,
        more={"/predict/batch": settings.max_batch_bytes + _FORM_OVERHEAD_BYTES},
    )
    app.add_middleware(Observing, metrics=requester.metrics, is_leaving=lambda: requester.leaving)
    app.add_middleware(RequestIds)
    return app
