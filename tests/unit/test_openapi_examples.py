"""What the OpenAPI document shows is what there is."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from gateway import errors
from gateway.answer import Prediction
from gateway.errors import GatewayError
from gateway.models import EXAMPLE
from gateway.openapi import DETAILS
from model import manifest as manifests
from tests.unit.gateways import PNG, SANDAL, gateway, sandal

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]


async def document() -> Any:
    async with gateway(None) as http:
        return (await http.get("/openapi.json")).json()


async def test_the_model_of_the_example_is_the_one_that_is_shipped() -> None:
    shipped = manifests.read(manifests.folder(ROOT / "weights", "fashion-mnist"))
    found = await document()
    schemas = found["components"]["schemas"]
    described = found["paths"]["/models/{name}"]["get"]["responses"]["200"]["content"]["application/json"]
    assert described["example"] == {
        **EXAMPLE,
        "name": shipped.name,
        "version": shipped.version,
        "labels": list(shipped.labels),
        "sha256": shipped.onnx.sha256,
        "accuracy": shipped.accuracy,
    }
    assert schemas["InferenceResponse"]["example"]["model_version"] == shipped.version
    parameters = found["paths"]["/v2/models/{name}/versions/{version}"]["get"]["parameters"]
    assert {"version": shipped.version}.items() <= {
        its["name"]: its.get("example") for its in parameters
    }.items()


async def test_the_answer_of_the_example_is_the_one_of_the_readme() -> None:
    (block,) = re.findall(r"^```json\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    said = json.loads(block)
    shown = (await document())["components"]["schemas"]["Prediction"]["example"]
    rest = said["probabilities"].pop("...")
    others = {name: its for name, its in shown["probabilities"].items() if name not in said["probabilities"]}
    assert sum(others.values()) == pytest.approx(rest)
    assert sum(shown["probabilities"].values()) == pytest.approx(1)
    assert shown["probabilities"].keys() == set(EXAMPLE["labels"])
    named = {name: shown["probabilities"][name] for name in said["probabilities"]}
    assert {**shown, "probabilities": named} == said
    async with gateway(sandal) as http:
        answer = (await http.post("/predict", content=SANDAL, headers=PNG)).json()
    assert answer.keys() == Prediction.example.keys()
    assert answer["timings"].keys() == Prediction.example["timings"].keys()
    assert answer["sha256"] == Prediction.example["sha256"]


def test_each_error_has_words_of_its_own() -> None:
    kinds = {
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, GatewayError)
    }
    assert DETAILS.keys() == kinds - {errors.Rejected}
    assert len(set(DETAILS.values())) == len(DETAILS)


@pytest.mark.parametrize(
    ("kind", "path", "body", "headers"),
    [
        (errors.InvalidRequest, "/predict?modle=x", SANDAL, PNG),
        (errors.NotAPicture, "/predict", b"text", PNG),
        (errors.UnacceptedMedia, "/predict", SANDAL, {"Content-Type": "text/html"}),
        (errors.UnacceptedCoding, "/predict", SANDAL, {**PNG, "Content-Encoding": "gzip"}),
        (
            errors.BrokenForm,
            "/predict",
            b"--boundary\r\n",
            {"Content-Type": "multipart/form-data; boundary=boundary"},
        ),
    ],
)
async def test_the_details_of_the_examples_are_what_is_answered(
    kind: type[GatewayError], path: str, body: bytes, headers: dict[str, str]
) -> None:
    async with gateway(sandal) as http:
        answer = (await http.post(path, content=body, headers=headers)).json()
    described = (await document())["paths"]["/predict"]["post"]["responses"][str(kind.status)]
    example = described["content"]["application/problem+json"]["examples"][kind.kind]["value"]
    assert {**answer, "request_id": example["request_id"]} == example


async def test_no_example_of_an_error_says_nothing() -> None:
    assert "what would be accepted" not in json.dumps((await document())["paths"])
