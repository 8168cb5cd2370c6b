"""The same Idempotency-Key again gets the first answer again."""

import asyncio
import re
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from starlette.requests import Request

from gateway.deadline import Deadline
from gateway.errors import InvalidRequest, KeyReused, ReplyTimeout

HEADER = "Idempotency-Key"

_KEY = re.compile(r"[!-~]{1,255}")
_MOST_KEPT = 10_000

Answer = TypeVar("Answer")
Key = tuple[str, str]


@dataclass(slots=True)
class _First(Generic[Answer]):
    fingerprint: str
    answer: "asyncio.Future[Answer]"
    until: float


class FirstAnswers(Generic[Answer]):
    """Of one process, in memory, for keep_s seconds. An error is not kept: the next attempt may succeed."""

    def __init__(self, keep_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._keep_s = keep_s
        self._clock = clock
        self._kept: OrderedDict[Key, _First[Answer]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._kept)

    async def once(
        self, key: Key, fingerprint: str, work: Callable[[], Awaitable[Answer]], deadline: Deadline
    ) -> tuple[Answer, bool]:
        """The answer, and whether it is another request's. Who comes meanwhile waits for the first.

        fingerprint stands for all that the request asks. Raises KeyReused if it is another one than before,
        ReplyTimeout when the deadline comes before the other's answer.
        """
        self._forget()
        while (first := self._kept.get(key)) is not None:
            if first.fingerprint != fingerprint:
                raise KeyReused(f"this {HEADER} came with another request before; take a new one")
            done, _ = await asyncio.wait([first.answer], timeout=deadline.left_s())
            if not done:
                raise ReplyTimeout(f"the first request with this {HEADER} had no answer in time")
            if not first.answer.cancelled():
                return first.answer.result(), True
        return await self._first(key, fingerprint, work), False

    async def _first(self, key: Key, fingerprint: str, work: Callable[[], Awaitable[Answer]]) -> Answer:
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._kept[key] = _First(fingerprint, answer, self._clock() + self._keep_s)
        try:
            answer.set_result(await work())
            return answer.result()
        finally:
            if not answer.done():
                del self._kept[key]
                answer.cancel()

    def _forget(self) -> None:
        while self._kept:
            key, oldest = next(iter(self._kept.items()))
            if not oldest.answer.done() or (len(self._kept) < _MOST_KEPT and oldest.until > self._clock()):
                return
            del self._kept[key]


def read_key(request: Request) -> str:
    """Empty if there is none. Raises InvalidRequest."""
    given = request.headers.get(HEADER)
    if given is None:
        return ""
    if not _KEY.fullmatch(given):
        raise InvalidRequest(f"{HEADER} must be 1 to 255 visible ASCII characters")
    return given
