"""The store as the event loop calls it: from threads, each call in bounded time."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

from gateway.errors import Unavailable
from gateway.jobs.store import StoreError

P = ParamSpec("P")
T = TypeVar("T")

_THREADS = 4


class Calls:
    """timeout_s: for one call, the wait for a thread included."""

    def __init__(self, timeout_s: float) -> None:
        self._timeout_s = timeout_s
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="job-store")

    async def __call__(self, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """Raises Unavailable; then the call may have been done all the same."""
        call = self._threads.submit(function, *arguments, **named)
        try:
            async with asyncio.timeout(self._timeout_s):
                return await asyncio.wrap_future(call)
        except StoreError as error:
            raise Unavailable(f"the store of jobs: {error}") from error
        except TimeoutError as error:
            raise Unavailable(f"the store of jobs did not answer within {self._timeout_s:g} s") from error

    def close(self) -> None:
        """What has not begun is not done; what has, ends in its own time."""
        self._threads.shutdown(wait=False, cancel_futures=True)
