"""Taking connections as fast as they come."""

import asyncio
import os
import socket
from collections.abc import Callable


class Acceptor:
    """libuv accepts one connection in each turn of its loop (since 1.45), and a busy loop's turns are long.

    Then callers wait where no limit sees them, until they give up. So whenever somebody waits, others who
    wait are taken, too: at most so many in a turn.
    """

    def __init__(
        self, listener: socket.socket, protocol: Callable[[], asyncio.BaseProtocol], most_in_a_turn: int
    ) -> None:
        """For the event loop that runs. The listener stays with whoever has it."""
        # socket.dup() would let the listener block for a moment, and with it all processes that share it.
        self._listener = socket.socket(fileno=os.dup(listener.fileno()))
        self._listener.setblocking(False)
        self._protocol = protocol
        self._most_in_a_turn = most_in_a_turn
        self._loop = asyncio.get_running_loop()
        self._connecting: set[asyncio.Task[object]] = set()
        self._loop.add_reader(self._listener, self._accept)

    def close(self) -> None:
        self._loop.remove_reader(self._listener)
        self._listener.close()

    def _accept(self) -> None:
        for _ in range(self._most_in_a_turn):
            try:
                connection, _ = self._listener.accept()
            except OSError:  # nobody waits any more; or no descriptor is left, which libuv sees to
                return
            connecting = self._loop.create_task(
                self._loop.connect_accepted_socket(self._protocol, connection)
            )
            self._connecting.add(connecting)
            connecting.add_done_callback(self._connecting.discard)
