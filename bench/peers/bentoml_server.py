"""BentoML, with a batching service method."""

import base64
from typing import Any

import bentoml

from bench.peers.answering import Answering, arguments


@bentoml.service(traffic={"max_concurrency": 1024, "timeout": 60}, logging={"access": {"enabled": False}})
class Classify:
    def __init__(self) -> None:
        self._answer = Answering()

    @bentoml.api(batchable=True, max_batch_size=32, max_latency_ms=30_000, route="/predict")
    def predict(self, pictures: list[str]) -> list[dict[str, Any]]:
        return self._answer([base64.b64decode(picture) for picture in pictures])


def main() -> None:
    chosen = arguments()
    service = "bench.peers.bentoml_server:Classify"
    bentoml.serve(service, host="127.0.0.1", port=chosen.port, api_workers=chosen.workers, blocking=True)


if __name__ == "__main__":
    main()
