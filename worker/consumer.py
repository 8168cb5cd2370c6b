"""The consumer process: one thread receives the next batches while others have the model work on these."""

import logging
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path

from messaging.broker import Broker, BrokerError, ClientBroken, Delivery, Subscription
from messaging.picture_header import Size
from messaging.settings import TopicSettings
from worker.answering import Answerer, Culprits
from worker.batching import Lanes
from worker.cancelled import CancellationListener, Cancelled
from worker.metrics import WorkerMetrics
from worker.model_process import IsolatedModel
from worker.outbox import Outbox
from worker.settings import WorkerSettings

# As long as neither was there: how late a job's picture may be noticed.
_LONGEST_WAIT_S = 0.05

_log = logging.getLogger("mlaas.worker")

_PATIENCE_S = 0.2
_RETRY_S = 0.5
_TOP_UP_S = 0.003


class Intake:
    """Two subscriptions as one. Jobs have a share of what is taken, and requests all that is left.

    So neither waits behind the other. One client that reads both topics fetches most of the longer one.
    """

    def __init__(self, broker: Broker, requests: str, jobs: str, group: str, instance_id: str) -> None:
        """Raises BrokerError."""
        self._jobs_topic = jobs
        self._requests = broker.subscribe(requests, group, instance_id)
        try:
            self._jobs: Subscription = broker.subscribe(jobs, f"{group}.jobs", instance_id)
        except BrokerError:
            self._requests.close()
            raise

    def receive(self, max_messages: int, timeout: float, most_jobs: int) -> Sequence[Delivery]:
        """As Subscription.receive; where there are jobs, it does not wait for requests.

        Of less than two messages requests are the first.
        """
        share = min(most_jobs, max_messages // 2)
        jobs = list(self._jobs.receive(share, 0)) if share else []
        wait_s = 0 if jobs else min(timeout, _LONGEST_WAIT_S)
        try:
            requests = self._requests.receive(max_messages - len(jobs), wait_s)
            if requests or share or not most_jobs:
                return [*requests, *jobs]
            return self._jobs.receive(min(most_jobs, max_messages), 0)
        except ClientBroken:
            raise
        except BrokerError:
            if jobs:
                return jobs  # they would not come again before this client leaves
            raise

    def acknowledge(self, deliveries: Iterable[Delivery]) -> None:
        ours = list(deliveries)
        self._jobs.acknowledge(delivery for delivery in ours if delivery.topic == self._jobs_topic)
        self._requests.acknowledge(delivery for delivery in ours if delivery.topic != self._jobs_topic)

    def close(self) -> None:
        self._requests.close()
        self._jobs.close()


class Consumer:
    """Serves until told to stop, or until its model cannot be had any more."""

    def __init__(
        self,
        broker: Broker,
        topics: TopicSettings,
        settings: WorkerSettings,
        model: IsolatedModel,
        max_pixels: int,
    ) -> None:
        self.metrics = WorkerMetrics()
        self.metrics.watch_starts(lambda: model.starts, lambda: model.decoder_starts)
        self._broker = broker
        self._topics = topics
        self._settings = settings
        self._model = model
        self._stopping = threading.Event()
        self._culprits = Culprits()
        self._lanes = Lanes(
            topics.jobs,
            max_batch_size=settings.max_batch_size,
            max_batch_wait_s=settings.max_batch_wait_ms / 1000,
            max_waiting_cost_ms=settings.max_waiting_cost_ms,
            max_waiting_bytes=settings.max_waiting_bytes,
            max_pixels=max_pixels,
        )
        self._failure: BaseException | None = None
        self._lost = False

    def stop(self) -> None:
        """Finish the batches in hand. Safe in a signal handler."""
        self._stopping.set()

    def run(self) -> None:
        """Load and warm the models, join the group, serve. Raises ModelUnavailable."""
        try:
            loaded = self._model.load()
            for model in loaded.models:
                _log.info("%s %s (%s) is warm", model.name, model.version, model.runtime)
            intake = self._subscribe()
            if intake is not None:
                self._serve(intake)
        finally:
            self._broker.close()
            self._model.close()
        if self._failure is not None:
            raise self._failure

    def _subscribe(self) -> Intake | None:
        """As soon as the broker and the topics are there; None if stopped before."""
        while not self._stopping.is_set():
            try:
                return Intake(
                    self._broker,
                    self._topics.requests,
                    self._topics.jobs,
                    self._settings.group,
                    self._settings.instance_id,
                )
            except BrokerError as error:
                if not self._lost:
                    _log.warning("%s; trying until it is there", error)
                self._lost = True
                self._beat()
                self._stopping.wait(_RETRY_S)
        return None

    def _serve(self, intake: Intake) -> None:
        cancelled = Cancelled()
        listener = CancellationListener(self._broker, self._topics.cancellations, cancelled)
        listener.start()
        thinkers = {
            size: threading.Thread(
                target=self._think, args=[size, intake, cancelled], name=f"thinker-{size.name}"
            )
            for size in Size
        }
        receiver = self._answerer(Size.SMALL, intake, cancelled)
        for thinker in thinkers.values():
            thinker.start()
        try:
            while not self._stopping.is_set():
                self._beat()
                self._receive(intake, receiver)
        finally:
            for size, thinker in thinkers.items():  # small ones first: theirs may go one by one
                self._lanes.of(size).close()
                thinker.join()
            listener.stop()
            self._broker.close()  # sends what is waiting, so that it is acknowledged before leaving the group
            intake.close()

    def _receive(self, intake: Intake, receiver: Answerer) -> None:
        """At once what comes to an idle model; what comes to a busy one, every few milliseconds together.

        However many large pictures wait, small ones are received.
        """
        if not self._lanes.small.is_empty():
            self._lanes.small.wait_until_taken(_TOP_UP_S)
        room = self._lanes.small.wait_for_room(_PATIENCE_S)
        if not room:
            return
        try:
            patience_s = _PATIENCE_S if self._lanes.small.is_empty() else 0
            most_jobs = self._lanes.most_jobs(self._settings.max_jobs_in_batch)
            if deliveries := intake.receive(room, patience_s, most_jobs):
                self._lost = False
                if left := self._lanes.add(deliveries):
                    receiver.refuse(left)
        except ClientBroken as error:
            self._fail(error)
        except BrokerError as error:
            if not self._lost:
                _log.warning("receiving: %s", error)
            self._lost = True
            self._stopping.wait(_RETRY_S)

    def _think(self, size: Size, intake: Intake, cancelled: Cancelled) -> None:
        """A thread's whole life. Whatever ends it early ends the process: a dead loop is not healthy."""
        try:
            if size is not Size.SMALL:
                self._model.start_decoder(size)
            answerer, lane = self._answerer(size, intake, cancelled), self._lanes.of(size)
            while (batch := lane.take()) is not None:
                answerer.answer(batch)
        except BaseException as error:
            self._fail(error)

    def _answerer(self, size: Size, intake: Intake, cancelled: Cancelled) -> Answerer:
        return Answerer(
            self._model,
            Outbox(self._broker, intake.acknowledge, self._topics.dead_letters, self._fail),
            self.metrics,
            reply_topics={self._topics.replies, self._topics.job_replies, *self._settings.more_reply_topics},
            cancelled=cancelled,
            culprits=self._culprits,
            one_by_one=self._lanes.one_by_one,
            decode_timeout_s=self._settings.decode_timeout_ms / 1000,
            size=size,
        )

    def _fail(self, error: BaseException) -> None:
        """Ends the process: what it has in hand comes to another."""
        self._failure = error
        self._stopping.set()

    def _beat(self) -> None:
        """A probe looks at the age of this file: the loop turns several times a second."""
        if self._settings.heartbeat_file:
            Path(self._settings.heartbeat_file).touch()
