"""What the model process found, in the words of the wire contract. Pure."""

import math

from messaging.contract import ErrorCode, Failure, Reply, Timings
from messaging.served_model import ServedModel
from worker.pipe import Loaded, LoadedModel, Outcome
from worker.triage import Task

_DIGITS = 6


def reply_to_ping(loaded: Loaded) -> Reply:
    default = loaded.default
    models = [_served(model, is_default=model is default) for model in loaded.models]
    return Reply(sha256="", model=default.name, version=default.version, models=models)


def reply_to(
    task: Task, sha256: str, outcome: Outcome, batch_size: int, received_ms: float, at_worker_ms: float
) -> Reply:
    """received_ms: epoch, when the batch was in hand. at_worker_ms: from then until the models were done."""
    model = task.model
    if outcome.error is not None:
        detail = "" if outcome.error is ErrorCode.INTERNAL else outcome.detail
        failure = Failure(outcome.error, detail)
        return Reply(sha256=sha256, model=model.name, version=model.version, error=failure)
    rounded = (round(probability, _DIGITS) for probability in outcome.probabilities)
    return Reply(
        sha256=sha256,
        model=model.name,
        version=model.version,
        probabilities=dict(zip(model.labels, rounded, strict=True)),
        in_distribution=outcome.in_distribution,
        ood_score=round(outcome.ood_score, _DIGITS),
        mode=outcome.mode,
        warnings=outcome.warnings,
        input=outcome.input,
        timings=_timings(task, outcome, batch_size, received_ms, at_worker_ms),
    )


def checked(outcome: Outcome) -> Outcome:
    """The outcome, or an error if its numbers are none that a reply may carry: such a reply is dropped."""
    sound = all(0 <= round(each, _DIGITS) <= 1 for each in outcome.probabilities)
    if sound and math.isfinite(outcome.ood_score):
        return outcome
    detail = (
        f"the model's output is not probabilities: {outcome.probabilities[:3]}, score {outcome.ood_score}"
    )
    return Outcome(error=ErrorCode.INTERNAL, detail=detail)


def _served(model: LoadedModel, *, is_default: bool) -> ServedModel:
    return ServedModel(
        name=model.name,
        version=model.version,
        default=is_default,
        runtime=model.runtime,
        labels=model.labels,
        input=model.input,
        sha256=model.sha256,
        accuracy=model.accuracy,
    )


def _timings(
    task: Task, outcome: Outcome, batch_size: int, received_ms: float, at_worker_ms: float
) -> Timings:
    sent_ms = task.delivery.timestamp_ms
    return Timings(
        queue_ms=max(0.0, received_ms - sent_ms) if sent_ms else 0.0,
        batch_ms=max(0.0, at_worker_ms - outcome.decode_ms - outcome.infer_ms),
        decode_ms=outcome.decode_ms,
        infer_ms=outcome.infer_ms,
        batch_size=batch_size,
    )
