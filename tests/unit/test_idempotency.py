import asyncio
import time

import pytest

from gateway.deadline import Deadline
from gateway.errors import KeyReused, ReplyTimeout
from gateway.idempotency import FirstAnswers

pytestmark = pytest.mark.anyio
KEY = ("owner", "key")


def soon(timeout_s: float = 60) -> Deadline:
    return Deadline(time.monotonic(), timeout_s)


class Work:
    def __init__(self) -> None:
        self.calls = 0
        self.may_end = asyncio.Event()

    async def __call__(self) -> int:
        self.calls += 1
        await self.may_end.wait()
        return self.calls


async def test_the_same_key_again_gets_the_first_answer_and_works_once() -> None:
    answers, work = FirstAnswers[int](60), Work()
    work.may_end.set()
    assert await answers.once(KEY, "x", work, soon()) == (1, False)
    assert await answers.once(KEY, "x", work, soon()) == (1, True)
    assert await answers.once(("other", "key"), "x", work, soon()) == (2, False)


async def test_who_comes_meanwhile_waits_for_the_first() -> None:
    answers, work = FirstAnswers[int](60), Work()
    both = [asyncio.create_task(answers.once(KEY, "x", work, soon())) for _ in range(2)]
    await asyncio.sleep(0)
    work.may_end.set()
    assert await asyncio.gather(*both) == [(1, False), (1, True)]


async def test_who_waits_for_the_first_has_a_deadline_of_its_own() -> None:
    answers, work = FirstAnswers[int](60), Work()
    first = asyncio.create_task(answers.once(KEY, "x", work, soon()))
    await asyncio.sleep(0)
    async with asyncio.timeout(20):
        with pytest.raises(ReplyTimeout):
            await answers.once(KEY, "x", work, soon(0.05))
    work.may_end.set()
    assert await first == (1, False)


async def test_another_request_under_the_same_key_is_refused() -> None:
    answers, work = FirstAnswers[int](60), Work()
    work.may_end.set()
    await answers.once(KEY, "x", work, soon())
    with pytest.raises(KeyReused):
        await answers.once(KEY, "y", work, soon())


async def test_an_error_is_not_kept() -> None:
    answers, work = FirstAnswers[int](60), Work()
    work.may_end.set()

    async def fail() -> int:
        raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        await answers.once(KEY, "x", fail, soon())
    assert await answers.once(KEY, "x", work, soon()) == (1, False)


async def test_when_the_first_hangs_up_the_next_does_the_work() -> None:
    answers, work = FirstAnswers[int](60), Work()
    first, second = (asyncio.create_task(answers.once(KEY, "x", work, soon())) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    work.may_end.set()
    assert await second == (2, False)


async def test_answers_are_forgotten_after_their_time() -> None:
    now = 0.0
    answers, work = FirstAnswers[int](60, clock=lambda: now), Work()
    work.may_end.set()
    await answers.once(KEY, "x", work, soon())
    now = 61.0
    assert await answers.once(("other", "key"), "x", work, soon()) == (2, False)
    assert len(answers) == 1
    assert await answers.once(KEY, "x", work, soon()) == (3, False)
