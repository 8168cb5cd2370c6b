"""Ray Serve: a proxy and batching replicas."""

import signal
import tempfile
import threading
from typing import Any

import ray
from ray import serve
from starlette.requests import Request

from bench.peers.answering import Answering, arguments


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
    chosen = arguments()
    stop = threading.Event()
    with tempfile.TemporaryDirectory(prefix="ray") as folder:
        quiet = {"include_dashboard": False, "log_to_driver": False}
        ray.init(object_store_memory=100 * 2**20, _temp_dir=folder, num_cpus=16, **quiet)
        serve.start(http_options={"host": "127.0.0.1", "port": chosen.port})
        serve.run(Classify.options(num_replicas=chosen.workers).bind(), route_prefix="/predict")
        signal.signal(signal.SIGTERM, lambda *_: stop.set())
        stop.wait()
        serve.shutdown()
        ray.shutdown()


if __name__ == "__main__":
    main()
