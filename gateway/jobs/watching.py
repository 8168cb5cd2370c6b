"""Waiting until more is known of a job than one knows already."""

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager

from gateway.errors import GatewayError
from gateway.jobs.calls import Calls
from gateway.jobs.job import State
from gateway.jobs.store import Progress, Store

_log = logging.getLogger("mlaas.jobs")

_GATHER_S = 0.01
_NOTHING = Progress(State.OPEN, -1)  # of a job that was not asked about yet


class Watching:
    """One task asks the store about all jobs that somebody waits for, and at once about one touched here.

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
        """Nobody waits any longer."""
        self.ended = True
        await self._tell()

    def touched(self, job_ids: Iterable[str]) -> None:
        """These have changed."""
        new = self._waiting.keys() & set(job_ids)
        if new:
            self._touched |= new
            self._wake.set()

    @contextmanager
    def of(self, job_id: str) -> Iterator[None]:
        """While inside, the job is asked about."""
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
        """Until is_enough of what the store says (None: no such job), the time is over, or all waiting ends.

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
            _log.exception("asking the store about jobs")
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
