"""POST /predict."""

import hashlib
import time
from typing import NamedTuple, cast

import msgspec
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from gateway import schemas
from gateway.answer import Timings, prediction, server_timing
from gateway.deadline import Deadline, read_deadline
from gateway.hang_up import while_connected
from gateway.idempotency import FirstAnswers, read_key
from gateway.middleware import owner_of, request_id, traceparent
from gateway.picture import check
from gateway.query import PARAMETERS, Query, read_query
from gateway.request_reply import Requester
from gateway.settings import GatewaySettings
from gateway.upload import read_picture

_KEY = schemas.header_parameter(
    "Idempotency-Key",
    "The same key again, with the same picture and query, gets the first answer again.",
    type="string",
    pattern="^[!-~]{1,255}$",
)


class Answer(NamedTuple):
    """What is sent, and sent again to who asks with the same Idempotency-Key."""

    body: bytes
    server_timing: str


def router(requester: Requester, settings: GatewaySettings) -> APIRouter:
    routes = APIRouter(tags=["predict"])
    first_answers = FirstAnswers[Answer](settings.idempotency_keep_ms / 1000)

    @routes.post(
        "/predict",
        summary="What is on the picture?",
        response_model=schemas.Prediction,
        responses=schemas.PREDICT_ERRORS,
        openapi_extra={"parameters": [*PARAMETERS, schemas.TIMEOUT, _KEY], **schemas.PICTURE_BODY},
    )
    async def predict(request: Request) -> Response:
        """Send one picture, as form field `file` or as the body itself (PNG, JPEG or WebP)."""
        asked, deadline = read_query(request), read_deadline(request, settings.reply_timeout_ms)
        requester.admit(0, deadline.timeout_s)
        picture, declared = await read_picture(request)
        media_type = check(
            picture, declared, max_bytes=settings.max_upload_bytes, max_pixels=settings.max_pixels
        )

        async def ask() -> Answer:
            return await _ask(requester, request, picture, media_type, asked, deadline)

        async with while_connected(request):
            key = read_key(request)
            if not key:
                return _respond(await ask())
            whose = (owner_of(request.scope), key)
            answer, again = await first_answers.once(whose, _fingerprint(picture, asked), ask, deadline)
            return _respond(answer, {"Idempotent-Replayed": "true"} if again else {})

    return routes


async def _ask(
    requester: Requester, request: Request, picture: bytes, media_type: str, asked: Query, deadline: Deadline
) -> Answer:
    reply = await requester.request(
        picture,
        content_type=media_type,
        model=asked.model,
        mode=asked.mode,
        explain=asked.explain,
        traceparent=traceparent(request.scope),
        timeout_s=deadline.left_s(),
    )
    total_ms = (time.monotonic() - deadline.started) * 1000
    body = prediction(reply, request_id(request.scope), total_ms, asked.top_k)
    return Answer(msgspec.json.encode(body), server_timing(cast(Timings, body["timings"])))


def _respond(answer: Answer, headers: dict[str, str] | None = None) -> Response:
    return Response(
        answer.body,
        headers={"Server-Timing": answer.server_timing, **(headers or {})},
        media_type="application/json",
    )


def _fingerprint(picture: bytes, asked: Query) -> str:
    return f"{hashlib.sha256(picture).hexdigest()} {asked}"
