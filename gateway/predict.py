"""POST /predict and POST /predict/batch."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from gateway import openapi, problem
from gateway.answer import Prediction, prediction, server_timing
from gateway.asked import (
    FORM_OVERHEAD_BYTES,
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
from gateway.middleware import RouteFacts, Router, request_id, while_connected
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


class PredictRoutes:
    """Endpoints that send pictures to the workers and wait for the replies."""

    def __init__(self, requester: Requester, settings: GatewaySettings) -> None:
        self._requester = requester
        self._settings = settings

    def router(self) -> Router:
        router = Router(tags=["predict"])
        parameters = [*PARAMETERS, openapi.TIMEOUT]
        router.add(
            "POST",
            "/predict",
            self.predict,
            summary="Classify a picture",
            responses=openapi.answers(Prediction, *openapi.OF_A_PICTURE),
            openapi_extra={"parameters": parameters, **openapi.PICTURE_BODY},
        )
        router.add(
            "POST",
            "/predict/batch",
            self.predict_batch,
            RouteFacts(max_body_bytes=self._settings.max_batch_bytes + FORM_OVERHEAD_BYTES),
            summary="Classify many pictures",
            responses=openapi.answers(BatchResult, *openapi.OF_A_PICTURE),
            openapi_extra={"parameters": parameters, **openapi.PICTURES_BODY},
        )
        return router

    async def predict(self, request: Request) -> Response:
        """Send one picture, in the form field `file` or as the body itself (PNG, JPEG or WebP).

        The default model, fashion-mnist as shipped, is for small grey pictures: for photos, add
        `?model=clothing-photo`.
        """
        asked, deadline = read_query(request), read_deadline(request, self._settings.reply_timeout_ms)
        self._requester.admit(asked.model, 0, 0.0, deadline.timeout_s)
        upload = await read_picture(request)
        header = self._check(upload)
        async with while_connected(request):
            reply = await self._ask(upload, header, asked, deadline)
        answer = prediction(reply, request_id(request.scope), deadline.passed_ms(), asked.top_k)
        return Response(
            msgspec.json.encode(answer),
            headers={"Server-Timing": server_timing(answer.timings)},
            media_type="application/json",
        )

    async def predict_batch(self, request: Request) -> Response:
        """Send many pictures, each in a form field `file`. Each gets its own prediction or problem."""
        asked, deadline = read_query(request), read_deadline(request, self._settings.reply_timeout_ms)
        self._requester.admit(asked.model, 0, 0.0, deadline.timeout_s)
        uploads = await read_pictures(request, self._settings.max_batch_files)
        budget, its_id = CallBudget(self._requester, asked.model, deadline), request_id(request.scope)
        async with while_connected(request):
            results = await asyncio.gather(
                *(self._entry(*one, its_id, asked, deadline, budget) for one in enumerate(uploads))
            )
        result = BatchResult(results, its_id, BatchTimings(round(deadline.passed_ms(), 3)))
        return Response(msgspec.json.encode(result), media_type="application/json")

    async def _entry(
        self,
        index: int,
        upload: Upload,
        its_id: str,
        asked: Query,
        deadline: Deadline,
        budget: "CallBudget",
    ) -> BatchEntry:
        filename = upload.filename[:255]
        try:
            header = self._check(upload)
            async with budget.share(len(upload.content), header.cost_ms(asked.mode)):
                reply = await self._ask(upload, header, asked, deadline)
            found = prediction(reply, its_id, deadline.passed_ms(), asked.top_k)
        except GatewayError as error:
            return BatchEntry(index=index, filename=filename, problem=problem.document(error, its_id))
        return BatchEntry(index=index, filename=filename, prediction=found)

    def _check(self, upload: Upload) -> PictureHeader:
        max_bytes, max_pixels = self._settings.max_upload_bytes, self._settings.max_pixels
        return check(upload.content, upload.declared, max_bytes=max_bytes, max_pixels=max_pixels)

    async def _ask(self, upload: Upload, header: PictureHeader, asked: Query, deadline: Deadline) -> Reply:
        return await self._requester.request(
            upload.content,
            cost_ms=header.cost_ms(asked.mode),
            content_type=header.media_type,
            model=asked.model,
            version=asked.version,
            mode=asked.mode,
            explain=asked.explain,
            timeout_s=deadline.left_s(),
        )


class CallBudget:
    """Lets the pictures of one call wait for each other when not all of them may be in flight at once."""

    def __init__(self, requester: Requester, model: str, deadline: Deadline) -> None:
        self._requester = requester
        self._model = model
        self._deadline = deadline
        self._in_flight = 0
        self._changed = asyncio.Condition()

    @asynccontextmanager
    async def share(self, size_bytes: int, cost_ms: float) -> AsyncIterator[None]:
        """Hold the place of one picture, from its request to its reply. Raises GatewayError."""
        await self._enter(size_bytes, cost_ms)
        try:
            yield
        finally:
            await self._leave()

    async def _enter(self, size_bytes: int, cost_ms: float) -> None:
        """Wait while the call's own pictures take the room; raise TooManyInFlight if those of others do."""
        async with self._changed:
            while True:
                try:
                    self._requester.admit(self._model, size_bytes, cost_ms, self._deadline.left_s())
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
