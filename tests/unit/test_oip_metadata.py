"""The Open Inference Protocol over a broker in memory: all but inference."""

import httpx
import pytest

from tests.unit.gateways import LABELS, SMALL, gateway, sandal
from tests.unit.inferring import INFER, refused, seeing

pytestmark = pytest.mark.anyio

MODEL = "/v2/models/fashion-mnist"


async def test_the_server_says_what_it_is_and_which_extensions_it_has() -> None:
    async with gateway(None) as http:
        answer = (await http.get("/v2")).json()
        assert (await http.get("/v2/")).json() == answer
    assert answer["name"] == "mlaas"
    assert answer["extensions"] == ["binary_tensor_data", "classification", "model_repository"]
    assert isinstance(answer["version"], str)


async def test_it_is_live_and_while_a_worker_answers_ready() -> None:
    async with gateway(sandal) as http:
        live, ready = await http.get("/v2/health/live"), await http.get("/v2/health/ready")
        model_ready = await http.get(f"{MODEL}/ready")
    assert (live.status_code, live.json()) == (200, {"live": True})
    assert (ready.status_code, ready.json()) == (200, {"ready": True})
    assert (model_ready.status_code, model_ready.json()) == (200, {"name": "fashion-mnist", "ready": True})


async def test_without_a_worker_it_is_live_and_not_ready() -> None:
    async with gateway(None) as http:
        live, ready = await http.get("/v2/health/live"), await http.get("/v2/health/ready")
        others = [await http.get(MODEL), await http.get(f"{MODEL}/ready")]
    assert live.status_code == 200
    assert (ready.status_code, ready.json()["ready"]) == (503, False)
    assert ready.json()["error"]
    for response in (ready, *others):
        assert int(response.headers["retry-after"]) > 0
    for response in others:
        refused(response, 503)


@pytest.mark.parametrize("path", [MODEL, f"{MODEL}/versions/1"])
async def test_a_model_says_what_it_takes_and_gives(path: str) -> None:
    async with gateway(sandal) as http:
        answer = (await http.get(path)).json()
    assert (answer["name"], answer["versions"], answer["platform"]) == ("fashion-mnist", ["1"], "onnx_onnxv1")
    (its_input,) = answer["inputs"]
    assert (its_input["name"], its_input["datatype"], its_input["shape"]) == ("image", "UINT8", [-1, 28, 28])
    assert {"UINT8", "FP32", "BYTES", "content"} == set(its_input["parameters"])
    assert [(one["name"], one["datatype"], one["shape"]) for one in answer["outputs"]] == [
        ("probabilities", "FP32", [-1, 10]),
        ("label", "BYTES", [-1]),
        ("class", "INT64", [-1]),
    ]
    assert answer["parameters"] == {"labels": LABELS, "sha256": SMALL.sha256, "accuracy": SMALL.accuracy}


async def test_the_other_model_runs_on_keras() -> None:
    async with gateway(sandal) as http:
        assert (await http.get("/v2/models/fashion-mnist-large")).json()["platform"] == "keras_keras"


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/v2/models/none", "no model 'none'; served: fashion-mnist 1, fashion-mnist-large 1"),
        ("/v2/models/none/ready", "no model 'none'"),
        (f"{MODEL}/versions/2", "no model 'fashion-mnist' of version '2'; served: fashion-mnist 1"),
        (f"{MODEL}/versions/2/ready", "of version '2'"),
        ("/v2/models", "/v2/models does not exist; /docs lists every call"),
        ("/v2/repository", "/v2/repository does not exist; /docs lists every call"),
    ],
)
async def test_what_there_is_not_is_a_404_in_the_protocols_form(path: str, says: str) -> None:
    async with gateway(sandal) as http:
        assert says in refused(await http.get(path), 404)


async def test_a_wrong_method_is_said_in_the_protocols_form_and_elsewhere_in_the_usual_one() -> None:
    async with gateway(sandal) as http:
        inside, outside = await http.get(f"{MODEL}/infer"), await http.get("/predict")
        at_the_root = await http.post("/v2")
        beside = await http.get("/v2x")
    assert "method" in refused(inside, 405)
    assert inside.headers["allow"] == "POST, OPTIONS"
    refused(at_the_root, 405)
    assert outside.headers["content-type"] == beside.headers["content-type"] == "application/problem+json"


async def test_probes_are_not_counted_and_questions_are_under_their_pattern() -> None:
    async with gateway(sandal) as http:
        for path in ("/v2/health/live", "/v2/health/ready", MODEL):
            await http.get(path)
        text = (await http.get("/metrics")).text
    assert 'mlaas_requests_total{code="200",route="/v2/models/{name}"} 1.0' in text
    assert "/v2/health" not in text


async def test_the_documentation_has_every_route_with_every_error_that_it_can_give() -> None:
    async with gateway(sandal) as http:
        document = (await http.get("/openapi.json")).json()
        answer = (await http.get(MODEL)).json()
    of_models = {"200", "404", "429", "500", "503", "504"}
    for path, statuses in {
        "/v2": {"200"},
        "/v2/health/live": {"200", "503"},
        "/v2/health/ready": {"200", "503"},
        "/v2/models/{name}": of_models,
        "/v2/models/{name}/ready": of_models,
        "/v2/models/{name}/versions/{version}": of_models,
        "/v2/models/{name}/versions/{version}/ready": of_models,
    }.items():
        route = document["paths"][path]["get"]
        assert set(route["responses"]) == statuses
        named = {parameter["name"] for parameter in route.get("parameters", []) if parameter["in"] == "path"}
        assert named == {part.strip("{}") for part in path.split("/") if part.startswith("{")}
    assert set(answer) == set(document["components"]["schemas"]["ModelMetadata"]["properties"])


async def test_the_examples_of_the_documentation_are_answered_as_it_says() -> None:
    async with gateway(seeing) as http:
        document = (await http.get("/openapi.json")).json()
        for path in (INFER, INFER.replace("/infer", "/versions/1/infer")):
            route = document["paths"][path.replace("fashion-mnist", "{name}").replace("/1/", "/{version}/")][
                "post"
            ]
            examples = route["requestBody"]["content"]["application/json"]["examples"]
            assert set(examples) == {"pixels", "file"}
            for example in examples.values():
                response: httpx.Response = await http.post(path, json=example["value"])
                assert response.status_code == 200, response.text
            assert set(route["responses"]) == {
                "200", "400", "404", "408", "413", "415", "429", "500", "503", "504",
            }  # fmt: skip
