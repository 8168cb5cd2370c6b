"""POST /predict and POST /predict/batch."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from gateway import openapi, problem
from gateway.answer import Prediction, prediction, server_timing
from gateway.asked import (
    PARAMETERS,
    Deadline,
    Query,
    Upload,
    check,
    read_deadline,
    read_picture,
    read_pictures,
    read_query,
)
from gateway.errors import GatewayError, TooManyInFlight
from gateway.middleware import request_id, traceparent, while_connected
from gateway.problem import Problem
from gateway.request_reply import Requester
from gateway.settings import GatewaySettings
from messaging.contract import Reply
from messaging.picture_header import PictureHeader


class BatchEntry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One picture: either its prediction or its problem."""

    index: int
    filename: str
    prediction: Prediction | None = None
    problem: Problem | None = None


class BatchTimings(msgspec.Struct, frozen=True):
    """Milliseconds."""

    total_ms: float


class BatchResult(msgspec.Struct, frozen=True):
    """The results, in the order of the files."""

    results: list[BatchEntry]
    request_id: str
    timings: BatchTimings


class CallBudget:
    """The pictures of one call: where not all may be in flight at once, some wait for the others."""

    def __init__(self, requester: Requester, deadline: Deadline) -> None:
        self._requester = requester
        self._deadline = deadline
        self._in_flight = 0
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def share(self, size_bytes: int, cost_ms: float) -> AsyncIterator[None]:
        """For one picture, from its request to its reply. Raises GatewayError."""
        await self._enter(size_bytes, cost_ms)
        try:
            yield
        finally:
            await self._leave()

    async def _enter(self, size_bytes: int, cost_ms: float) -> None:
        """Refused for others' pictures, a call is refused; for its own, it waits."""
        async with self._changed:
            while True:
                try:
                    self._requester.admit(size_bytes, cost_ms, self._deadline.left_s())
                    break
                except TooManyInFlight:
                    if not self._in_flight:
                        raise
                await self._changed.wait()
            self._in_flight += 1

    async def _leave(self) -> None:
        async with self._changed:
            self._in_flight -= 1
            self._changed.notify_all()


class PredictRoutes:
    """Endpoints that ask for pictures and wait for the replies."""

    def __init__(self, requester: Requester, settings: GatewaySettings) -> None:
        self._requester = requester
        self._settings = settings

    def router(self) -> APIRouter:
        routes = APIRouter(tags=["predict"])
        parameters = [*PARAMETERS, openapi.TIMEOUT]
        routes.add_api_route(
            "/predict",
            self.predict,
            methods=["POST"],
            summary="Classify a picture",
            response_model=None,
            responses=openapi.answers(Prediction, *openapi.OF_A_PICTURE),
            openapi_extra={"parameters": parameters, **openapi.PICTURE_BODY},
        )
        routes.add_api_route(
            "/predict/batch",
            self.predict_batch,
            methods=["POST"],
            summary="Classify many pictures",
            response_model=None,
            responses=openapi.answers(BatchResult, *openapi.OF_A_PICTURE),
            openapi_extra={"parameters": parameters, **openapi.PICTURES_BODY},
        )
        return routes

    async def predict(self, request: Request) -> Response:
        """Send one picture, in the form field `file` or as the body itself (PNG, JPEG or WebP)."""
        asked, deadline = read_query(request), read_deadline(request, self._settings.reply_timeout_ms)
        self._requester.admit(0, 0.0, deadline.timeout_s)
        picture, declared = await read_picture(request)
        header = self._check(picture, declared)
        async with while_connected(request):
            reply = await self._ask(request, picture, header, asked, deadline)
        answer = prediction(reply, request_id(request.scope), deadline.passed_ms(), asked.top_k)
        return Response(
            msgspec.json.encode(answer),
            headers={"Server-Timing": server_timing(answer.timings)},
            media_type="application/json",
        )

    async def predict_batch(self, request: Request) -> Response:
        """Send many pictures, each in a form field `file`. Each gets its own prediction or problem."""
        asked, deadline = read_query(request), read_deadline(request, self._settings.reply_timeout_ms)
        self._requester.admit(0, 0.0, deadline.timeout_s)
        uploads = await read_pictures(request, self._settings.max_batch_files)
        budget = CallBudget(self._requester, deadline)
        async with while_connected(request):
            results = await asyncio.gather(
                *(self._entry(*one, request, asked, deadline, budget) for one in enumerate(uploads))
            )
        timings = BatchTimings(round(deadline.passed_ms(), 3))
        result = BatchResult(results, request_id(request.scope), timings)
        return Response(msgspec.json.encode(result), media_type="application/json")

    async def _entry(
        self,
        index: int,
        upload: Upload,
        request: Request,
        asked: Query,
        deadline: Deadline,
        budget: CallBudget,
    ) -> BatchEntry:
        filename, its_request_id = upload.filename[:255], request_id(request.scope)
        try:
            header = self._check(upload.content, upload.declared)
            async with budget.share(len(upload.content), header.cost_ms(asked.mode)):
                reply = await self._ask(request, upload.content, header, asked, deadline)
            its = prediction(reply, its_request_id, deadline.passed_ms(), asked.top_k)
        except GatewayError as error:
            return BatchEntry(index=index, filename=filename, problem=problem.document(error, its_request_id))
        return BatchEntry(index=index, filename=filename, prediction=its)

    def _check(self, picture: bytes, declared: str) -> PictureHeader:
        limits = self._settings
        return check(picture, declared, max_bytes=limits.max_upload_bytes, max_pixels=limits.max_pixels)

    async def _ask(
        self, request: Request, picture: bytes, header: PictureHeader, asked: Query, deadline: Deadline
    ) -> Reply:
        return await self._requester.request(
            picture,
            cost_ms=header.cost_ms(asked.mode),
            content_type=header.media_type,
            model=asked.model,
            mode=asked.mode,
            explain=asked.explain,
            traceparent=traceparent(request.scope),
            timeout_s=deadline.left_s(),
        )
