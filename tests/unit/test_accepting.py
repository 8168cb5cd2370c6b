import asyncio
import socket
import threading
import time

import uvloop

from gateway.server import Acceptor

CALLERS = 200


class Counting(asyncio.Protocol):
    def __init__(self, taken: list[bytes], lost: list[object]) -> None:
        self._taken = taken
        self._lost = lost

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._taken.append(b"")

    def data_received(self, data: bytes) -> None:
        self._taken.append(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._lost.append(exc)


def test_all_who_wait_are_taken_though_the_loop_is_busy() -> None:
    """libuv by itself would take twenty of them in so many turns."""
    taken: list[bytes] = []
    lost: list[object] = []
    connections: list[socket.socket] = []

    async def busy() -> None:
        loop = asyncio.get_running_loop()
        listener = socket.create_server(("127.0.0.1", 0), backlog=CALLERS)
        server = await loop.create_server(lambda: Counting(taken, lost), sock=listener, backlog=CALLERS)
        acceptor = Acceptor(listener, lambda: Counting(taken, lost), 64)

        def call() -> None:
            for _ in range(CALLERS):
                connections.append(socket.create_connection(listener.getsockname()))
                connections[-1].sendall(b"hello")

        calling = threading.Thread(target=call)
        calling.start()
        calling.join()
        for _ in range(20):
            time.sleep(0.005)
            await asyncio.sleep(0)
        acceptor.close()
        server.close()
        for connection in connections:
            connection.close()
        async with asyncio.timeout(10):
            while len(lost) < taken.count(b""):
                await asyncio.sleep(0)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(busy())
    assert taken.count(b"") == taken.count(b"hello") == CALLERS


def test_once_closed_nobody_is_taken() -> None:
    async def after_closing() -> bool:
        listener = socket.create_server(("127.0.0.1", 0))
        acceptor = Acceptor(listener, asyncio.Protocol, 64)
        acceptor.close()
        with socket.create_connection(listener.getsockname()):
            somebody_waits = asyncio.Event()
            asyncio.get_running_loop().add_reader(listener, somebody_waits.set)
            await asyncio.wait_for(somebody_waits.wait(), 10)
            asyncio.get_running_loop().remove_reader(listener)
            listener.setblocking(False)
            listener.accept()[0].close()
        listener.close()
        return True

    assert asyncio.run(after_closing())
