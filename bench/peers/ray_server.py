"""Ray Serve: its proxy, and replicas that batch."""

import argparse
import signal
import tempfile
import threading
from typing import Any

import ray
from ray import serve
from starlette.requests import Request

from bench.peers.answering import Answering


@serve.deployment(max_ongoing_requests=1024)
class Classify:
    def __init__(self) -> None:
        self._answer = Answering()

    @serve.batch(max_batch_size=32, batch_wait_timeout_s=0.001)
    async def batched(self, pictures: list[bytes]) -> list[dict[str, Any]]:
        return self._answer(pictures)

    async def __call__(self, request: Request) -> dict[str, Any]:
        return await self.batched(await request.body())


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--workers", type=int, default=1)
    chosen = parser.parse_args()
    stop = threading.Event()
    with tempfile.TemporaryDirectory(prefix="ray") as folder:
        ray.init(
            include_dashboard=False,
            object_store_memory=100 * 2**20,
            _temp_dir=folder,
            log_to_driver=False,
            num_cpus=16,
        )
        serve.start(http_options={"host": "127.0.0.1", "port": chosen.port})
        serve.run(Classify.options(num_replicas=chosen.workers).bind(), route_prefix="/predict")
        signal.signal(signal.SIGTERM, lambda *_: stop.set())
        stop.wait()
        serve.shutdown()
        ray.shutdown()


if __name__ == "__main__":
    main()
