"""POST /predict, /predict/batch and /jobs with rows of numbers, for models whose input is no picture."""

import asyncio
import json
import struct
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from messaging.contract import TENSOR, ErrorCode, Failure, Reply, Request, ServedModel, sha256_of
from messaging.memory import MemoryBroker
from tests.unit.gateways import SANDAL, SMALL, TIMINGS, gateway, problem, sandal, working
from tests.unit.jobbing import Gateway, until_status

pytestmark = pytest.mark.anyio

IRIS = ServedModel(
    name="iris",
    version="3",
    runtime="onnx",
    labels=["setosa", "virginica"],
    kind="tensor",
    input="4 numbers (float32)",
    shape=(4,),
    dtype="float32",
    output="logits",
    output_size=2,
)
LEVEL = msgspec.structs.replace(
    IRIS,
    name="level",
    labels=[],
    shape=(2, 3),
    input="2 x 3 numbers (float32)",
    output="numbers",
    output_size=1,
)
SERVED = (SMALL, IRIS, LEVEL)
SETOSA, VIRGINICA = [5.1, 3.5, 1.4, 0.2], [6.3, 3.3, 6.0, 2.5]
SIX = [[1, 2, 3], [4, 5, 6.5]]


def growing(request: Request) -> Reply:
    """Of iris, what a short petal means; of level, the largest number, and an error for negative ones."""
    if not request.is_tensor:
        return sandal(request)
    answer: dict[str, Any]
    if request.model == "iris":
        petal = struct.unpack("<4f", request.body)[2]
        answer = {"probabilities": {"setosa": float(petal < 2), "virginica": float(petal >= 2)}}
    else:
        largest = max(struct.unpack("<6f", request.body))
        answer = {"outputs": [largest]}
        if largest < 0:
            answer = {"error": Failure(ErrorCode.INVALID_REQUEST, "too low")}
    return Reply(
        sha256=sha256_of(request.body),
        model=request.model,
        version="3",
        mode="tensor",
        timings=TIMINGS,
        **answer,
    )


async def ask(http: httpx.AsyncClient, model: str, body: Any, path: str = "/predict") -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"Content-Type": "application/json; charset=utf-8"}
    return await http.post(path, params={"model": model}, content=content, headers=headers)


async def test_a_row_is_answered_with_a_label() -> None:
    seen: list[Request] = []

    def noting(request: Request) -> Reply:
        seen.append(request)
        return growing(request)

    async with gateway(noting, served=SERVED) as http:
        response = await ask(http, "iris", {"inputs": [SETOSA]})
    answer = response.json()
    assert (response.status_code, answer["label"], answer["confidence"]) == (200, "setosa", 1.0)
    assert (answer["mode"], answer["model"], answer["version"]) == ("tensor", "iris", "3")
    assert "outputs" not in answer
    sent = struct.pack("<4f", *SETOSA)
    assert [(one.body, one.content_type) for one in seen] == [(sent, TENSOR)]
    assert answer["sha256"] == sha256_of(sent)


async def test_a_model_without_labels_answers_with_its_numbers() -> None:
    async with gateway(growing, served=SERVED) as http:
        answer = (await ask(http, "level", {"inputs": [SIX]})).json()
    assert (answer["label"], answer["confidence"], answer["probabilities"]) == (None, None, {})
    assert answer["outputs"] == [6.5]


async def test_the_default_model_may_be_one_of_numbers() -> None:
    default = msgspec.structs.replace(LEVEL, default=True)

    def answering(request: Request) -> Reply:
        return msgspec.structs.replace(growing(request), model="level")

    async with gateway(answering, served=(default,)) as http:
        answer = (await ask(http, "", {"inputs": [SIX]})).json()
    assert answer["outputs"] == [6.5]


async def test_a_batch_of_rows_is_answered_row_by_row() -> None:
    low = [[-1, -2, -3], [-4, -5, -6]]
    async with gateway(growing, served=SERVED) as http:
        answer = (await ask(http, "level", {"inputs": [SIX, low, SIX]}, "/predict/batch")).json()
    first, second, third = answer["results"]
    assert [one["index"] for one in answer["results"]] == [0, 1, 2]
    assert first["prediction"]["outputs"] == third["prediction"]["outputs"] == [6.5]
    assert (second["problem"]["status"], second["problem"]["detail"]) == (422, "too low")


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"inputs": [[1, 2, 3]]}, "4 values in each row, and there are 3"),
        ({"inputs": SETOSA}, "Expected `array`, got `float`"),
        ({"inputs": [[[1, 2, 3, 4]]]}, "Expected `float`, got `array`"),
        ({"inputs": [[1, 2], [3, 4]]}, "not nested according to its shape [1, 4]"),
        ({"inputs": [[1, 2, 3, "4"]]}, "Expected `float`, got `str`"),
        ({"inputs": [[1, 2, 3, 1e39]]}, "must be numbers of float32"),
        ({"inputs": []}, "and there are 1"),
        ({"instances": [SETOSA]}, "unknown field `instances`"),
        ({}, "required field `inputs`"),
        ([SETOSA], "Expected `object`, got `array`"),
        (b'{"inputs": [[1, 2, 3, NaN]]}', "JSON has no NaN and no Infinity"),
        (b'{"inputs": [[1, 2, 3, -Infinity]]}', "JSON has no NaN and no Infinity"),
        (b'{"inputs": [[1, 2, 3, 1e999]]}', "must be numbers of float32"),
        (b'{"inputs":' + 100_000 * b"[", "takes 4 numbers"),
        (b"\xff", "takes 4 numbers"),
        (b"", "takes 4 numbers"),
    ],
)
async def test_what_is_no_row_of_the_model_is_refused_in_one_line_that_says_what_it_takes(
    body: Any, says: str
) -> None:
    async with gateway(growing, served=SERVED) as http:
        detail = str(problem(await ask(http, "iris", body), 422)["detail"])
    assert detail.startswith('iris takes 4 numbers (float32), as {"inputs": [row]}: ')
    assert says in detail
    assert "\n" not in detail
    assert len(detail) < 300


async def test_more_rows_than_a_call_takes_are_refused() -> None:
    async with gateway(growing, served=SERVED, max_batch_files=2) as http:
        two = problem(await ask(http, "iris", {"inputs": [SETOSA, VIRGINICA]}), 422)
        three = problem(await ask(http, "iris", {"inputs": 3 * [SETOSA]}, "/predict/batch"), 422)
    assert two["detail"] == "2 rows in one request; send one, or more to /predict/batch"
    assert three["detail"] == "3 rows in one request; at most 2 are accepted"


async def test_pictures_and_numbers_are_not_taken_for_each_other() -> None:
    async with gateway(growing, served=SERVED) as http:
        numbers = problem(await ask(http, "fashion-mnist", {"inputs": [SETOSA]}), 422)
        cut = problem(await ask(http, "fashion-mnist", b'{"image": "iVBO'), 422)
        empty = problem(await ask(http, "fashion-mnist", b""), 422)
        unknown = problem(await ask(http, "none", {"inputs": [SETOSA]}), 404)
        undeclared = problem(await http.post("/predict", data={}, content=b'{"inputs": []}',
            headers={"Content-Type": "application/x-www-form-urlencoded"}), 415)  # fmt: skip
        picture = await http.post("/predict", content=SANDAL)
    assert (
        numbers["detail"]
        == 'fashion-mnist takes pictures: send a file, or JSON as {"image": "the file in base64"}'
    )
    assert str(cut["detail"]).endswith("the body is no JSON: Input data was truncated")
    assert str(empty["detail"]).endswith("; the body is empty")
    assert "served: fashion-mnist 1, iris 3, level 3" in str(unknown["detail"])
    assert "Content-Type: application/json" in str(undeclared["detail"])
    assert picture.status_code == 200


async def test_json_too_large_is_a_413() -> None:
    wide = msgspec.structs.replace(LEVEL, shape=(200_000,))
    body = json.dumps({"inputs": [200_000 * [0]]}).encode()
    async with gateway(growing, served=(wide,), max_upload_bytes=700_000) as http:
        row = problem(await ask(http, "level", body), 413)
    async with gateway(growing, served=(wide,)) as http:
        padded = problem(await ask(http, "level", body + b" " * 5_000_000), 413)
    assert row["detail"] == "a row has 800000 bytes; at most 700000 are accepted (gateway.max_upload_bytes)"
    assert "send fewer rows at once" in str(padded["detail"])


async def test_a_job_of_rows_has_a_result_for_each(tmp_path: Path) -> None:
    broker = MemoryBroker()
    with working(broker, growing, SERVED):
        async with Gateway(broker, tmp_path / "jobs.sqlite3").running() as http:
            while (await http.get("/health/ready")).status_code != 200:
                await asyncio.sleep(0.005)
            response = await ask(http, "iris", {"inputs": [SETOSA, VIRGINICA]}, "/jobs")
            assert response.status_code == 202, response.text
            job = await until_status(http, response.json()["id"], "done")
            refused = problem(await ask(http, "iris", {"inputs": [[1]]}, "/jobs"), 422)
    assert [one["prediction"]["label"] for one in job["results"]] == ["setosa", "virginica"]
    assert [one["filename"] for one in job["results"]] == ["", ""]
    assert "4 values in each row" in str(refused["detail"])


async def test_the_documentation_has_rows_in_the_body_of_each_call() -> None:
    async with gateway(growing, served=SERVED) as http:
        document = (await http.get("/openapi.json")).json()
        for path in ("/predict", "/predict/batch"):
            content = document["paths"][path]["post"]["requestBody"]["content"]
            example = content["application/json"]["example"]
            assert (await ask(http, "iris", example, path)).status_code == 200
