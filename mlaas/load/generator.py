"""Clients that ask over and over, each with one connection and one request under way.

Closed loop: a client asks again when it has its answer, so a slow server is asked less. Open loop: requests
are due at a fixed rate, whatever the answers do; latency counts from when a request was due, so that waiting
for a free client shows (no coordinated omission). It is to run in a process of its own.
"""

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from urllib.parse import urlsplit

from mlaas.load.connection import Connection
from mlaas.load.exchange import Due, Exchange
from mlaas.load.tally import Result, Tally

_PATIENCE_S = 35.0
_RECONNECT_S = 0.05
_LEAD_S = 0.2


async def load(
    url: str,
    given: Sequence[Exchange],
    *,
    clients: int,
    seconds: float,
    count: int | None = None,
    rate_per_s: float | None = None,
    patience_s: float = _PATIENCE_S,
) -> Result:
    """Send the exchanges in turn, for so many seconds or until so many were sent, whichever is first.

    What is under way at the end is waited for, up to patience_s; so is what was due by then in an open loop,
    and is an error if it could not be sent. An open loop begins when there was time to connect.
    """
    tally = Tally()
    started = time.perf_counter() + (0.0 if rate_per_s is None else _LEAD_S)
    supply = (
        _as_they_are_answered(given, started + seconds, time.perf_counter)
        if rate_per_s is None
        else _as_they_are_due(given, started, seconds, rate_per_s)
    )
    tickets = itertools.islice(supply, count)
    tasks = [asyncio.create_task(_client(url, tickets, tally)) for _ in range(clients)]
    _, stuck = await asyncio.wait(tasks, timeout=seconds + patience_s)
    elapsed_s = time.perf_counter() - started
    for task in stuck:
        task.cancel()
    await asyncio.gather(*stuck, return_exceptions=True)
    for task in set(tasks) - stuck:
        task.result()
    for _ in tickets:
        tally.failed("not sent")
    return tally.result(elapsed_s)


def _as_they_are_answered(given: Sequence[Exchange], end: float, clock: Callable[[], float]) -> Iterator[Due]:
    for exchange in itertools.cycle(given):
        if clock() >= end:
            return
        yield Due(exchange, None)


def _as_they_are_due(
    given: Sequence[Exchange], started: float, seconds: float, rate_per_s: float
) -> Iterator[Due]:
    for number, exchange in zip(range(round(seconds * rate_per_s)), itertools.cycle(given), strict=False):
        yield Due(exchange, started + number / rate_per_s)


async def _client(url: str, supply: Iterator[Due], tally: Tally) -> None:
    """Connects, and again when the other side closes, until the supply ends."""
    due = next(supply, None)
    while due is not None:
        connection = Connection(itertools.chain([due], supply), tally)
        try:
            await _connect(url, connection)
        except OSError:
            await _until(due)
            tally.failed("no connection")
            await asyncio.sleep(_RECONNECT_S)
            left = None
        except asyncio.CancelledError:
            tally.failed("no connection")
            raise
        else:
            left = await connection.ended()
        if left is not None:
            await _until(left)
        due = left or next(supply, None)


async def _until(due: Due) -> None:
    await asyncio.sleep(max(0.0, (due.at or 0.0) - time.perf_counter()))


async def _connect(url: str, connection: Connection) -> None:
    address = urlsplit(url)
    is_tls = address.scheme == "https"
    port = address.port or (443 if is_tls else 80)
    loop = asyncio.get_running_loop()
    await loop.create_connection(lambda: connection, address.hostname or "", port, ssl=is_tls or None)


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """uvloop's, where it is."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
