"""POST /predict/batch."""

import asyncio
import time

import msgspec
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from gateway import openapi, problem
from gateway.answer import Prediction, prediction
from gateway.deadline import Deadline, read_deadline
from gateway.errors import GatewayError
from gateway.hang_up import while_connected
from gateway.middleware import request_id, traceparent
from gateway.picture import check
from gateway.problem import Problem
from gateway.query import PARAMETERS, Query, read_query
from gateway.request_reply import Requester
from gateway.settings import GatewaySettings
from gateway.turns import Turns
from gateway.upload import Upload, read_pictures


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


def router(requester: Requester, settings: GatewaySettings) -> APIRouter:
    routes = APIRouter(tags=["predict"])

    @routes.post(
        "/predict/batch",
        summary="Classify many pictures",
        response_model=None,
        responses=openapi.answers(BatchResult, *openapi.OF_A_PICTURE),
        openapi_extra={"parameters": [*PARAMETERS, openapi.TIMEOUT], **openapi.PICTURES_BODY},
    )
    async def predict_batch(request: Request) -> Response:
        """Send many pictures, each in a form field `file`. Each gets its own prediction or problem."""
        asked, deadline = read_query(request), read_deadline(request, settings.reply_timeout_ms)
        requester.admit(0, 0.0, deadline.timeout_s)
        uploads = await read_pictures(request, settings.max_batch_files)
        async with while_connected(request):
            batch = _Batch(requester, settings, request, asked, deadline)
            results = await asyncio.gather(*(batch.entry(*numbered) for numbered in enumerate(uploads)))
        total_ms = round((time.monotonic() - deadline.started) * 1000, 3)
        result = BatchResult(results, request_id(request.scope), BatchTimings(total_ms))
        return Response(msgspec.json.encode(result), media_type="application/json")

    return routes


class _Batch:
    """The pictures of one call."""

    def __init__(
        self,
        requester: Requester,
        settings: GatewaySettings,
        request: Request,
        asked: Query,
        deadline: Deadline,
    ) -> None:
        self._requester = requester
        self._settings = settings
        self._request = request
        self._asked = asked
        self._deadline = deadline
        self._turns = Turns(requester, deadline)

    async def entry(self, index: int, upload: Upload) -> BatchEntry:
        """One of the results."""
        filename, its_request_id = upload.filename[:255], request_id(self._request.scope)
        try:
            its = await self._predict(upload, its_request_id)
        except GatewayError as error:
            return BatchEntry(index=index, filename=filename, problem=problem.document(error, its_request_id))
        return BatchEntry(index=index, filename=filename, prediction=its)

    async def _predict(self, upload: Upload, its_request_id: str) -> Prediction:
        header = check(
            upload.content,
            upload.declared,
            max_bytes=self._settings.max_upload_bytes,
            max_pixels=self._settings.max_pixels,
        )
        cost_ms = header.cost_ms(self._asked.mode)
        async with self._turns.take(len(upload.content), cost_ms):
            reply = await self._requester.request(
                upload.content,
                cost_ms=cost_ms,
                content_type=header.media_type,
                model=self._asked.model,
                mode=self._asked.mode,
                explain=self._asked.explain,
                traceparent=traceparent(self._request.scope),
                timeout_s=self._deadline.left_s(),
            )
        total_ms = (time.monotonic() - self._deadline.started) * 1000
        return prediction(reply, its_request_id, total_ms, self._asked.top_k)
