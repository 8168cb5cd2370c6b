import asyncio

import pytest

from gateway.presence import Catalogue, Liveness, Pinging
from tests.unit.gateways import gateway_settings

pytestmark = pytest.mark.anyio


async def test_a_ping_that_fails_in_whatever_way_is_followed_by_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    asked, enough = 0, asyncio.Event()

    async def ping() -> None:
        nonlocal asked
        asked += 1
        if asked == 3:
            enough.set()
        raise RuntimeError("what nobody thought of")

    pinging = Pinging(ping, Liveness(5), Catalogue(), gateway_settings(ping_interval_ms=1))
    pinging.opened()
    running = asyncio.create_task(pinging.run())
    async with asyncio.timeout(20):
        await asyncio.wait([running, asyncio.create_task(enough.wait())], return_when="FIRST_COMPLETED")
    assert not running.done()
    running.cancel()
    assert "what nobody thought of" in caplog.text
