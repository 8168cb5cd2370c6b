"""A closed-loop load generator: each client has one connection and one request under way.

It is to run in a process of its own: `python -m bench.load http://127.0.0.1:8000/predict samples/*.png`.
"""

import argparse
import asyncio
import itertools
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from bench.connection import Connection
from bench.exchange import Exchange, exchanges
from bench.tally import Result, Tally

_PATIENCE_S = 35.0
_RECONNECT_S = 0.05


async def load(
    url: str,
    given: Sequence[Exchange],
    *,
    clients: int,
    seconds: float,
    count: int | None = None,
    patience_s: float = _PATIENCE_S,
) -> Result:
    """Send the exchanges in turn, for so many seconds or until so many were sent, whichever is first.

    What is under way at the end is waited for, up to patience_s.
    """
    tally = Tally()
    supply = _supply(given, seconds, count, time.perf_counter)
    started = time.perf_counter()
    tasks = [asyncio.create_task(_client(url, supply, tally)) for _ in range(clients)]
    _, stuck = await asyncio.wait(tasks, timeout=seconds + patience_s)
    elapsed_s = time.perf_counter() - started
    for task in stuck:
        task.cancel()
    await asyncio.gather(*stuck, return_exceptions=True)
    for task in set(tasks) - stuck:
        task.result()
    return tally.result(elapsed_s)


def _supply(
    given: Sequence[Exchange], seconds: float, count: int | None, clock: Callable[[], float]
) -> Iterator[Exchange]:
    end = clock() + seconds
    for exchange in itertools.islice(itertools.cycle(given), count):
        if clock() >= end:
            return
        yield exchange


async def _client(url: str, supply: Iterator[Exchange], tally: Tally) -> None:
    """Connects, and again when the other side closes, until the supply ends."""
    for first in supply:
        connection = Connection(itertools.chain([first], supply), tally)
        try:
            await _connect(url, connection)
        except OSError:
            tally.failed("no connection")
            await asyncio.sleep(_RECONNECT_S)
        else:
            await connection.ended()


async def _connect(url: str, connection: Connection) -> None:
    address = urlsplit(url)
    loop = asyncio.get_running_loop()
    await loop.create_connection(lambda: connection, address.hostname or "", address.port or 80)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def main() -> None:
    parser = argparse.ArgumentParser(description="Send pictures over and over; print the result as JSON.")
    parser.add_argument("url")
    parser.add_argument("pictures", nargs="+", type=Path)
    parser.add_argument("--clients", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--count", type=int, help="end after so many requests")
    parser.add_argument("--form", action="store_true", help="as form field, not as the body itself")
    parser.add_argument("--any-answer", action="store_true", help="accept every 200, whatever its body")
    chosen = parser.parse_args()
    given = exchanges(chosen.url, chosen.pictures, form=chosen.form, proof=not chosen.any_answer)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        result = runner.run(
            load(chosen.url, given, clients=chosen.clients, seconds=chosen.seconds, count=chosen.count)
        )
    if not result.answers:
        sys.exit(f"{chosen.url} answered nothing: {result.errors}")
    print(msgspec.json.encode(result).decode())


if __name__ == "__main__":
    main()
