"""The jobs of one gateway: submitting, watching and cancelling them."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

from gateway import OTHER_STORE, GatewaySettings, JobSettings
from gateway.asked import Deadline
from gateway.errors import GatewayError, JobExpired, Unavailable, UnknownJob
from gateway.jobs import rendering
from gateway.jobs.collector import Collector
from gateway.jobs.rendering import Event, JobDocument, JobList, JobSummary
from gateway.jobs.store import (
    Added,
    Job,
    Progress,
    Result,
    State,
    Store,
    StoreError,
    StoreThreads,
    correlation_id,
    is_id,
    now_ms,
)
from gateway.jobs.submitting import Submission, Submitter
from gateway.request_reply import Requester
from messaging import TopicSettings
from messaging.broker import Broker

_log = logging.getLogger("mlaas.jobs")

_BATCH_S = 0.01
_UNKNOWN = Progress(State.OPEN, -1)


def connect(url: str, timeout_s: float) -> Store:
    """The store at sqlite:///PATH or postgresql://USER:PASSWORD@HOST/DATABASE.

    It connects when first used. Raises StoreError for another scheme, or if psycopg is not installed.
    """
    scheme = urlsplit(url).scheme
    try:
        if scheme == "sqlite":
            from gateway.jobs.sqlite_store import SqliteStore

            return SqliteStore(url.removeprefix("sqlite:///"), timeout_s)
        if scheme in ("postgresql", "postgres"):
            from gateway.jobs.postgresql_store import PostgresqlStore

            return PostgresqlStore(url, timeout_s)
    except ImportError as error:
        raise StoreError(f"{scheme}:// needs psycopg: pip install 'mlaas[postgresql]' ({error})") from error
    raise StoreError(OTHER_STORE)


class Jobs:
    """One per process. Except for the constructor, call it on the event loop only. Raises GatewayError."""

    def __init__(
        self,
        broker: Broker,
        topics: TopicSettings,
        settings: JobSettings,
        gateway: GatewaySettings,
        requester: Requester,
    ) -> None:
        """Raises StoreError; see connect."""
        timeout_s = settings.store_timeout_ms / 1000
        self.settings = settings
        self.gateway = gateway
        self.requester = requester
        self._store: Store = connect(settings.store, timeout_s)
        self._in_thread = StoreThreads(2 * timeout_s)
        self._submitter = Submitter(broker, topics, settings, self._store, self._in_thread, requester)
        self._watcher = Watcher(self._store, self._in_thread, settings.poll_interval_ms / 1000)
        self._collector = Collector(
            broker, topics.job_replies, self._store, settings, self._collected, gateway.instance_id
        )

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._collector.start()
        self._watching = asyncio.create_task(self._watcher.run())

    async def drain(self) -> None:
        """Refuse new jobs, answer waiting clients with the current state, and end event streams."""
        await self._watcher.end()

    async def close(self) -> None:
        await self.drain()
        self._watching.cancel()
        await asyncio.to_thread(self._collector.stop)
        self._in_thread.close()
        await asyncio.to_thread(self._store.close)

    def admit(self) -> None:
        """Raises Unavailable while the gateway shuts down."""
        if self._watcher.ended:
            raise Unavailable("the gateway is shutting down")

    async def submit(self, submission: Submission, deadline: Deadline) -> tuple[JobDocument, bool]:
        """The job, and whether an earlier request with the same key created it. See Submitter.submit."""
        job, results, replayed = await self._submitter.submit(submission, deadline)
        if replayed:
            return await self.document(job.id, submission.owner), replayed
        return rendering.document(job, results), replayed

    async def document(self, job_id: str, owner: str, wait_s: float = 0.0) -> JobDocument:
        """The job as soon as it is over, or as it is after wait_s seconds."""
        with self._watcher.watch(job_id):
            job, results = await self._get(job_id, owner)
            if wait_s and not job.is_over:
                await self._watcher.wait(job_id, job.total - 1, min(wait_s, _left_s(job)))
                job, results = await self._get(job_id, owner)
        return rendering.document(job, results)

    async def of_owner(self, owner: str, most: int, before: str) -> JobList:
        """The owner's jobs, newest first, at most `most`; given `before`, only those older than that one."""
        found = await self._in_thread(self._store.of_owner, owner, now_ms(), most + 1, before)
        jobs = [rendering.summary(job, job.answered) for job in found[:most]]
        return JobList(jobs=jobs, has_more=len(found) > most)

    async def cancel(self, job_id: str, owner: str) -> JobDocument:
        """Keep the finished results and drop the rest. Has no effect on a job that is over."""
        await self.check(job_id, owner)
        await self._in_thread(self._store.cancel, job_id, now_ms())
        job, results = await self._get(job_id, owner)
        if job.state is State.CANCELED:
            left = rendering.unfinished(job, results)
            self.requester.cancel(correlation_id(job.id, index) for index in left)
            self._watcher.touch([job.id])
        return rendering.document(job, results)

    async def check(self, job_id: str, owner: str) -> None:
        """Raises UnknownJob or JobExpired if the owner has no such job."""
        await self._get(job_id, owner)

    async def events(self, job_id: str, owner: str, after: int) -> AsyncIterator[Event | JobSummary | None]:
        """Results as they arrive, skipping the first `after`; None as a heartbeat; the summary at the end.

        If the gateway shuts down, the stream ends without the summary and the client reconnects.
        """
        heartbeat_s = self.settings.heartbeat_ms / 1000
        with self._watcher.watch(job_id):
            while not self._watcher.ended:
                job, news = await self._news(job_id, owner, after)
                for event in news:
                    yield event
                after += len(news)
                if job.is_over:
                    yield rendering.summary(job, job.answered)
                    return
                if not news and job.deadline_ms > now_ms():
                    yield None
                await self._watcher.wait(job_id, after, min(heartbeat_s, _left_s(job)))

    async def _news(self, job_id: str, owner: str, after: int) -> tuple[Job, Sequence[Event]]:
        job, results = await self._get(job_id, owner, after)
        if job.state is not State.EXPIRED:
            return job, rendering.events(job, results, after)
        job, results = await self._get(job_id, owner)
        return job, rendering.events(job, results)[after:]

    async def _get(self, job_id: str, owner: str, after: int = 0) -> tuple[Job, Sequence[Result]]:
        """Raises UnknownJob for another owner's job, too."""
        at_ms = now_ms()
        found = await self._in_thread(self._store.get, job_id, at_ms, after) if is_id(job_id) else None
        if found is None or found[0].owner != owner:
            raise UnknownJob(f"no job {job_id[:40]!r}")
        if found[0].expires_ms <= at_ms:
            raise JobExpired("the job's results were kept until expires_at and have been deleted")
        return found

    def _collected(self, job_ids: Sequence[str], added: Added, unusable: int) -> None:
        """Runs in the collector's thread."""
        metrics = self.requester.metrics
        metrics.job_results.inc(added.stored)
        metrics.job_results_dropped.labels("duplicate").inc(added.duplicates)
        metrics.job_results_dropped.labels("unknown").inc(added.unknown)
        metrics.job_results_dropped.labels("unusable").inc(unusable)
        self._loop.call_soon_threadsafe(self._watcher.touch, job_ids)


class Watcher:
    """Polls the store for all jobs that clients wait for, in one query.

    Jobs that change in this gateway are looked up at once.
    """

    def __init__(self, store: Store, in_thread: StoreThreads, interval_s: float) -> None:
        self._store = store
        self._in_thread = in_thread
        self._interval_s = interval_s
        self._watched: Counter[str] = Counter()
        self._known: dict[str, Progress | GatewayError | None] = {}
        self._touched: set[str] = set()
        self._wake = asyncio.Event()
        self._changed = asyncio.Condition()
        self.ended = False

    async def run(self) -> None:
        """Runs until cancelled."""
        polled_at = 0.0
        while True:
            if not self._watched:
                await self._wake.wait()
            is_due = time.monotonic() - polled_at >= self._interval_s
            await self._poll(list(self._watched if is_due else self._touched & self._watched.keys()))
            polled_at = time.monotonic() if is_due else polled_at
            await asyncio.sleep(_BATCH_S)
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, polled_at + self._interval_s - time.monotonic())):
                    await self._wake.wait()

    async def end(self) -> None:
        """End all waits."""
        self.ended = True
        await self._notify()

    def touch(self, job_ids: Iterable[str]) -> None:
        """Look up these jobs at once if they are watched: they have changed."""
        changed = self._watched.keys() & set(job_ids)
        if changed:
            self._touched |= changed
            self._wake.set()

    @contextmanager
    def watch(self, job_id: str) -> Iterator[None]:
        """Poll the job within this block."""
        self._watched[job_id] += 1
        self._wake.set()
        try:
            yield
        finally:
            self._watched[job_id] -= 1
            if not self._watched[job_id]:
                del self._watched[job_id]
                self._known.pop(job_id, None)

    async def wait(self, job_id: str, seen: int, timeout_s: float) -> None:
        """Return once the job has more than `seen` results, is over or gone, or the timeout passes.

        Also returns when end() is called. Raises GatewayError if the store fails.
        """

        def is_news() -> bool:
            known = self._known.get(job_id, _UNKNOWN)
            if self.ended or not isinstance(known, Progress):
                return True
            return known.state is not State.OPEN or known.completed > seen

        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s), self._changed:
                await self._changed.wait_for(is_news)
            if isinstance(failure := self._known.get(job_id), GatewayError) and not self.ended:
                raise failure

    async def _poll(self, job_ids: list[str]) -> None:
        self._touched.clear()
        self._wake.clear()
        if job_ids:
            known = await self._look_up(job_ids)
            self._known |= {job_id: known[job_id] for job_id in job_ids if job_id in self._watched}
            await self._notify()

    async def _look_up(self, job_ids: list[str]) -> Mapping[str, Progress | GatewayError | None]:
        try:
            found = await self._in_thread(self._store.progress, job_ids)
        except GatewayError as error:
            _log.warning("%s", error)
            return dict.fromkeys(job_ids, error)
        except Exception:  # the task must survive, since other clients wait for it
            _log.exception("looking up jobs failed")
            return dict.fromkeys(job_ids, GatewayError())
        return {job_id: found.get(job_id) for job_id in job_ids}

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()


def _left_s(job: Job) -> float:
    """Seconds until just after the deadline."""
    return max(0.0, job.deadline_ms - now_ms()) / 1000 + 0.005
