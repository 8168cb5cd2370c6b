import asyncio

import pytest

from gateway.errors import TooManyInFlight, Unavailable
from gateway.pending import Pending
from messaging.broker import Message

pytestmark = pytest.mark.anyio


async def test_a_reply_reaches_the_one_who_waits_for_it() -> None:
    pending = Pending(10, 1000)
    with pending.waiter("a", 1) as a, pending.waiter("b", 1) as b:
        assert pending.resolve("b", Message(b"for b"))
        assert (await b).body == b"for b"
        assert not a.done()


async def test_a_second_reply_a_late_one_and_a_foreign_one_reach_nobody() -> None:
    pending = Pending(10, 1000)
    with pending.waiter("a", 1) as a:
        assert pending.resolve("a", Message(b"first"))
        assert not pending.resolve("a", Message(b"second"))
        assert (await a).body == b"first"
    assert not pending.resolve("a", Message(b"late"))
    assert not pending.resolve("never asked", Message(b""))


async def test_nothing_is_left_after_a_reply_an_error_a_timeout_or_a_cancel() -> None:
    pending = Pending(10, 1000)

    async def wait(correlation_id: str, timeout_s: float) -> None:
        with pending.waiter(correlation_id, 100) as reply:
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
    with pending.waiter("all bytes are free again", 1000):
        pass


async def test_more_requests_than_may_wait_are_refused() -> None:
    pending = Pending(2, 1000)
    a, b, c = (pending.waiter(name, 1) for name in "abc")
    with a, b, pytest.raises(TooManyInFlight, match="2 requests"):
        c.__enter__()
    with pending.waiter("c", 1):
        pass


async def test_more_bytes_than_may_wait_are_refused_but_one_request_always_passes() -> None:
    pending = Pending(10, 1000)
    with pending.waiter("larger than all", 5000), pytest.raises(TooManyInFlight, match="5000 bytes"):
        pending.waiter("b", 1).__enter__()
    with pending.waiter("a", 900), pending.waiter("b", 100):
        pass


async def test_at_the_end_everybody_is_told() -> None:
    pending = Pending(10, 1000)
    with pending.waiter("a", 1) as a, pending.waiter("b", 1) as b:
        pending.fail_all("closing")
        errors = await asyncio.gather(a, b, return_exceptions=True)
    assert [str(error) for error in errors] == ["closing", "closing"]
