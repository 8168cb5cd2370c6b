"""A worker's reply as what HTTP carries."""

import heapq
from typing import NoReturn

import msgspec

from gateway.errors import GatewayError, InvalidRequest, NotAPicture, UnknownModel, WorkerFailed
from gateway.png import data_uri
from messaging.contract import ErrorCode, Failure, Reply

_ERRORS: dict[ErrorCode, type[GatewayError]] = {
    ErrorCode.INVALID_PICTURE: NotAPicture,
    ErrorCode.INVALID_REQUEST: InvalidRequest,
    ErrorCode.UNKNOWN_MODEL: UnknownModel,
}

_SERVER_TIMING = ("broker", "queue", "batch", "decode", "infer", "total")

Timings = dict[str, float]


def prediction(reply: Reply, request_id: str, total_ms: float, top_k: int = 0) -> dict[str, object]:
    """gateway.schemas.Prediction; with the top_k most probable labels, all for 0. Raises GatewayError."""
    if reply.error is not None:
        raise_failure(reply.error)
    probabilities = reply.probabilities
    label, confidence = max(probabilities.items(), key=lambda item: item[1])
    if top_k:
        probabilities = dict(heapq.nlargest(top_k, probabilities.items(), key=lambda item: item[1]))
    body: dict[str, object] = {
        "label": label,
        "confidence": confidence,
        "probabilities": probabilities,
        "in_distribution": reply.in_distribution,
        "ood_score": reply.ood_score,
        "mode": reply.mode,
        "warnings": reply.warnings,
        "model": reply.model,
        "version": reply.version,
        "request_id": request_id,
        "sha256": reply.sha256,
        "timings": timings_of(reply, total_ms),
    }
    if reply.input is not None:
        body["input"] = data_uri(reply.input)
    return body


def timings_of(reply: Reply, total_ms: float) -> Timings:
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


def server_timing(timings: Timings) -> str:
    """The header of that name."""
    return ", ".join(
        f"{name};dur={timings[name + '_ms']}" for name in _SERVER_TIMING if name + "_ms" in timings
    )


def raise_failure(failure: Failure) -> NoReturn:
    """As a GatewayError."""
    raise _ERRORS.get(failure.code, WorkerFailed)(failure.detail)
