"""From a batch of messages to replies."""

import logging
import math
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass, field

from messaging import codec
from messaging.broker import Delivery
from messaging.contract import (
    ContractError,
    ErrorCode,
    Failure,
    Reply,
    Request,
    ReturnAddress,
    ServedModel,
    Timings,
    sha256_of,
)
from messaging.picture_header import Size
from worker.batching import Batch, Waiting
from worker.metrics import Ending, WorkerMetrics
from worker.model_process import IsolatedModel, ModelDied
from worker.outbox import Outbox
from worker.pipe import Loaded, LoadedModel, Outcome, Picture

_DIGITS = 6

_MOST_BYTES = 16_777_216  # 16 MiB: 8,000 replies with ten labels, or 200 with a thousand
_ENTRY_BYTES = 800  # of a reply's numbers, its timings and its share of the table, measured
_LABEL_BYTES = 80

_MOST_CULPRITS = 4_096
_CULPRITS_KEPT_S = 600.0

Key = tuple[str, str, str]

# When so many came together, more wait, and throughput counts for more than some milliseconds.
_GATHERED_FROM = 6

# The estimate of the header is of one machine, and there are slower ones.
_TIMES_ITS_COST = 10

_ENDINGS = {None: Ending.ANSWERED, ErrorCode.INTERNAL: Ending.POISON}
_OVERLOADED = Failure(ErrorCode.OVERLOADED, "too many pictures that take long to decode are waiting")
_KNOWN_CULPRIT = Failure(ErrorCode.INTERNAL, "")

_log = logging.getLogger("mlaas.worker")


@dataclass(frozen=True, slots=True)
class Task:
    """A message that gets a reply, and the model that it is for."""

    waiting: Waiting
    address: ReturnAddress
    request: Request
    model: LoadedModel

    @property
    def delivery(self) -> Delivery:
        return self.waiting.delivery


@dataclass(slots=True)
class Triage:
    """unusable: nobody can be answered. refused: somebody can, with an error. Nobody waits for the
    expired and the cancelled.
    """

    work: list[Task] = field(default_factory=list)
    pings: list[Task] = field(default_factory=list)
    expired: list[Delivery] = field(default_factory=list)
    cancelled: list[Delivery] = field(default_factory=list)
    refused: list[tuple[Delivery, ReturnAddress, Failure]] = field(default_factory=list)
    unusable: list[tuple[Delivery, str]] = field(default_factory=list)


def triage(
    waiting: Iterable[Waiting],
    *,
    now_ms: float,
    loaded: Loaded,
    reply_topics: Container[str],
    cancelled: Container[str],
) -> Triage:
    """Headers are a stranger's word: only reply topics that are allowed are written to."""
    sorted_out = Triage()
    for each in waiting:
        delivery = each.delivery
        try:
            address = codec.return_address(delivery.message)
        except ContractError as error:
            sorted_out.unusable.append((delivery, str(error)))
            continue
        if address.reply_to.partition("/")[0] not in reply_topics:
            sorted_out.unusable.append((delivery, f"reply_to {address.reply_to[:100]!r} is not allowed"))
            continue
        if address.correlation_id in cancelled:
            sorted_out.cancelled.append(delivery)
            continue
        _sort(sorted_out, each, address, now_ms, loaded)
    return sorted_out


def _sort(into: Triage, waiting: Waiting, address: ReturnAddress, now_ms: float, loaded: Loaded) -> None:
    delivery = waiting.delivery
    try:
        request = codec.decode_request(delivery.message)
    except ContractError as error:
        into.refused.append((delivery, address, Failure(error.code, str(error))))
        return
    if request.deadline_ms is not None and request.deadline_ms < now_ms:
        into.expired.append(delivery)
    elif request.is_ping:
        into.pings.append(Task(waiting, address, request, loaded.default))
    elif (model := loaded.named(request.model)) is None:
        known = ", ".join(model.name for model in loaded.models)
        failure = Failure(ErrorCode.UNKNOWN_MODEL, f"no model {request.model[:100]!r} here; known: {known}")
        into.refused.append((delivery, address, failure))
    elif waiting.refusal:
        into.refused.append((delivery, address, Failure(ErrorCode.INVALID_PICTURE, waiting.refusal)))
    else:
        into.work.append(Task(waiting, address, request, model))


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


class RecentReplies:
    """For requests that are delivered again. Used by one thread.

    The same id with another picture is another request.
    """

    def __init__(self, most_bytes: int = _MOST_BYTES) -> None:
        self._most_bytes = most_bytes
        self._replies: OrderedDict[Key, Reply] = OrderedDict()
        self._bytes = 0

    def get(self, task: Task, sha256: str) -> Reply | None:
        """The reply to the same request; None if there was none, or too long ago."""
        return self._replies.get(_key(task, sha256))

    def keep(self, task: Task, reply: Reply) -> None:
        key = _key(task, reply.sha256)
        self._forget(key)
        self._replies[key] = reply
        self._bytes += _size(key, reply)
        while self._bytes > self._most_bytes:
            self._forget(next(iter(self._replies)))

    def _forget(self, key: Key) -> None:
        reply = self._replies.pop(key, None)
        if reply is not None:
            self._bytes -= _size(key, reply)


class Culprits:
    """Pictures that ended a process, for some minutes: their copies need not end it again.

    Shared by threads. Not for longer, because processes are killed for other reasons, too.
    """

    def __init__(self, most_kept: int = _MOST_CULPRITS, clock: Callable[[], float] = time.monotonic) -> None:
        self._most_kept = most_kept
        self._clock = clock
        self._lock = threading.Lock()
        self._until: OrderedDict[Key, float] = OrderedDict()

    def add(self, task: Task, sha256: str) -> None:
        with self._lock:
            self._until[_picture(task, sha256)] = self._clock() + _CULPRITS_KEPT_S
            if len(self._until) > self._most_kept:
                self._until.popitem(last=False)

    def has(self, task: Task, sha256: str) -> bool:
        """Whether the same picture ended the process of the same model, prepared in the same way."""
        until = self._until.get(_picture(task, sha256))
        return until is not None and self._clock() < until


def _picture(task: Task, sha256: str) -> Key:
    return task.model.name, task.request.mode, sha256


def _key(task: Task, sha256: str) -> Key:
    return task.address.reply_to, task.request.correlation_id, sha256


def _size(key: Key, reply: Reply) -> int:
    """About how many bytes of memory they take; labels and names are the model's own."""
    texts = (*key, *reply.warnings, reply.error.detail if reply.error else "")
    inputs = len(reply.input or b"")
    return _ENTRY_BYTES + sum(map(sys.getsizeof, texts)) + inputs + _LABEL_BYTES * len(reply.probabilities)


class Answerer:
    """Used by one thread. Both clocks give seconds; the wall clock's are comparable between machines."""

    def __init__(
        self,
        model: IsolatedModel,
        outbox: Outbox,
        metrics: WorkerMetrics,
        *,
        reply_topics: Container[str],
        cancelled: Container[str],
        culprits: Culprits,
        one_by_one: Callable[[Sequence[Waiting]], None],
        decode_timeout_s: float,
        size: Size = Size.SMALL,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """size: of the pictures that it has. one_by_one takes those of a batch that ended the process."""
        self._model = model
        self._outbox = outbox
        self._metrics = metrics
        self._reply_topics = reply_topics
        self._cancelled = cancelled
        self._culprits = culprits
        self._one_by_one = one_by_one
        self._decode_timeout_s = decode_timeout_s
        self._size = size
        self._recent = RecentReplies()
        self._clock = clock
        self._wall_clock = wall_clock

    def answer(self, batch: Batch) -> None:
        """Every message leads to a reply, a dead letter, or nothing if nobody waits any more.

        Raises ModelUnavailable.
        """
        self._outbox.gather = len(batch.waiting) >= _GATHERED_FROM
        digests = ((task, sha256_of(task.request.body)) for task in self._work(batch.waiting))
        new = [(task, sha256) for task, sha256 in digests if not self._answer_again(task, sha256)]
        if new:
            self._predict(new, batch.received_at)

    def refuse(self, deliveries: Iterable[Delivery]) -> None:
        """There is no room for these."""
        waiting = [Waiting(delivery, 0.0, 0.0) for delivery in deliveries]
        for task in self._work(waiting):
            self._metrics.ended(Ending.OVERLOADED)
            self._reply(task, Reply(sha256="", error=_OVERLOADED))

    def _work(self, waiting: Iterable[Waiting]) -> list[Task]:
        """What is left once the others are settled."""
        loaded = self._model.load()
        found = triage(
            waiting,
            now_ms=self._wall_clock() * 1000,
            loaded=loaded,
            reply_topics=self._reply_topics,
            cancelled=self._cancelled,
        )
        self._settle_without_model(found, loaded)
        return found.work

    def _settle_without_model(self, found: Triage, loaded: Loaded) -> None:
        self._outbox.drop([*found.expired, *found.cancelled])
        for delivery, reason in found.unusable:
            self._outbox.bury(delivery, reason)
        for delivery, address, failure in found.refused:
            self._outbox.reply(delivery, address, Reply(sha256="", error=failure))
        for ping in found.pings:
            self._reply(ping, reply_to_ping(loaded))
        self._metrics.ended(Ending.EXPIRED, len(found.expired))
        self._metrics.ended(Ending.CANCELLED, len(found.cancelled))
        self._metrics.ended(Ending.UNUSABLE, len(found.unusable))
        self._metrics.ended(Ending.REFUSED, len(found.refused))

    def _answer_again(self, task: Task, sha256: str) -> bool:
        """Without the model: a request that is delivered again, and a copy of what ended a process."""
        reply = self._recent.get(task, sha256)
        if reply is not None:
            self._metrics.ended(Ending.DUPLICATE)
        elif self._culprits.has(task, sha256):
            self._metrics.ended(Ending.POISON_AGAIN)
            reply = Reply(
                sha256=sha256, model=task.model.name, version=task.model.version, error=_KNOWN_CULPRIT
            )
        else:
            return False
        self._reply(task, reply)
        return True

    def _predict(self, work: list[tuple[Task, str]], received_at: float) -> None:
        pictures = [self._picture(task) for task, _ in work]
        if self._size is Size.SMALL:
            try:
                predicted = self._model.predict(pictures)
            except ModelDied as error:
                _log.warning("%s, over a batch of %d; its pictures go one by one", error, len(pictures))
                self._one_by_one([task.waiting for task, _ in work])
                return
        else:
            (picture,) = pictures
            predicted = self._model.predict_alone(picture, self._size)
        outcomes = [checked(outcome) for outcome in predicted.outcomes]
        at_worker_ms = (self._clock() - received_at) * 1000
        received_ms = self._wall_clock() * 1000 - at_worker_ms
        self._metrics.predicted(outcomes)
        for (task, sha256), outcome in zip(work, outcomes, strict=True):
            self._settle(
                task, outcome, reply_to(task, sha256, outcome, len(outcomes), received_ms, at_worker_ms)
            )

    def _settle(self, task: Task, outcome: Outcome, reply: Reply) -> None:
        self._recent.keep(task, reply)
        self._metrics.ended(_ENDINGS.get(outcome.error, Ending.UNREADABLE))
        if outcome.error is ErrorCode.INTERNAL:
            self._culprits.add(task, reply.sha256)
            self._outbox.reply_and_bury(task.delivery, task.address, reply, outcome.detail)
        else:
            self._reply(task, reply)

    def _reply(self, task: Task, reply: Reply) -> None:
        self._outbox.reply(task.delivery, task.address, reply, task.request.deadline_ms)

    def _picture(self, task: Task) -> Picture:
        request = task.request
        limit_s = self._decode_timeout_s + _TIMES_ITS_COST * task.waiting.cost_ms / 1000
        return Picture(request.body, task.model.name, request.mode, request.explain == "input", limit_s)
