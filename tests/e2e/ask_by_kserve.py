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
        unlike = [await of_unlike_models(client, is_binary) for is_binary in (True, False)]
    print(json.dumps([*found, *unlike]))


async def of_unlike_models(client: InferenceRESTClient, is_binary: bool) -> list[Any]:
    """What a model of pictures, a classifier of rows and a regression answer to two tensors each."""
    blues = np.zeros((2, 3, 96, 96), np.float32)
    blues[:, 2] = 1
    rows = np.array([[5.1, 3.5, 1.4, 0.2], [6.3, 3.3, 6.0, 2.5]], np.float32)
    windows = np.stack([np.full((24, 3), 4, np.float32), np.full((24, 3), 9, np.float32)])
    found = []
    for model, values, output in (
        ("colours", blues, "label"),
        ("iris", rows, "label"),
        ("level", windows, "numbers"),
    ):
        its_input = InferInput("tensor", list(values.shape), "FP32")
        its_input.set_data_from_numpy(values, binary_data=is_binary)
        request = InferRequest(model, [its_input], request_outputs=[RequestedOutput(output)])
        answer = await client.infer(url, request, model)
        found.append(answer.get_output_by_name(output).as_numpy().tolist())
    return found


asyncio.run(main())
