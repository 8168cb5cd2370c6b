"""POST /predict/batch."""

import asyncio
import time

import msgspec
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from gateway import problem, schemas
from gateway.answer import prediction
from gateway.deadline import Deadline, read_deadline
from gateway.errors import GatewayError
from gateway.hang_up import while_connected
from gateway.middleware import request_id, traceparent
from gateway.picture import check
from gateway.query import PARAMETERS, Query, read_query
from gateway.request_reply import Requester
from gateway.settings import GatewaySettings
from gateway.turns import Turns
from gateway.upload import Upload, read_pictures

Entry = dict[str, object]


def router(requester: Requester, settings: GatewaySettings) -> APIRouter:
    routes = APIRouter(tags=["predict"])

    @routes.post(
        "/predict/batch",
        summary="What is on each of the pictures?",
        response_model=schemas.BatchResult,
        responses=schemas.PICTURE_ERRORS,
        openapi_extra={"parameters": [*PARAMETERS, schemas.TIMEOUT], **schemas.PICTURES_BODY},
    )
    async def predict_batch(request: Request) -> Response:
        """Send many pictures, each as form field `file`. Every one has its own result or its own problem."""
        asked, deadline = read_query(request), read_deadline(request, settings.reply_timeout_ms)
        requester.admit(0, deadline.timeout_s)
        uploads = await read_pictures(request, settings.max_batch_files)
        async with while_connected(request):
            batch = _Batch(requester, settings, request, asked, deadline)
            results = await asyncio.gather(*(batch.entry(*numbered) for numbered in enumerate(uploads)))
        body = {
            "results": results,
            "request_id": request_id(request.scope),
            "timings": {"total_ms": round((time.monotonic() - deadline.started) * 1000, 3)},
        }
        return Response(msgspec.json.encode(body), media_type="application/json")

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

    async def entry(self, index: int, upload: Upload) -> Entry:
        """One of the results."""
        entry: Entry = {"index": index, "filename": upload.filename[:255]}
        its_request_id = request_id(self._request.scope)
        try:
            return {**entry, "prediction": await self._predict(upload, its_request_id)}
        except GatewayError as error:
            return {**entry, "problem": problem.document(error, its_request_id)}

    async def _predict(self, upload: Upload, its_request_id: str) -> dict[str, object]:
        media_type = check(
            upload.content,
            upload.declared,
            max_bytes=self._settings.max_upload_bytes,
            max_pixels=self._settings.max_pixels,
        )
        async with self._turns.take(len(upload.content)):
            reply = await self._requester.request(
                upload.content,
                content_type=media_type,
                model=self._asked.model,
                mode=self._asked.mode,
                explain=self._asked.explain,
                traceparent=traceparent(self._request.scope),
                timeout_s=self._deadline.left_s(),
            )
        total_ms = (time.monotonic() - self._deadline.started) * 1000
        return prediction(reply, its_request_id, total_ms, self._asked.top_k)
