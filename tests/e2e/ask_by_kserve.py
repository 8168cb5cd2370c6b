"""Every form of a question that KServe's client can ask. Run by an interpreter that has it; prints JSON."""

import asyncio
import base64
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig
from kserve.protocol.infer_type import RequestedOutput

url, data, picture = sys.argv[1:]
pictures = np.load(data)["images"][:32]
content = Path(picture).read_bytes()


async def ask(
    client: InferenceRESTClient, datatype: str, values: np.ndarray, is_binary: bool, **more: Any
) -> Any:
    its_input = InferInput("image", list(values.shape), datatype)
    its_input.set_data_from_numpy(values, binary_data=is_binary)
    request = InferRequest("fashion-mnist", [its_input], request_id="7", **more)
    return await client.infer(url, request, "fashion-mnist")


async def main() -> None:
    async with InferenceRESTClient(RESTConfig(protocol="v2", timeout=60)) as client:
        assert await client.is_server_live(url) is True
        assert await client.is_server_ready(url) is True
        assert await client.is_model_ready(url, "fashion-mnist") is True
        assert await client.is_model_ready(url, "none") is False
        found = []
        for is_binary in (True, False):
            for datatype, values in (("UINT8", pictures), ("FP32", (pictures / 255).astype(np.float32))):
                wanted = {"binary_data_output": is_binary}
                answer = await ask(client, datatype, values, is_binary, parameters=wanted)
                assert (answer.id, answer.model_name) == ("7", "fashion-mnist")
                found.append(answer.get_output_by_name("probabilities").as_numpy().tolist())
        label = [RequestedOutput("label")]
        for values, is_binary in ((content, True), (base64.b64encode(content), False)):
            answer = await ask(client, "BYTES", np.array([values], object), is_binary, request_outputs=label)
            assert [output.name for output in answer.outputs] == ["label"]
            found.append(answer.outputs[0].data)
        try:
            await ask(client, "UINT8", pictures[:, :14], True)
        except Exception as error:
            found.append(str(error))
    print(json.dumps(found))


asyncio.run(main())
