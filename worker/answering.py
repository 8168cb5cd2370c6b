"""Answers batches of messages: sorts them, has the model predict, and passes the replies to the outbox."""

import heapq
import logging
import math
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Container, Iterable, Sequence
from operator import itemgetter

from msgspec.structs import replace

from messaging.broker import Delivery
from messaging.contract import ErrorCode, Failure, Reply, Timings
from messaging.picture_header import Size, size_of
from messaging.tracing import Worked
from worker.batching import Queued
from worker.metrics import Agreed, Ending, WorkerMetrics
from worker.model_process import ModelDied
from worker.outbox import Outbox
from worker.pipe import Outcome, Picture, PreparedPicture, Tensor, said
from worker.rollout import Rollout, Serving
from worker.roster import Roster
from worker.triage import Task, triage

# From this batch size on, more requests are waiting, and throughput counts for more than some milliseconds.
_GATHERED_FROM = 6

# Costs are estimated for one machine; others may be slower.
_COST_TOLERANCE = 10

_PROBABILITY_DIGITS = 6

_MAX_REPLY_BYTES = 16_777_216  # 16 MiB: 8,000 replies of ten labels, or 200 of a thousand
_ENTRY_BYTES = 800  # measured: a reply's numbers, timings and dictionary entry
_LABEL_BYTES = 80

_MAX_POISON = 4_096
_POISON_KEPT_S = 600.0

_ENDINGS = {None: Ending.ANSWERED, ErrorCode.INTERNAL: Ending.POISON}
_OVERLOADED = Failure(
    ErrorCode.OVERLOADED,
    "too many pictures that take long to decode are waiting for this worker (worker.max_waiting_cost_ms and "
    "worker.max_waiting_bytes)",
)
_POISON = Failure(ErrorCode.INTERNAL, "")

_log = logging.getLogger("mlaas.worker")

Key = tuple[str, ...]


class Answerer:
    """Answers small pictures in batches, or larger ones one at a time. For one thread."""

    def __init__(
        self,
        models: Rollout,
        outbox: Outbox,
        *,
        reply_topics: Container[str],
        cancelled: Container[str],
        poison: "PoisonPictures",
        isolate: Callable[[Sequence[Queued]], None],
        pass_on: Callable[[Queued], bool],
        decode_timeout_s: float,
        size: Size = Size.SMALL,
        trace: Callable[[Sequence[Worked]], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """reply_topics: the only topics that replies may go to. cancelled: correlation ids.

        isolate: called with the batch that ended the model process, to process its pictures one by one.
        pass_on: has a prepared picture wait for the model in another lane; False if it cannot.
        size: of the pictures, or of the decoder for them if they have been prepared.
        trace: called with what the model predicted.
        clock is the lanes'; wall_clock gives epoch seconds.
        """
        self._models = models
        self._outbox = outbox
        self._metrics = models.metrics
        self._reply_topics = reply_topics
        self._cancelled = cancelled
        self._poison = poison
        self._isolate = isolate
        self._pass_on = pass_on
        self._decode_timeout_s = decode_timeout_s
        self._size = size
        self._trace = trace
        self._recent = RecentReplies()
        self._unsettled: tuple[list[Task], list[Outcome], Serving] | None = None
        self._clock = clock
        self._wall_clock = wall_clock

    def answer(self, batch: Sequence[Queued]) -> None:
        """Every message ends in a reply or a dead letter, or is dropped if nobody waits for it any more.

        What the model says of small pictures is kept until the model works on the next batch, or until
        settle(). Raises ModelUnavailable.
        """
        self._outbox.gather = len(batch) >= _GATHERED_FROM
        with self._models.serving() as serving:
            tasks = self._triage(batch, serving.roster)
            new = [task for task in tasks if not self._answer_from_memory(task)]
            if new and self._size is Size.SMALL:
                self._predict(new, serving)
            elif new:
                self._answer_alone(new[0], serving)

    def settle(self) -> None:
        """Reply to the batch that the model has predicted last, unless that has been done."""
        if self._unsettled is not None:
            unsettled, self._unsettled = self._unsettled, None
            self._outbox.gather = len(unsettled[0]) >= _GATHERED_FROM
            self._finish(*unsettled)

    def refuse(self, deliveries: Iterable[Delivery]) -> None:
        """Answer that the lane of these is full."""
        with self._models.serving() as serving:
            queued = (Queued(delivery, 0.0, 0.0) for delivery in deliveries)
            for task in self._triage(queued, serving.roster):
                self._metrics.ended(Ending.OVERLOADED)
                self._reply(task, Reply(sha256="", error=_OVERLOADED))

    def _triage(self, queued: Iterable[Queued], roster: Roster) -> list[Task]:
        """Settle what needs no model; returns the rest."""
        found = triage(
            queued,
            now_ms=self._wall_clock() * 1000,
            roster=roster,
            reply_topics=self._reply_topics,
            cancelled=self._cancelled,
        )
        self._outbox.drop([*found.expired, *found.cancelled])
        for delivery, reason in found.unusable:
            self._outbox.dead_letter(delivery, reason)
        for delivery, address, failure in found.refused:
            self._outbox.reply(delivery, address, Reply(sha256="", error=failure))
        for ping in found.pings:
            self._reply(ping, reply_to_ping(roster, self._metrics))
        self._metrics.ended(Ending.EXPIRED, len(found.expired))
        self._metrics.ended(Ending.CANCELLED, len(found.cancelled))
        self._metrics.ended(Ending.UNUSABLE, len(found.unusable))
        self._metrics.ended(Ending.REFUSED, len(found.refused))
        return found.work

    def _answer_from_memory(self, task: Task) -> bool:
        """Answer a redelivered request, or a copy of a poison picture, without the model."""
        reply = self._recent.get(task)
        if reply is not None:
            self._metrics.ended(Ending.DUPLICATE)
        elif self._poison.has(task):
            self._metrics.ended(Ending.POISON_AGAIN)
            model = task.model
            reply = Reply(sha256=task.sha256, model=model.name, version=model.version, error=_POISON)
        else:
            return False
        self._reply(task, reply)
        return True

    def _predict(self, work: list[Task], serving: Serving) -> None:
        inputs = [self._file(task, serving.roster) for task in work]
        try:
            predicted = serving.models.predict(inputs, self.settle)
        except ModelDied as error:
            _log.warning("%s while predicting %d pictures; retrying one by one", error, len(inputs))
            self._isolate([task.queued for task in work])
            return
        self._unsettled = work, predicted.outcomes, serving

    def _answer_alone(self, task: Task, serving: Serving) -> None:
        """Prepare the picture, and pass it on; or predict what has been prepared."""
        before = task.queued.prepared
        found: PreparedPicture | Tensor | Outcome | None = None if task.is_outdated else before
        if found is None:
            size = max(self._size, size_of(task.queued.cost_ms))
            found = serving.models.prepare(self._file(task, serving.roster), size, lambda: task.sha256)
            if (
                isinstance(found, PreparedPicture)
                and not before
                and self._pass_on(task.queued.made_into(found, task.sha256))
            ):
                return
        outcome = found if isinstance(found, Outcome) else serving.models.predict_alone(found)
        self._finish([task], [outcome], serving)

    def _finish(self, work: list[Task], found: list[Outcome], serving: Serving) -> None:
        done = [(task, checked(outcome)) for task, outcome in zip(work, found, strict=True)]
        if self._trace is not None and any(task.request.traceparent for task in work):
            self._trace([worked(task, outcome) for task, outcome in done])
        now, now_ms = self._clock(), self._wall_clock() * 1000
        self._metrics.predicted([(task.model, outcome) for task, outcome in done])
        for task, outcome in done:
            at_worker_ms = (now - task.queued.received_at) * 1000
            reply = reply_to(task, outcome, len(done), now_ms - at_worker_ms, at_worker_ms)
            self._settle(task, outcome, reply)
            self._compare(task, outcome, serving)

    def _compare(self, task: Task, outcome: Outcome, serving: Serving) -> None:
        """Have the shadow of the version that has answered, if there is one, say what it makes of it."""
        shadow = serving.roster.shadow_of(task.model)
        if serving.shadow is None or shadow is None or outcome.error is not None:
            return
        if size_of(task.queued.cost_ms) is Size.LARGE:  # it would take a second, and much memory
            self._metrics.compared(shadow, Agreed.SKIPPED)
        else:
            its_input = replace(self._file(task, serving.roster), model=shadow)
            serving.shadow.offer(its_input, said(task.model.labels, outcome))

    def _file(self, task: Task, roster: Roster) -> Picture | Tensor:
        request = task.request
        model = task.model.name, task.model.version
        if request.is_tensor:
            return Tensor(request.body, model)
        return Picture(
            request.body,
            model,
            request.mode,
            with_input=request.explain == "input",
            limit_s=self._decode_timeout_s + _COST_TOLERANCE * task.queued.cost_ms / 1000,
            preparation=None if self._size is Size.SMALL else roster.preparation(task.model),
        )

    def _settle(self, task: Task, outcome: Outcome, reply: Reply) -> None:
        self._recent.keep(task, reply)
        self._metrics.ended(_ENDINGS.get(outcome.error, Ending.UNREADABLE))
        if outcome.error is ErrorCode.INTERNAL:
            self._poison.add(task)
            self._outbox.reply_and_dead_letter(task.delivery, task.address, reply, outcome.detail)
        else:
            self._reply(task, reply)

    def _reply(self, task: Task, reply: Reply) -> None:
        self._outbox.reply(task.delivery, task.address, reply, task.request.deadline_ms)


def reply_to_ping(roster: Roster, metrics: WorkerMetrics) -> Reply:
    default, described = roster.default, roster.described(metrics.agreement)
    return Reply(
        sha256="",
        model=default.name,
        version=default.version,
        models=described,
        unserved=roster.unserved(),
    )


def reply_to(task: Task, outcome: Outcome, batch_size: int, received_ms: float, at_worker_ms: float) -> Reply:
    """received_ms: when it was received, epoch. at_worker_ms: from then until the model was done."""
    model = task.model
    if outcome.error is not None:
        detail = "" if outcome.error is ErrorCode.INTERNAL else outcome.detail
        failure = Failure(outcome.error, detail)
        return Reply(sha256=task.sha256, model=model.name, version=model.version, error=failure)
    sent_ms = task.delivery.timestamp_ms
    return Reply(
        sha256=task.sha256,
        model=model.name,
        version=model.version,
        probabilities=most_probable(model.labels, outcome.probabilities, task.request.top_k),
        outputs=outcome.outputs,
        in_distribution=outcome.in_distribution,
        ood_score=None if outcome.ood_score is None else round(outcome.ood_score, _PROBABILITY_DIGITS),
        mode=outcome.mode,
        warnings=outcome.warnings,
        input=outcome.input,
        timings=Timings(
            queue_ms=max(0.0, received_ms - sent_ms) if sent_ms else 0.0,
            batch_ms=max(0.0, at_worker_ms - outcome.decode_ms - outcome.infer_ms),
            decode_ms=outcome.decode_ms,
            infer_ms=outcome.infer_ms,
            batch_size=batch_size,
        ),
    )


def most_probable(labels: Sequence[str], probabilities: Sequence[float], most: int) -> dict[str, float]:
    """Rounded, by label: all, or the `most` highest, highest first."""
    found: Iterable[tuple[str, float]] = zip(labels, probabilities, strict=True)
    if 0 < most < len(labels):
        found = heapq.nlargest(most, found, key=itemgetter(1))
    return {label: round(probability, _PROBABILITY_DIGITS) for label, probability in found}


def worked(task: Task, outcome: Outcome) -> Worked:
    model = task.model
    return Worked(task.request.traceparent, model.name, model.version, outcome.decode_ms, outcome.infer_ms)


def checked(outcome: Outcome) -> Outcome:
    """The outcome, or an error instead of numbers that gateways reject: they would drop the reply."""
    its = outcome.probabilities
    sound = all(map(math.isfinite, (*its, *outcome.outputs)))
    if sound and its:
        sound = round(min(its), _PROBABILITY_DIGITS) >= 0 and round(max(its), _PROBABILITY_DIGITS) <= 1
    if sound and (outcome.ood_score is None or math.isfinite(outcome.ood_score)):
        return outcome
    detail = (
        f"the model's output is not probabilities: {outcome.probabilities[:3]}, score {outcome.ood_score}"
    )
    return Outcome(error=ErrorCode.INTERNAL, detail=detail)


class RecentReplies:
    """Replies by request, so that a redelivered request is not predicted again. For one thread.

    The same id with another picture is another request, and takes its place.
    """

    def __init__(self, max_bytes: int = _MAX_REPLY_BYTES) -> None:
        self._max_bytes = max_bytes
        self._replies: OrderedDict[Key, tuple[Reply, int]] = OrderedDict()
        self._bytes = 0

    def get(self, task: Task) -> Reply | None:
        """The reply to the same request; None if there was none or it has been forgotten."""
        reply, _ = self._replies.get(_request_key(task), (None, 0))
        return reply if reply is not None and reply.sha256 == task.sha256 else None

    def keep(self, task: Task, reply: Reply) -> None:
        key = _request_key(task)
        _, before = self._replies.pop(key, (None, 0))
        size = _size(key, reply)
        self._replies[key] = reply, size
        self._bytes += size - before
        while self._bytes > self._max_bytes:
            _, (_, its) = self._replies.popitem(last=False)
            self._bytes -= its


class PoisonPictures:
    """Pictures that recently ended a process, so that their copies do not end another. Thread-safe.

    Forgotten after ten minutes, because a process may also be killed for other reasons.
    """

    def __init__(self, max_kept: int = _MAX_POISON, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_kept = max_kept
        self._clock = clock
        self._lock = threading.Lock()
        self._until: OrderedDict[Key, float] = OrderedDict()

    def add(self, task: Task) -> None:
        with self._lock:
            self._until[_picture_key(task)] = self._clock() + _POISON_KEPT_S
            if len(self._until) > self._max_kept:
                self._until.popitem(last=False)

    def has(self, task: Task) -> bool:
        """Whether the same picture, with the same model and mode, recently ended a process."""
        until = self._until.get(_picture_key(task)) if self._until else None
        return until is not None and self._clock() < until


def _request_key(task: Task) -> Key:
    return task.address.reply_to, task.request.correlation_id


def _picture_key(task: Task) -> Key:
    request, model = task.request, task.model
    return model.name, model.version, request.content_type if request.is_tensor else request.mode, task.sha256


def _size(key: Key, reply: Reply) -> int:
    """Approximate memory in bytes. Labels and model names are shared with the model."""
    texts = (*key, reply.sha256, *reply.warnings, reply.error.detail if reply.error else "")
    inputs, answers = len(reply.input or b""), len(reply.probabilities) + len(reply.outputs)
    return _ENTRY_BYTES + sum(map(sys.getsizeof, texts)) + inputs + _LABEL_BYTES * answers
