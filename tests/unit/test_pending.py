import asyncio
import math
from concurrent.futures import Future
from contextlib import ExitStack

import pytest

from gateway.errors import TooManyInFlight, Unavailable
from gateway.pending import Capacity, Deadlines, Pending
from messaging.broker import Message
from messaging.contract import ContractError, Reply

SMALL_MS, MEDIUM_MS, LARGE_MS = 0.1, 50.0, 200.0

pytestmark = pytest.mark.anyio


def decode(message: Message) -> Reply:
    """A reply that says what came."""
    if message.body == b"odd":
        raise ContractError("odd")
    return Reply(sha256="", model=message.body.decode())


async def test_a_reply_reaches_whoever_waits_for_it() -> None:
    pending = Pending(Capacity(10, 1000, 1000))
    with pending.waiter("a", 1, 0, decode) as a, pending.waiter("b", 1, 0, decode) as b:
        assert pending.resolve("b", Message(b"for b"))
        assert (await b).model == "for b"
        assert not a.done()


async def test_a_second_reply_a_late_one_and_a_foreign_one_reach_nobody() -> None:
    pending = Pending(Capacity(10, 1000, 1000))
    with pending.waiter("a", 1, 0, decode) as a:
        assert pending.resolve("a", Message(b"first"))
        assert not pending.resolve("a", Message(b"second"))
        assert (await a).model == "first"
    with pending.waiter("given up", 1, 0, decode):
        pass
    late = [pending.resolve(name, Message(b"late")) for name in ("a", "given up", "never asked")]
    assert late == [False, False, False]


async def test_what_cannot_be_the_reply_leaves_the_wait_to_the_one_that_can() -> None:
    pending = Pending(Capacity(10, 1000, 1000))
    with pending.waiter("a", 1, 0, decode) as a:
        with pytest.raises(ContractError):
            pending.resolve("a", Message(b"odd"))
        assert pending.resolve("a", Message(b"true"))
        assert (await a).model == "true"


async def test_nothing_is_left_after_a_reply_an_error_a_timeout_or_a_cancel() -> None:
    pending = Pending(Capacity(10, 1000, 1000))

    async def wait(correlation_id: str, timeout_s: float) -> None:
        with pending.waiter(correlation_id, 100, 0, decode) as reply:
            async with asyncio.timeout(timeout_s):
                await reply

    tasks = [asyncio.create_task(wait(name, 0.01 if name == "timeout" else 5)) for name in
             ("reply", "error", "timeout", "cancel")]  # fmt: skip
    await asyncio.sleep(0)
    assert len(pending) == 4
    pending.resolve("reply", Message(b""))
    pending.fail("error", Unavailable("no"))
    tasks[3].cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [
        type(None),
        Unavailable,
        TimeoutError,
        asyncio.CancelledError,
    ]
    assert len(pending) == 0
    with pending.waiter("all bytes are free again", 1000, 0, decode):
        pass


async def test_more_requests_than_may_wait_are_refused() -> None:
    pending = Pending(Capacity(2, 1000, 1000))
    with pending.waiter("a", 1, 0, decode):
        pending.admit(1, 0, 30)
        with pending.waiter("b", 1, 0, decode), pytest.raises(TooManyInFlight, match="2 requests"):
            pending.admit(1, 0, 30)
    pending.admit(1, 0, 30)


async def test_more_bytes_than_may_wait_are_refused_but_one_request_always_passes() -> None:
    pending = Pending(Capacity(10, 1000, 1000))
    pending.admit(5000, 0, 30)
    with (
        pending.waiter("larger than all", 5000, 0, decode),
        pytest.raises(TooManyInFlight, match="5000 bytes"),
    ):
        pending.admit(1, 0, 30)
    with pending.waiter("a", 900, 0, decode):
        pending.admit(100, 0, 30)


async def test_a_small_picture_is_not_refused_because_of_larger_ones() -> None:
    pending = Pending(Capacity(8, 1000, 1000))
    with ExitStack() as others:
        for number in range(3):
            others.enter_context(pending.waiter(f"large {number}", 5000, LARGE_MS, decode))
        others.enter_context(pending.waiter("medium", 5000, MEDIUM_MS, decode))
        for number in range(2):
            pending.admit(100, SMALL_MS, 30)
            others.enter_context(pending.waiter(f"small {number}", 100, SMALL_MS, decode))
        with pytest.raises(TooManyInFlight, match=r"limit of \d+ for small"):
            pending.admit(100, SMALL_MS, 30)


async def test_nor_a_medium_one_because_of_large_ones() -> None:
    pending = Pending(Capacity(8, 1000, 1000))
    with pending.waiter("large", 5000, 5 * LARGE_MS, decode), pending.waiter("a", 100, MEDIUM_MS, decode):
        pending.admit(100, MEDIUM_MS, 30)
        limit = r"5000 bytes .* 1 more .* limit of 500 for large .*max_in_flight_bytes"
        with pytest.raises(TooManyInFlight, match=limit):
            pending.admit(1, LARGE_MS, 30)


async def test_what_pictures_cost_to_decode_is_bounded_but_one_always_passes() -> None:
    pending = Pending(Capacity(8, 1000, 1000))
    pending.admit(1, 5000, 30)
    with pending.waiter("a", 1, 300, decode):
        pending.admit(1, 200, 30)
        with pytest.raises(TooManyInFlight, match=r"300 ms of decoding are in flight; 201 more") as refused:
            pending.admit(1, 201, 30)
    assert refused.value.headers["Retry-After"]
    pending.admit(1, 201, 30)


async def test_the_wait_of_small_pictures_is_not_estimated_by_larger_ones() -> None:
    now = 0.0
    pending = Pending(Capacity(1000, 1000_000, 1000_000), clock=lambda: now)
    for number in range(20):
        with pending.waiter(f"large {number}", 1, LARGE_MS, decode):
            now += 10
            pending.resolve(f"large {number}", Message(b""))
    with ExitStack() as others:
        for number in range(100):
            others.enter_context(pending.waiter(str(number), 1, SMALL_MS, decode))
        pending.admit(1, SMALL_MS, 1)


async def test_who_would_be_answered_too_late_is_refused_and_told_when_to_come_back() -> None:
    now = 0.0
    pending = Pending(Capacity(1000, 1000_000, 1000), clock=lambda: now)
    waiters = {str(number): pending.waiter(str(number), 1, 0, decode) for number in range(100)}
    for waiter in waiters.values():
        waiter.__enter__()
    pending.admit(1, 0, 0.1)  # nothing is known yet
    for name, waiter in waiters.items():
        now += 0.1
        pending.resolve(name, Message(b""))
        waiter.__exit__(None, None, None)
    with ExitStack() as others:
        for number in range(50):
            others.enter_context(pending.waiter(f"again {number}", 1, 0, decode))
        pending.admit(1, 0, 15)
        with pytest.raises(
            TooManyInFlight, match=r"estimated wait of \d+\.\d s is too close to the deadline of 3 s"
        ) as refused:
            pending.admit(1, 0, 3)
    assert refused.value.retry_after_s is not None
    assert refused.value.retry_after_s in (2, 3)  # fifty wait, five seconds; in three they are few enough


async def test_at_the_end_everybody_is_told() -> None:
    pending = Pending(Capacity(10, 1000, 1000))
    with pending.waiter("a", 1, 0, decode) as a, pending.waiter("b", 1, 0, decode) as b:
        pending.fail_all("closing")
        errors = await asyncio.gather(a, b, return_exceptions=True)
    assert [str(error) for error in errors] == ["closing", "closing"]


async def test_when_the_broker_is_lost_only_those_wait_on_whose_request_it_has() -> None:
    pending = Pending(Capacity(10, 1000, 1000))
    with pending.waiter("has it", 1, 0, decode) as waits_on, pending.waiter("unknown", 1, 0, decode) as fails:
        arrived: Future[None] = Future()
        arrived.set_result(None)
        pending.publishing("has it", arrived)
        pending.publishing("unknown", Future())
        pending.fail_unpublished("no broker answers")
        with pytest.raises(Unavailable, match="no broker answers"):
            await fails
        assert not waits_on.done()


async def test_replies_are_due_at_their_deadlines_and_not_before() -> None:
    deadlines, replies = Deadlines(), [asyncio.get_running_loop().create_future() for _ in range(4)]
    slots = [
        deadlines.add(its, 100.0, timeout_s) for its, timeout_s in zip(replies, (3, 1, 1, 2), strict=True)
    ]
    deadlines.remove(slots[2], replies[2])
    assert deadlines.next_at() == pytest.approx(101)
    assert deadlines.due(100.99) == []
    assert deadlines.due(102.02) == [(replies[1], 1), (replies[3], 2)]
    deadlines.remove(slots[1], replies[1])
    deadlines.remove(slots[0], replies[0])
    assert (deadlines.next_at(), deadlines.due(1000.0)) == (math.inf, [])
