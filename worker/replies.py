"""What the model process found, in the words of the wire contract. Pure."""

import hashlib

from messaging.contract import ErrorCode, Failure, Reply, Timings
from worker.pipe import Loaded, Outcome, Predicted
from worker.triage import Task


def reply_to_ping(loaded: Loaded) -> Reply:
    return Reply(sha256="", model=loaded.model, version=loaded.version)


def reply_to(
    task: Task,
    outcome: Outcome,
    predicted: Predicted,
    loaded: Loaded,
    received_ms: float,
    at_worker_ms: float,
) -> Reply:
    """received_ms: epoch, when the batch was in hand. at_worker_ms: from then until the model was done."""
    sha256 = hashlib.sha256(task.request.body).hexdigest()
    if outcome.error is not None:
        detail = "" if outcome.error is ErrorCode.INTERNAL else outcome.detail
        return Reply(
            sha256=sha256, model=loaded.model, version=loaded.version, error=Failure(outcome.error, detail)
        )
    timings = Timings(
        queue_ms=max(0.0, received_ms - task.delivery.timestamp_ms) if task.delivery.timestamp_ms else 0.0,
        batch_ms=max(0.0, at_worker_ms - outcome.decode_ms - predicted.infer_ms),
        decode_ms=outcome.decode_ms,
        infer_ms=predicted.infer_ms,
        batch_size=len(predicted.outcomes),
    )
    rounded = (round(probability, 6) for probability in outcome.probabilities)
    return Reply(
        sha256=sha256,
        model=loaded.model,
        version=loaded.version,
        probabilities=dict(zip(loaded.labels, rounded, strict=True)),
        timings=timings,
    )
