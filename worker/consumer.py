"""The consumer process: one thread receives messages, and one per size of picture answers them."""

import logging
import math
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from messaging import Queue, TopicSettings, codec
from messaging.broker import Broker, BrokerError, ClientBroken, Delivery, Inbox, Retries
from messaging.contract import ContractError
from messaging.picture_header import Size
from messaging.tracing import Worked
from worker import WorkerSettings
from worker.answering import Answerer, PoisonPictures
from worker.batching import Lane, Lanes
from worker.metrics import Origin
from worker.outbox import Outbox
from worker.rollout import Rollout

_log = logging.getLogger("mlaas.worker")

_WAIT_S = 0.2
_RETRY_S = 0.5
_GATHER_S = 0.003
_LAG_EVERY_S = 1.0

# While waiting for requests, the intake does not notice pictures of jobs. It waits longer while none come.
_WAIT_FOR_REQUESTS_S = 0.05
_NO_JOBS_S = 1.0

_MAX_CANCELLED_BYTES = 16_777_216  # 16 MiB: 70,000 ids of gateways
_CANCELLED_ENTRY_BYTES = 150  # measured: a string's header and its entry in the dictionary
_CANCELLED_RETRY_S = 1.0


class Consumer:
    """Serves one queue until it is stopped or cannot go on."""

    def __init__(
        self,
        broker: Broker,
        topics: TopicSettings,
        queue: Queue,
        settings: WorkerSettings,
        models: Rollout,
        max_pixels: int,
        trace: Callable[[Sequence[Worked]], None] | None = None,
    ) -> None:
        """trace: called with each batch that a model has predicted."""
        self.metrics = models.metrics
        self.metrics.watch_frames(broker.frame_counts)
        self._broker = broker
        self._topics = topics
        self._queue = queue
        self._settings = settings
        self._models = models
        self._trace = trace
        self._stopping = threading.Event()
        self._retries = Retries(
            "receive requests", _log, _RETRY_S, self._stopping, on_failure=lambda _: self._beat()
        )
        self._poison = PoisonPictures()
        self._lanes = Lanes(
            queue.jobs,
            max_batch_size=settings.max_batch_size,
            max_batch_wait_s=settings.max_batch_wait_ms / 1000,
            max_waiting_cost_ms=settings.max_waiting_cost_ms,
            max_waiting_bytes=settings.max_waiting_bytes,
            max_pixels=max_pixels,
        )
        self._lag_due_at = 0.0
        self._failure: BaseException | None = None

    def stop(self) -> None:
        """Finish the batches in hand, then return from run(). Safe in a signal handler."""
        self._stopping.set()

    def run(self) -> None:
        """Load and warm the models, join the group, serve.

        Raises ModelUnavailable, ClientBroken, or whatever else ended a thread.
        """
        if self._settings.heartbeat_file:
            Path(self._settings.heartbeat_file).unlink(missing_ok=True)  # of a process that has ended
        try:
            self._models.load()
            intake = self._subscribe()
            if intake is not None:
                self._models.watch()
                self._serve(intake)
        finally:
            self._broker.close()
            self._models.close()
        if self._failure is not None:
            raise self._failure

    def _subscribe(self) -> "Intake | None":
        """Retries until the broker and the topics are available; None if stopped first."""
        settings = self._settings
        return self._retries.until_success(
            lambda: Intake(self._broker, self._queue, settings.group, settings.instance_id)
        )

    def _serve(self, intake: "Intake") -> None:
        cancelled = Cancelled()
        listener = CancellationListener(self._broker, self._topics.cancellations, cancelled)
        listener.start()
        predictors = {
            lane: threading.Thread(
                target=self._predict, args=[lane, size, intake, cancelled], name="predictor"
            )
            for lane, size in self._lanes.in_order()
        }
        receiver = self._answerer(Size.SMALL, intake, cancelled)
        for predictor in predictors.values():
            predictor.start()
        try:
            while not self._stopping.is_set():
                self._beat()
                self._measure_lag(intake, time.monotonic())
                self._receive(intake, receiver)
        finally:
            for lane, predictor in predictors.items():
                lane.close()
                predictor.join()
            listener.stop()
            self._broker.close()  # flushes replies, so that they are acknowledged before leaving the group
            intake.close()

    def _receive(self, intake: "Intake", receiver: Answerer) -> None:
        """Receive at once while the model is idle, and every few milliseconds while it is busy.

        Larger pictures, however many are queued, never keep small ones from being received.
        """
        small = self._lanes.small
        if not small.is_empty():
            small.wait_until_taken(_GATHER_S)
        room = small.wait_for_room(_WAIT_S)
        if not room:
            return
        timeout = _WAIT_S if small.is_empty() else 0
        max_jobs = self._lanes.room_for_jobs(self._settings.max_jobs_in_batch)
        try:
            if deliveries := intake.receive(room, timeout, max_jobs):
                self._retries.succeeded()
                self._count(deliveries, time.time())
                if rejected := self._lanes.add(deliveries):
                    receiver.refuse(rejected)
        except ClientBroken as error:
            self._fail(error)
        except BrokerError as error:
            self._retries.failed(error)

    def _count(self, deliveries: Iterable[Delivery], now: float) -> None:
        """now: epoch seconds."""
        for each in deliveries:
            if each.timestamp_ms:
                origin = Origin.JOBS if each.topic == self._queue.jobs else Origin.REQUESTS
                self.metrics.received(origin, now - each.timestamp_ms / 1000)

    def _measure_lag(self, intake: "Intake", now: float) -> None:
        """At most once a second. now: monotonic seconds."""
        if now >= self._lag_due_at:
            self._lag_due_at = now + _LAG_EVERY_S
            self.metrics.behind(intake.lag())

    def _predict(self, lane: Lane, size: Size, intake: "Intake", cancelled: "Cancelled") -> None:
        """The life of a predictor thread. Any exception ends the process, which is of no use without it."""
        try:
            answerer = self._answerer(size, intake, cancelled)
            while True:
                batch = lane.take_ready()
                if batch is None:
                    answerer.settle()
                    batch = lane.take()
                if batch is None:
                    return
                answerer.answer(batch)
        except BaseException as error:
            self._fail(error)

    def _answerer(self, size: Size, intake: "Intake", cancelled: "Cancelled") -> Answerer:
        return Answerer(
            self._models,
            Outbox(self._broker, intake.acknowledge, self._topics.dead_letters, self._fail),
            reply_topics={self._topics.replies, self._topics.job_replies, *self._settings.more_reply_topics},
            cancelled=cancelled,
            poison=self._poison,
            isolate=self._lanes.isolate,
            pass_on=self._lanes.pass_on,
            decode_timeout_s=self._settings.decode_timeout_ms / 1000,
            size=size,
            trace=self._trace,
        )

    def _fail(self, error: BaseException) -> None:
        """End the process. Messages that it has not acknowledged are delivered to another worker."""
        self._failure = error
        self._stopping.set()

    def _beat(self) -> None:
        """Touch the file whose age a liveness probe checks."""
        if self._settings.heartbeat_file:
            Path(self._settings.heartbeat_file).touch()


class Intake:
    """The subscriptions to requests and to jobs as one, so that neither waits behind a backlog of the other.

    They are two consumers: a single one would mostly fetch from the longer topic.
    """

    def __init__(
        self,
        broker: Broker,
        queue: Queue,
        group: str,
        instance_id: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Raises BrokerError."""
        self._clock = clock
        self._had_job_at = -math.inf
        self._jobs_topic = queue.jobs
        of_requests, of_jobs = queue.groups(group)
        self._requests = broker.subscribe(queue.requests, of_requests, instance_id)
        try:
            self._jobs = broker.subscribe(queue.jobs, of_jobs, instance_id)
        except BrokerError:
            self._requests.close()
            raise

    def receive(self, max_messages: int, timeout: float, max_jobs: int) -> Sequence[Delivery]:
        """Up to max_jobs pictures of jobs, at most half of max_messages, and requests for the rest.

        Waits as Subscription.receive, but not for requests if there are jobs. If only one message may be
        taken, a request goes before a job.
        """
        share = min(max_jobs, max_messages // 2)
        jobs = list(self._jobs.receive(share, 0)) if share else []
        now = self._clock()
        if jobs:
            self._had_job_at = now
        longest_s = _WAIT_FOR_REQUESTS_S if now - self._had_job_at < _NO_JOBS_S else timeout
        wait_s = 0 if jobs else min(timeout, longest_s)
        try:
            requests = self._requests.receive(max_messages - len(jobs), wait_s)
            if requests or share or not max_jobs:
                return [*requests, *jobs]
            return self._jobs.receive(min(max_jobs, max_messages), 0)
        except ClientBroken:
            raise
        except BrokerError:
            if jobs:
                return jobs  # they are not delivered again while this consumer is in its group
            raise

    def lag(self) -> Mapping[Origin, int]:
        """See Subscription.lag."""
        return {Origin.REQUESTS: self._requests.lag(), Origin.JOBS: self._jobs.lag()}

    def acknowledge(self, deliveries: Iterable[Delivery]) -> None:
        deliveries = list(deliveries)
        self._jobs.acknowledge(each for each in deliveries if each.topic == self._jobs_topic)
        self._requests.acknowledge(each for each in deliveries if each.topic != self._jobs_topic)

    def close(self) -> None:
        self._requests.close()
        self._jobs.close()


class Cancelled:
    """The most recent cancelled correlation ids. One thread adds, others look up."""

    def __init__(self, max_bytes: int = _MAX_CANCELLED_BYTES) -> None:
        self._max_bytes = max_bytes
        self._ids: dict[str, int] = {}
        self._bytes = 0

    def __contains__(self, correlation_id: object) -> bool:
        return correlation_id in self._ids

    def add(self, correlation_ids: Iterable[str]) -> None:
        for correlation_id in correlation_ids:
            if correlation_id not in self._ids:
                self._ids[correlation_id] = size = sys.getsizeof(correlation_id) + _CANCELLED_ENTRY_BYTES
                self._bytes += size
        while self._bytes > self._max_bytes:
            self._bytes -= self._ids.pop(next(iter(self._ids)))


class CancellationListener:
    """Reads cancellations in a thread of its own. Those it misses only cost needless work."""

    def __init__(self, broker: Broker, topic: str, cancelled: "Cancelled") -> None:
        self._broker = broker
        self._topic = topic
        self._cancelled = cancelled
        self._stopping = threading.Event()
        self._retries = Retries("read cancellations", _log, _CANCELLED_RETRY_S, self._stopping)
        self._thread = threading.Thread(target=self._run, name="cancellations", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        inbox = self._retries.until_success(lambda: self._broker.listen(self._topic))
        if inbox is None:
            return
        while not self._stopping.is_set():
            self._read(inbox)
        inbox.close()

    def _read(self, inbox: Inbox) -> None:
        try:
            messages = inbox.receive(100, 0.2)
        except BrokerError as error:
            self._retries.failed(error)
            return
        for message in messages:
            self._retries.succeeded()
            try:
                self._cancelled.add(codec.decode_cancellation(message))
            except ContractError as error:
                _log.warning("%s", error)
