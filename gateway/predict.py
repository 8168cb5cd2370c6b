"""POST /predict."""

import time

import msgspec
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from gateway import openapi
from gateway.answer import Prediction, prediction, server_timing
from gateway.deadline import read_deadline
from gateway.hang_up import while_connected
from gateway.middleware import request_id, traceparent
from gateway.picture import check
from gateway.query import PARAMETERS, read_query
from gateway.request_reply import Requester
from gateway.settings import GatewaySettings
from gateway.upload import read_picture


def router(requester: Requester, settings: GatewaySettings) -> APIRouter:
    routes = APIRouter(tags=["predict"])

    @routes.post(
        "/predict",
        summary="Classify a picture",
        response_model=None,
        responses=openapi.answers(Prediction, *openapi.OF_A_PICTURE),
        openapi_extra={"parameters": [*PARAMETERS, openapi.TIMEOUT], **openapi.PICTURE_BODY},
    )
    async def predict(request: Request) -> Response:
        """Send one picture, in the form field `file` or as the body itself (PNG, JPEG or WebP)."""
        asked, deadline = read_query(request), read_deadline(request, settings.reply_timeout_ms)
        requester.admit(0, 0.0, deadline.timeout_s)
        picture, declared = await read_picture(request)
        header = check(picture, declared, max_bytes=settings.max_upload_bytes, max_pixels=settings.max_pixels)

        async with while_connected(request):
            reply = await requester.request(
                picture,
                cost_ms=header.cost_ms(asked.mode),
                content_type=header.media_type,
                model=asked.model,
                mode=asked.mode,
                explain=asked.explain,
                traceparent=traceparent(request.scope),
                timeout_s=deadline.left_s(),
            )
        total_ms = (time.monotonic() - deadline.started) * 1000
        answer = prediction(reply, request_id(request.scope), total_ms, asked.top_k)
        return Response(
            msgspec.json.encode(answer),
            headers={"Server-Timing": server_timing(answer.timings)},
            media_type="application/json",
        )

    return routes
