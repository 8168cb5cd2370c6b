"""Is the process sound, and can it answer?"""

from fastapi import APIRouter
from starlette.responses import JSONResponse, PlainTextResponse, Response

from gateway import errors, schemas
from gateway.metrics import MEDIA_TYPE
from gateway.request_reply import Requester


def router(requester: Requester) -> APIRouter:
    routes = APIRouter(tags=["health"])

    @routes.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """For Prometheus, in its text format."""
        return Response(requester.metrics.text(), media_type=MEDIA_TYPE)

    @routes.get("/health/live", response_model=schemas.Health, responses={503: {"model": schemas.Health}})
    async def live() -> Response:
        """503 only where a restart helps."""
        if requester.alive:
            return JSONResponse({"status": "live"})
        return _unavailable("dead", "the thread that reads replies has ended")

    @routes.get("/health/ready", response_model=schemas.Health, responses={503: {"model": schemas.Health}})
    async def ready() -> Response:
        """200 while replies come back: the inbox is open, and a worker answered not long ago."""
        reason = requester.why_not_ready()
        return JSONResponse({"status": "ready"}) if reason is None else _unavailable("not ready", reason)

    return routes


def _unavailable(status: str, reason: str) -> Response:
    headers = {"Retry-After": str(errors.Unavailable.retry_after_s)}
    return JSONResponse({"status": status, "reason": reason}, 503, headers)
