"""Mosec: a Rust front end and batching worker processes."""

import sys
from typing import Any

import msgspec
from mosec import Server, Worker

from bench.peers.answering import Answering, arguments


class Classify(Worker):
    def __init__(self) -> None:
        super().__init__()
        self._answer = Answering()

    def deserialize(self, data: bytes) -> bytes:
        return bytes(data)  # from a bytearray, which the decoders do not take

    def serialize(self, data: dict[str, Any]) -> bytes:
        return msgspec.json.encode(data)

    def forward(self, data: list[bytes]) -> list[dict[str, Any]]:
        return self._answer(data)


def main() -> None:
    chosen = arguments()
    sys.argv[1:] = ["--port", str(chosen.port), "--address", "127.0.0.1", "--log-level", "warning"]
    server = Server()
    server.append_worker(Classify, num=chosen.workers, max_batch_size=32, max_wait_time=1, route="/predict")
    server.run()


if __name__ == "__main__":
    main()
