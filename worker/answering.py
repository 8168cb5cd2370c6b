"""From a batch of messages to replies."""

import logging
import time
from collections.abc import Callable, Container, Iterable, Sequence

from messaging.broker import Delivery
from messaging.contract import ErrorCode, Failure, Reply, sha256_of
from messaging.picture_header import Size
from worker.batching import Batch, Waiting
from worker.metrics import Ending, WorkerMetrics
from worker.model_process import IsolatedModel, ModelDied
from worker.outbox import Outbox
from worker.pipe import Loaded, Outcome, Picture
from worker.recent import Culprits, RecentReplies
from worker.replies import checked, reply_to, reply_to_ping
from worker.triage import Task, Triage, triage

# When so many came together, more wait, and throughput counts for more than some milliseconds.
_GATHERED_FROM = 6

# The estimate of the header is of one machine, and there are slower ones.
_TIMES_ITS_COST = 10

_ENDINGS = {None: Ending.ANSWERED, ErrorCode.INTERNAL: Ending.POISON}
_OVERLOADED = Failure(ErrorCode.OVERLOADED, "too many pictures that take long to decode are waiting")
_KNOWN_CULPRIT = Failure(ErrorCode.INTERNAL, "")

_log = logging.getLogger("mlaas.worker")


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
