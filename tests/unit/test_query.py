"""What POST /predict can be asked besides the picture, and what it then says."""

import base64
import io
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from messaging.contract import MODES, Reply, Request
from model import preprocessing
from model.preprocessing import prepare
from tests.unit.gateways import PNG, SAMPLES, SANDAL, gateway, problem, sandal

pytestmark = pytest.mark.anyio


async def test_what_is_known_of_the_picture_comes_with_the_answer() -> None:
    def doubtful(request: Request) -> Reply:
        return msgspec.structs.replace(
            sandal(request), in_distribution=False, ood_score=1.5, mode="product", warnings=["very small"]
        )

    async with gateway(doubtful) as http:
        answer = (await http.post("/predict", content=SANDAL, headers=PNG)).json()
    assert (answer["in_distribution"], answer["ood_score"]) == (False, 1.5)
    assert (answer["mode"], answer["warnings"]) == ("product", ["very small"])
    assert "input" not in answer


async def test_the_query_reaches_the_worker() -> None:
    asked: list[tuple[str, str, str, str]] = []

    def noting(request: Request) -> Reply:
        asked.append((request.model, request.version, request.mode, request.explain))
        return sandal(request)

    async with gateway(noting) as http:
        everything = {"model": "large", "version": "1", "mode": "photo", "explain": "input"}
        for query in ({}, {"mode": ""}, everything):
            response = await http.post("/predict", params=query, content=SANDAL, headers=PNG)
            assert response.status_code == 200
    assert asked == [("", "", "auto", ""), ("", "", "auto", ""), ("large", "1", "photo", "input")]


@pytest.mark.parametrize("path", ["/predict", "/predict/batch"])
async def test_another_version_than_was_asked_for_is_never_passed_off_as_it(path: str) -> None:
    """Workers from before versions could be chosen answer with their own."""
    async with gateway(sandal) as http:
        files = {"file": SANDAL}
        right = await http.post(path, params={"version": "1"}, files=files)
        wrong = await http.post(path, params={"version": "2"}, files=files)
    assert '"label":"Sandal"' in right.text
    assert "label" not in wrong.text
    detail = "no model 'fashion-mnist' of version '2'; served: fashion-mnist 1"
    assert detail in wrong.text
    assert '"status":404' in wrong.text


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ({"mode": "sketch"}, ["mode", *MODES]),
        ({"mode": "RAW28"}, ["mode", *MODES]),
        ({"explain": "everything", "mode": "auto"}, ["explain 'everything'", "accepted: input"]),
    ],
)
async def test_a_query_that_cannot_be_is_a_problem_that_lists_what_can(
    query: dict[str, str], says: list[str]
) -> None:
    async with gateway(sandal) as http:
        response = await http.post("/predict", params=query, content=SANDAL, headers=PNG)
    detail = str(problem(response, 422)["detail"])
    assert all(word in detail for word in says), detail


@pytest.mark.parametrize("path", ["/predict", "/predict/batch"])
@pytest.mark.parametrize("name", ["modle", "Model", "timeout_s", "", "ü"])
async def test_a_parameter_that_there_is_not_is_a_problem_that_names_it_and_those_that_there_are(
    path: str, name: str
) -> None:
    async with gateway(sandal) as http:
        query = {"model": "fashion-mnist", name: "x"}
        response = await http.post(path, params=query, files={"file": SANDAL})
    wanted = f"unknown parameter {name!r}; known: model, version, mode, explain, top_k"
    assert problem(response, 422)["detail"] == wanted


async def test_a_parameter_that_is_given_twice_is_a_problem() -> None:
    async with gateway(sandal) as http:
        response = await http.post("/predict?top_k=1&top_k=2", content=SANDAL, headers=PNG)
    assert problem(response, 422)["detail"] == "top_k is given more than once"


@pytest.mark.parametrize("path", ["/predict", "/predict/batch"])
@pytest.mark.parametrize("name", ["model", "version", "mode", "explain", "top_k"])
async def test_a_parameter_among_the_fields_of_the_form_is_told_where_it_belongs(
    path: str, name: str
) -> None:
    async with gateway(sandal) as http:
        response = await http.post(path, data={name: "1"}, files={"file": SANDAL})
    assert problem(response, 422)["detail"] == f"'{name}' belongs in the query: {path}?{name}=…"


async def test_other_fields_of_the_form_say_nothing() -> None:
    files = [("file", ("a.png", SANDAL)), ("model", ("b.png", SANDAL))]
    async with gateway(sandal) as http:
        stray = await http.post("/predict", data={"note": "x", "Model": "x"}, files={"file": SANDAL})
        a_file = await http.post("/predict/batch", files=files)
    assert (stray.status_code, a_file.status_code, len(a_file.json()["results"])) == (200, 200, 1)


@pytest.mark.parametrize("sample", sorted(SAMPLES.glob("*.png")), ids=lambda path: path.stem)
async def test_what_the_model_saw_comes_back_as_a_picture_of_exactly_that(sample: Path) -> None:
    saw = prepare(sample.read_bytes(), mode="product", max_pixels=1000).pixels

    def explaining(request: Request) -> Reply:
        return msgspec.structs.replace(sandal(request), input=saw.tobytes())

    async with gateway(explaining) as http:
        query = {"explain": "input"}
        response = await http.post("/predict", params=query, content=sample.read_bytes(), headers=PNG)
    kind, _, data = response.json()["input"].partition(",")
    assert kind == "data:image/png;base64"
    with Image.open(io.BytesIO(base64.b64decode(data, validate=True))) as picture:
        assert (picture.format, picture.mode) == ("PNG", "L")
        assert np.array_equal(np.asarray(picture), saw)


async def test_the_documentation_lists_every_mode_that_there_is() -> None:
    async with gateway(None) as http:
        schema = (await http.get("/openapi.json")).json()
    described = schema["paths"]["/predict"]["post"]["parameters"]
    parameters = {found["name"]: found["schema"] for found in described if found["in"] == "query"}
    assert set(parameters) == {"model", "version", "mode", "explain", "top_k"}
    assert tuple(parameters["mode"]["enum"]) == (*MODES, "")
    assert MODES == preprocessing.MODES
    assert parameters["mode"]["default"] == "auto"


async def test_the_answer_has_the_fields_that_the_documentation_says() -> None:
    def explaining(request: Request) -> Reply:
        return msgspec.structs.replace(sandal(request), input=bytes(784))

    async with gateway(explaining) as http:
        response = await http.post("/predict?explain=input", content=SANDAL, headers=PNG)
        schema = (await http.get("/openapi.json")).json()
    documented = set(schema["components"]["schemas"]["Prediction"]["properties"])
    assert {*response.json(), "outputs"} == documented  # outputs are those of models without labels
