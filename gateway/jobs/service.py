"""All that a gateway has to do with jobs."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence

from gateway.deadline import Deadline
from gateway.errors import JobExpired, Unavailable, UnknownJob
from gateway.jobs import rendering
from gateway.jobs.calls import Calls
from gateway.jobs.collector import Collector
from gateway.jobs.connect import connect
from gateway.jobs.job import Job, Result, State, correlation_id, is_id
from gateway.jobs.rendering import Document, Event
from gateway.jobs.settings import JobSettings
from gateway.jobs.store import Added, Progress, Store
from gateway.jobs.submitting import Submission, Submitting
from gateway.jobs.watching import Watching
from gateway.request_reply import Requester
from messaging.broker import Broker
from messaging.settings import TopicSettings


class Jobs:
    """One per process. Its methods belong to the event loop that start() ran in, and raise GatewayError."""

    def __init__(
        self,
        broker: Broker,
        topics: TopicSettings,
        settings: JobSettings,
        requester: Requester,
        instance_id: str = "",
    ) -> None:
        """instance_id: see Collector. Raises StoreError for a store that cannot be."""
        timeout_s = settings.store_timeout_ms / 1000
        self._settings = settings
        self._requester = requester
        self._store: Store = connect(settings.store, timeout_s)
        self._calls = Calls(2 * timeout_s)
        self._submitting = Submitting(broker, topics, settings, self._store, self._calls, requester)
        self._watching = Watching(self._store, self._calls, settings.poll_interval_ms / 1000)
        self._collector = Collector(
            broker, topics.job_replies, self._store, settings, self._collected, instance_id
        )

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._collector.start()
        self._watch = asyncio.create_task(self._watching.run())

    async def drain(self) -> None:
        """Take nothing new. Who waits gets what there is; event streams end."""
        await self._watching.end()

    async def close(self) -> None:
        await self.drain()
        self._watch.cancel()
        await asyncio.to_thread(self._collector.stop)
        self._calls.close()
        await asyncio.to_thread(self._store.close)

    def admit(self) -> None:
        if self._watching.ended:
            raise Unavailable("the gateway is shutting down")

    async def submit(self, submission: Submission, deadline: Deadline) -> tuple[str, Document, bool]:
        """The job's id, the job, and whether it was there before; see Submitting.submit."""
        job, results, again = await self._submitting.submit(submission, deadline)
        if again:
            return job.id, await self.document(job.id, submission.owner), again
        return job.id, rendering.document(job, results), again

    async def document(self, job_id: str, owner: str, wait_s: float = 0.0) -> Document:
        """The job as it is when it is over, or after wait_s."""
        with self._watching.of(job_id):
            job, results = await self._get(job_id, owner)
            if wait_s and not job.is_over:
                await self._watching.until(job_id, _over(job.total), min(wait_s, _left_s(job)))
                job, results = await self._get(job_id, owner)
        return rendering.document(job, results)

    async def cancel(self, job_id: str, owner: str) -> Document:
        """What is finished stays. A job that is over stays what it is."""
        job, _ = await self._get(job_id, owner)
        await self._calls(self._store.cancel, job.id, _now_ms())
        job, results = await self._get(job_id, owner)
        if job.state is State.CANCELED:
            left = rendering.unfinished(job, results)
            self._requester.cancel(correlation_id(job.id, index) for index in left)
            self._watching.touched([job.id])
        return rendering.document(job, results)

    async def check(self, job_id: str, owner: str) -> None:
        """Whether there is such a job."""
        await self._get(job_id, owner)

    async def events(self, job_id: str, owner: str, after: int) -> AsyncIterator[Event | Document | None]:
        """Results as they come, without the first so many; None for each heartbeat; last the job's summary.

        Ends without one if the gateway closes, or the store is away: come again.
        """
        heartbeat_s = self._settings.heartbeat_ms / 1000
        with self._watching.of(job_id):
            while not self._watching.ended:
                job, news = await self._news(job_id, owner, after)
                for event in news:
                    yield event
                after += len(news)
                if job.is_over:
                    yield rendering.summary(job, job.total if job.state is State.EXPIRED else job.completed)
                    return
                if not news and job.deadline_ms > _now_ms():
                    yield None
                await self._watching.until(job_id, _more_than(after), min(heartbeat_s, _left_s(job)))

    async def _news(self, job_id: str, owner: str, after: int) -> tuple[Job, Sequence[Event]]:
        job, results = await self._get(job_id, owner, after)
        if job.state is not State.EXPIRED:
            return job, rendering.events(job, results, after)
        job, results = await self._get(job_id, owner)
        return job, rendering.events(job, results)[after:]

    async def _get(self, job_id: str, owner: str, after: int = 0) -> tuple[Job, Sequence[Result]]:
        """Another's job is as one that is not there."""
        now_ms = _now_ms()
        found = await self._calls(self._store.get, job_id, now_ms, after) if is_id(job_id) else None
        if found is None or found[0].owner != owner:
            raise UnknownJob(f"no job {job_id[:40]!r}")
        if found[0].expires_ms <= now_ms:
            raise JobExpired("the job's results were kept until its expires_at, and are deleted")
        return found

    def _collected(self, job_ids: Sequence[str], added: Added, unusable: int) -> None:
        """Called from the collector's thread."""
        metrics = self._requester.metrics
        metrics.job_results.inc(added.stored)
        metrics.job_results_dropped.labels("duplicate").inc(added.duplicates)
        metrics.job_results_dropped.labels("unknown").inc(added.unknown)
        metrics.job_results_dropped.labels("unusable").inc(unusable)
        self._loop.call_soon_threadsafe(self._watching.touched, job_ids)


def _over(total: int) -> Callable[[Progress | None], bool]:
    def is_over(progress: Progress | None) -> bool:
        return progress is None or progress.state is not State.OPEN or progress.completed >= total

    return is_over


def _more_than(seen: int) -> Callable[[Progress | None], bool]:
    def has_more(progress: Progress | None) -> bool:
        return progress is None or progress.state is not State.OPEN or progress.completed > seen

    return has_more


def _left_s(job: Job) -> float:
    """Until the deadline, and a moment."""
    return max(0.0, job.deadline_ms - _now_ms()) / 1000 + 0.005


def _now_ms() -> int:
    return int(time.time() * 1000)
