"""LitServe: FastAPI and batching worker processes."""

from typing import Annotated, Any

import litserve
from fastapi import Depends, Request

from bench.peers.answering import Answering, arguments


async def read_body(request: Request) -> bytes:
    return await request.body()


class Classify(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self._answer = Answering()

    def decode_request(self, request: Annotated[bytes, Depends(read_body)]) -> bytes:
        return request

    def batch(self, inputs: list[bytes]) -> list[bytes]:
        return inputs

    def predict(self, x: list[bytes]) -> list[dict[str, Any]]:
        return self._answer(x)

    def unbatch(self, output: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return output


def main() -> None:
    chosen = arguments()
    api = Classify(max_batch_size=32, batch_timeout=0.001)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=chosen.workers)
    server.run(host="127.0.0.1", port=chosen.port, generate_client_file=False, log_level="warning")


if __name__ == "__main__":
    main()
