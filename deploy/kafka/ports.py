"""Ports of this machine that nobody has."""

import random
import socket
from contextlib import ExitStack, suppress

HOST = "127.0.0.1"
FIRST, LAST = 20_000, 32_000
"""Below those that systems give to whoever connects, so that nobody gets it meanwhile."""


def free_port(in_a_row: int = 1) -> int:
    """The first of so many ports."""
    while True:
        port = random.randrange(FIRST, LAST - in_a_row)
        with suppress(OSError), ExitStack() as held:
            for each in range(port, port + in_a_row):
                held.enter_context(socket.socket()).bind((HOST, each))
            return port
