"""MLServer: the Open Inference Protocol over HTTP, adaptive batching, a custom runtime."""

import asyncio
import base64
import json

from mlserver import MLModel, MLServer, ModelSettings, Settings
from mlserver.codecs import StringCodec
from mlserver.types import InferenceRequest, InferenceResponse

from bench.peers.answering import Answering, arguments


class Classify(MLModel):
    async def load(self) -> bool:
        self._answer = Answering()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        answers = self._answer([base64.b64decode(text) for text in payload.inputs[0].data])
        output = StringCodec.encode_output("answers", [json.dumps(answer) for answer in answers])
        return InferenceResponse(model_name=self.name, outputs=[output])


def main() -> None:
    chosen = arguments()
    settings = Settings(
        host="127.0.0.1",
        http_port=chosen.port,
        grpc_port=0,
        metrics_endpoint=None,
        parallel_workers=0,
        gzip_enabled=False,
        debug=False,
    )
    model = ModelSettings(name="fashion", implementation=Classify, max_batch_size=32, max_batch_time=0.001)
    asyncio.run(MLServer(settings).start([model]))


if __name__ == "__main__":
    main()
