"""From a batch of messages to replies."""

import time
from collections.abc import Callable, Container

from messaging.contract import ErrorCode, Reply, sha256_of
from worker.batching import Batch
from worker.isolation import IsolatedModel
from worker.metrics import Ending, WorkerMetrics
from worker.outbox import Outbox
from worker.pipe import Lane, Loaded, Outcome, Picture
from worker.recent import RecentReplies
from worker.replies import checked, reply_to, reply_to_ping
from worker.triage import Task, Triage, triage

# When so many came together, more wait, and throughput counts for more than some milliseconds.
_GATHERED_FROM = 6

_ENDINGS = {None: Ending.ANSWERED, ErrorCode.INTERNAL: Ending.POISON}


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
        lane: Lane = Lane.SMALL,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._model = model
        self._outbox = outbox
        self._metrics = metrics
        self._reply_topics = reply_topics
        self._cancelled = cancelled
        self._lane = lane
        self._recent = RecentReplies()
        self._clock = clock
        self._wall_clock = wall_clock

    def answer(self, batch: Batch) -> None:
        """Every message leads to a reply, a dead letter, or nothing if nobody waits any more.

        Raises ModelUnavailable.
        """
        loaded = self._model.load()
        self._outbox.gather = len(batch.deliveries) >= _GATHERED_FROM
        found = triage(
            batch.deliveries,
            now_ms=self._wall_clock() * 1000,
            loaded=loaded,
            reply_topics=self._reply_topics,
            cancelled=self._cancelled,
        )
        self._settle_without_model(found, loaded)
        digests = ((task, sha256_of(task.request.body)) for task in found.work)
        new = [(task, sha256) for task, sha256 in digests if not self._answer_again(task, sha256)]
        if new:
            self._predict(new, batch.received_at)

    def _settle_without_model(self, found: Triage, loaded: Loaded) -> None:
        self._outbox.drop([*found.expired, *found.cancelled])
        for delivery, reason in found.unusable:
            self._outbox.bury(delivery, reason)
        for delivery, address, failure in found.refused:
            self._outbox.reply(delivery, address, Reply(sha256="", error=failure))
        for ping in found.pings:
            self._outbox.reply(ping.delivery, ping.address, reply_to_ping(loaded), ping.request.deadline_ms)
        self._metrics.ended(Ending.EXPIRED, len(found.expired))
        self._metrics.ended(Ending.CANCELLED, len(found.cancelled))
        self._metrics.ended(Ending.UNUSABLE, len(found.unusable))
        self._metrics.ended(Ending.REFUSED, len(found.refused))

    def _answer_again(self, task: Task, sha256: str) -> bool:
        """A request that is delivered again gets the reply that it had, without the model."""
        reply = self._recent.get(task, sha256)
        if reply is None:
            return False
        self._metrics.ended(Ending.DUPLICATE)
        self._outbox.reply(task.delivery, task.address, reply, task.request.deadline_ms)
        return True

    def _predict(self, work: list[tuple[Task, str]], received_at: float) -> None:
        predicted = self._model.predict([_picture(task) for task, _ in work], self._lane)
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
            self._outbox.reply_and_bury(task.delivery, task.address, reply, outcome.detail)
        else:
            self._outbox.reply(task.delivery, task.address, reply, task.request.deadline_ms)


def _picture(task: Task) -> Picture:
    request = task.request
    return Picture(request.body, task.model.name, request.mode, request.explain == "input")
