"""Jobs as the routes use them: taking them, telling of them, cancelling them."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from urllib.parse import urlsplit

from gateway.asked import Deadline
from gateway.errors import GatewayError, JobExpired, Unavailable, UnknownJob
from gateway.jobs import rendering
from gateway.jobs.collector import Collector
from gateway.jobs.job import Job, Result, State, correlation_id, is_id
from gateway.jobs.rendering import Event, JobDocument, JobSummary
from gateway.jobs.store import Added, Calls, Progress, Store, StoreError
from gateway.jobs.submitting import Submission, Submitting
from gateway.request_reply import Requester
from gateway.settings import OTHER_STORE, GatewaySettings, JobSettings
from messaging.broker import Broker
from messaging.settings import TopicSettings

_log = logging.getLogger("mlaas.jobs")

_GATHER_S = 0.01
_NOTHING = Progress(State.OPEN, -1)  # of a job that was not looked up yet


def connect(url: str, timeout_s: float) -> Store:
    """Choose the store by the URL: sqlite:///PATH or postgresql://USER:PASSWORD@HOST/DATABASE.

    Its client library is imported here and nowhere else; it connects when it is first used. Raises StoreError
    if the library is not installed, or for another scheme.
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
    """One per process. Its methods belong to the event loop that start() ran in, and raise GatewayError."""

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
        self._requester = requester
        self._store: Store = connect(settings.store, timeout_s)
        self._calls = Calls(2 * timeout_s)
        self._submitting = Submitting(broker, topics, settings, self._store, self._calls, requester)
        self._watching = Watching(self._store, self._calls, settings.poll_interval_ms / 1000)
        self._collector = Collector(
            broker, topics.job_replies, self._store, settings, self._collected, gateway.instance_id
        )

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._collector.start()
        self._watch = asyncio.create_task(self._watching.run())

    async def drain(self) -> None:
        """Take nothing new. Whoever waits is told what is known; event streams end."""
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

    async def submit(self, submission: Submission, deadline: Deadline) -> tuple[JobDocument, bool]:
        """The job, and whether an earlier request made it; see Submitting.submit."""
        job, results, again = await self._submitting.submit(submission, deadline)
        if again:
            return await self.document(job.id, submission.owner), again
        return rendering.document(job, results), again

    async def document(self, job_id: str, owner: str, wait_s: float = 0.0) -> JobDocument:
        """The job as it is once it is over, or after wait_s."""
        with self._watching.of(job_id):
            job, results = await self._get(job_id, owner)
            if wait_s and not job.is_over:
                await self._watching.until(job_id, _over(job.total), min(wait_s, _left_s(job)))
                job, results = await self._get(job_id, owner)
        return rendering.document(job, results)

    async def cancel(self, job_id: str, owner: str) -> JobDocument:
        """Keep what is finished. A job that is over stays as it is."""
        job, _ = await self._get(job_id, owner)
        await self._calls(self._store.cancel, job.id, _now_ms())
        job, results = await self._get(job_id, owner)
        if job.state is State.CANCELED:
            left = rendering.unfinished(job, results)
            self._requester.cancel(correlation_id(job.id, index) for index in left)
            self._watching.touched([job.id])
        return rendering.document(job, results)

    async def check(self, job_id: str, owner: str) -> None:
        """Raises UnknownJob or JobExpired if there is nothing to tell of."""
        await self._get(job_id, owner)

    async def events(self, job_id: str, owner: str, after: int) -> AsyncIterator[Event | JobSummary | None]:
        """Results as they come, without the first `after`; None for a heartbeat; last the job's summary.

        Ends without the summary if the gateway closes or the store is away: the client comes again.
        """
        heartbeat_s = self.settings.heartbeat_ms / 1000
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
        """Another owner's job is unknown."""
        now_ms = _now_ms()
        found = await self._calls(self._store.get, job_id, now_ms, after) if is_id(job_id) else None
        if found is None or found[0].owner != owner:
            raise UnknownJob(f"no job {job_id[:40]!r}")
        if found[0].expires_ms <= now_ms:
            raise JobExpired("the job's results were kept until expires_at and have been deleted")
        return found

    def _collected(self, job_ids: Sequence[str], added: Added, unusable: int) -> None:
        """Called from the collector's thread."""
        metrics = self._requester.metrics
        metrics.job_results.inc(added.stored)
        metrics.job_results_dropped.labels("duplicate").inc(added.duplicates)
        metrics.job_results_dropped.labels("unknown").inc(added.unknown)
        metrics.job_results_dropped.labels("unusable").inc(unusable)
        self._loop.call_soon_threadsafe(self._watching.touched, job_ids)


class Watching:
    """One task looks up all jobs that somebody waits for at intervals, and at once those changed here.

    Belongs to the event loop.
    """

    def __init__(self, store: Store, calls: Calls, interval_s: float) -> None:
        self._store = store
        self._calls = calls
        self._interval_s = interval_s
        self._waiting: Counter[str] = Counter()
        self._known: dict[str, Progress | GatewayError | None] = {}
        self._touched: set[str] = set()
        self._wake = asyncio.Event()
        self._changed = asyncio.Condition()
        self.ended = False

    async def run(self) -> None:
        """Until cancelled."""
        asked_all_at = 0.0
        while True:
            if not self._waiting:
                await self._wake.wait()
            is_due = time.monotonic() - asked_all_at >= self._interval_s
            await self._ask(list(self._waiting if is_due else self._touched & self._waiting.keys()))
            asked_all_at = time.monotonic() if is_due else asked_all_at
            await asyncio.sleep(_GATHER_S)
            await self._woken(asked_all_at + self._interval_s - time.monotonic())

    async def end(self) -> None:
        """End all waiting."""
        self.ended = True
        await self._tell()

    def touched(self, job_ids: Iterable[str]) -> None:
        """Look these up at once: they have changed."""
        new = self._waiting.keys() & set(job_ids)
        if new:
            self._touched |= new
            self._wake.set()

    @contextmanager
    def of(self, job_id: str) -> Iterator[None]:
        """Look the job up at intervals within this block."""
        self._waiting[job_id] += 1
        self._wake.set()
        try:
            yield
        finally:
            self._waiting[job_id] -= 1
            if not self._waiting[job_id]:
                del self._waiting[job_id]
                self._known.pop(job_id, None)

    async def until(
        self, job_id: str, is_enough: Callable[[Progress | None], bool], timeout_s: float
    ) -> None:
        """Return when is_enough of the job's progress (None: no such job), in time, or when all waiting ends.

        Raises GatewayError if the store cannot be asked.
        """

        def is_over() -> bool:
            known = self._known.get(job_id, _NOTHING)
            return (
                self.ended or isinstance(known, GatewayError) or (known is not _NOTHING and is_enough(known))
            )

        try:
            async with asyncio.timeout(timeout_s), self._changed:
                await self._changed.wait_for(is_over)
        except TimeoutError:
            return
        if isinstance(failure := self._known.get(job_id), GatewayError) and not self.ended:
            raise failure

    async def _ask(self, job_ids: list[str]) -> None:
        self._touched.clear()
        self._wake.clear()
        if job_ids:
            known = await self._look(job_ids)
            self._known |= {job_id: known[job_id] for job_id in job_ids if job_id in self._waiting}
            await self._tell()

    async def _look(self, job_ids: list[str]) -> Mapping[str, Progress | GatewayError | None]:
        try:
            found = await self._calls(self._store.progress, job_ids)
        except GatewayError as error:
            _log.warning("%s", error)
            return dict.fromkeys(job_ids, error)
        except Exception:  # this task must not end while others wait for it
            _log.exception("looking up jobs")
            return dict.fromkeys(job_ids, GatewayError())
        return {job_id: found.get(job_id) for job_id in job_ids}

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _woken(self, timeout_s: float) -> None:
        try:
            async with asyncio.timeout(max(0.0, timeout_s)):
                await self._wake.wait()
        except TimeoutError:
            pass


def _over(total: int) -> Callable[[Progress | None], bool]:
    def is_over(progress: Progress | None) -> bool:
        return progress is None or progress.state is not State.OPEN or progress.completed >= total

    return is_over


def _more_than(seen: int) -> Callable[[Progress | None], bool]:
    def has_more(progress: Progress | None) -> bool:
        return progress is None or progress.state is not State.OPEN or progress.completed > seen

    return has_more


def _left_s(job: Job) -> float:
    """Until just after the deadline."""
    return max(0.0, job.deadline_ms - _now_ms()) / 1000 + 0.005


def _now_ms() -> int:
    return int(time.time() * 1000)
