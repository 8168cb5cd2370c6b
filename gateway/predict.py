"""POST /predict."""

import time
from typing import NoReturn

import msgspec
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from gateway import schemas
from gateway.errors import GatewayError, InvalidRequest, NotAPicture, UnknownModel, WorkerFailed
from gateway.middleware import request_id
from gateway.picture import check
from gateway.png import data_uri
from gateway.query import PARAMETERS, read_query
from gateway.request_reply import Requester
from gateway.settings import GatewaySettings
from gateway.upload import read_picture
from messaging.contract import ErrorCode, Failure, Reply

_ERRORS: dict[ErrorCode, type[GatewayError]] = {
    ErrorCode.INVALID_PICTURE: NotAPicture,
    ErrorCode.INVALID_REQUEST: InvalidRequest,
    ErrorCode.UNKNOWN_MODEL: UnknownModel,
}

_SERVER_TIMING = ("broker", "queue", "batch", "decode", "infer", "total")


def router(requester: Requester, settings: GatewaySettings) -> APIRouter:
    routes = APIRouter(tags=["predict"])

    @routes.post(
        "/predict",
        summary="What is on the picture?",
        response_model=schemas.Prediction,
        responses=schemas.PREDICT_ERRORS,
        openapi_extra={"parameters": PARAMETERS, **schemas.PICTURE_BODY},
    )
    async def predict(request: Request) -> Response:
        """Send one picture, as form field `file` or as the body itself (PNG, JPEG or WebP)."""
        started = time.perf_counter()
        asked = read_query(request)
        picture, declared = await read_picture(request)
        media_type = check(
            picture, declared, max_bytes=settings.max_upload_bytes, max_pixels=settings.max_pixels
        )
        reply = await requester.request(
            picture,
            content_type=media_type,
            model=asked.model,
            mode=asked.mode,
            explain=asked.explain,
            traceparent=request.headers.get("traceparent", "")[:100],
            timeout_s=settings.reply_timeout_ms / 1000,
        )
        if reply.error is not None:
            _raise(reply.error)
        return _respond(reply, request_id(request.scope), total_ms=(time.perf_counter() - started) * 1000)

    return routes


def _raise(failure: Failure) -> NoReturn:
    raise _ERRORS.get(failure.code, WorkerFailed)(failure.detail)


def _respond(reply: Reply, its_request_id: str, total_ms: float) -> Response:
    label, confidence = max(reply.probabilities.items(), key=lambda item: item[1])
    timings = timings_of(reply, total_ms)
    body: dict[str, object] = {
        "label": label,
        "confidence": confidence,
        "probabilities": reply.probabilities,
        "in_distribution": reply.in_distribution,
        "ood_score": reply.ood_score,
        "mode": reply.mode,
        "warnings": reply.warnings,
        "model": reply.model,
        "version": reply.version,
        "request_id": its_request_id,
        "sha256": reply.sha256,
        "timings": timings,
    }
    if reply.input is not None:
        body["input"] = data_uri(reply.input)
    server_timing = ", ".join(f"{name};dur={timings[name + '_ms']}" for name in _SERVER_TIMING)
    return Response(
        msgspec.json.encode(body), headers={"Server-Timing": server_timing}, media_type="application/json"
    )


def timings_of(reply: Reply, total_ms: float) -> dict[str, float]:
    """broker_ms is what is left of the total: both ways through the broker, and the gateway itself."""
    if reply.timings is None:
        return {"total_ms": round(total_ms, 3)}
    parts = {name: round(value, 3) for name, value in msgspec.structs.asdict(reply.timings).items()}
    at_worker = sum(value for name, value in parts.items() if name.endswith("_ms"))
    return {
        "total_ms": round(total_ms, 3),
        "broker_ms": round(max(0.0, total_ms - at_worker), 3),
        **parts,
    }
