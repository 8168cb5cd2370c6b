"""MLServer: the Open Inference Protocol over HTTP, adaptive batches, a custom runtime."""

import argparse
import asyncio
import base64
import json

from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import StringCodec
from mlserver.types import InferenceRequest, InferenceResponse, RequestInput

from bench.peers.answering import Answering


class Classify(MLModel):
    async def load(self) -> bool:
        self._answer = Answering()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        answers = self._answer(_pictures(payload.inputs[0]))
        output = StringCodec.encode_output("answers", [json.dumps(answer) for answer in answers])
        return InferenceResponse(model_name=self.name, outputs=[output])


def _pictures(sent: RequestInput) -> list[bytes]:
    return [base64.b64decode(one) for one in sent.data]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    chosen = parser.parse_args()
    settings = Settings(
        host="127.0.0.1",
        http_port=chosen.port,
        grpc_port=0,
        metrics_endpoint=None,
        parallel_workers=0,
        gzip_enabled=False,
        debug=False,
    )
    model = ModelSettings(
        name="fashion",
        implementation=Classify,
        max_batch_size=32,
        max_batch_time=0.001,
    )
    asyncio.run(MLServer(settings).start([model]))


if __name__ == "__main__":
    main()
