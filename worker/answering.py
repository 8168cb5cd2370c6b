"""From a batch of messages to replies."""

import time
from collections.abc import Callable, Container

from messaging.contract import ErrorCode, Reply
from worker.batching import Batch
from worker.isolation import IsolatedModel
from worker.outbox import Outbox
from worker.pipe import Picture
from worker.replies import reply_to, reply_to_ping
from worker.triage import Task, triage


class Answerer:
    """Used by one thread. Both clocks give seconds; the wall clock's are comparable between machines."""

    def __init__(
        self,
        model: IsolatedModel,
        outbox: Outbox,
        reply_topics: Container[str],
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._model = model
        self._outbox = outbox
        self._reply_topics = reply_topics
        self._clock = clock
        self._wall_clock = wall_clock

    def answer(self, batch: Batch) -> None:
        """Every message leads to a reply, a dead letter, or nothing if nobody waits any more.

        Raises ModelUnavailable.
        """
        found = triage(
            batch.deliveries,
            now_ms=self._wall_clock() * 1000,
            loaded=self._model.load(),
            reply_topics=self._reply_topics,
        )
        self._outbox.drop(found.expired)
        for delivery, reason in found.unusable:
            self._outbox.bury(delivery, reason)
        for delivery, address, failure in found.refused:
            self._outbox.reply(delivery, address, Reply(sha256="", error=failure))
        for ping in found.pings:
            self._outbox.reply(
                ping.delivery, ping.address, reply_to_ping(ping.model), ping.request.deadline_ms
            )
        if found.work:
            self._predict(found.work, batch.received_at)

    def _predict(self, work: list[Task], received_at: float) -> None:
        outcomes = self._model.predict([_picture(task) for task in work]).outcomes
        at_worker_ms = (self._clock() - received_at) * 1000
        received_ms = self._wall_clock() * 1000 - at_worker_ms
        for task, outcome in zip(work, outcomes, strict=True):
            reply = reply_to(task, outcome, len(outcomes), received_ms, at_worker_ms)
            if outcome.error is ErrorCode.INTERNAL:
                self._outbox.reply_and_bury(task.delivery, task.address, reply, outcome.detail)
            else:
                self._outbox.reply(task.delivery, task.address, reply, task.request.deadline_ms)


def _picture(task: Task) -> Picture:
    request = task.request
    return Picture(request.body, task.model.name, request.mode, request.explain == "input")
