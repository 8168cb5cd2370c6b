"""Finds free ports on this machine."""

import random
import socket
from contextlib import ExitStack, suppress

HOST = "127.0.0.1"
FIRST, LAST = 20_000, 32_000
"""Below the ephemeral ports, so that no outgoing connection takes one before it is used."""


def free_port(in_a_row: int = 1) -> int:
    """The first of in_a_row consecutive free ports."""
    while True:
        port = random.randrange(FIRST, LAST - in_a_row)
        with suppress(OSError), ExitStack() as held:
            for each in range(port, port + in_a_row):
                held.enter_context(socket.socket()).bind((HOST, each))
            return port
