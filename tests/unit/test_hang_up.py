import asyncio

import pytest
from starlette.requests import Request
from starlette.types import Message

from gateway.errors import ClientGone, GatewayError, SlowBody
from gateway.hang_up import while_connected

pytestmark = pytest.mark.anyio


def request(then: Message | GatewayError) -> Request:
    """One that has a body that nobody reads, and then this."""
    coming: list[Message | GatewayError] = [{"type": "http.request", "body": b"", "more_body": True}, then]

    async def receive() -> Message:
        await asyncio.sleep(0.01)
        if not coming:
            await asyncio.Event().wait()
        found = coming.pop(0)
        if isinstance(found, GatewayError):
            raise found
        return found

    return Request({"type": "http", "headers": []}, receive)


@pytest.mark.parametrize(
    ("then", "raised"), [({"type": "http.disconnect"}, ClientGone), (SlowBody("no byte came"), SlowBody)]
)
async def test_waiting_ends_when_the_client_goes_or_sends_what_is_wrong(
    then: Message | GatewayError, raised: type[GatewayError]
) -> None:
    with pytest.raises(raised):
        async with while_connected(request(then)):
            await asyncio.sleep(5)


async def test_who_cancels_it_meanwhile_cancels_it() -> None:
    async def wait() -> None:
        async with while_connected(request({"type": "http.request", "body": b""})):
            await asyncio.sleep(5)

    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0.05)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
