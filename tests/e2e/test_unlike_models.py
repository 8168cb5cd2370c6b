"""Models of every kind side by side, asked by Triton's client, over HTTP, and by the command."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from mlaas_client import Client, Refused
from tests import tensor_models
from tests.e2e.protocol_page import triton_client, unlike_models
from tests.e2e.services import PATIENCE_S, ROOT
from tests.tensor_models import SETOSA, VIRGINICA

NAMES = ("fashion-mnist", "colours", "iris", "level", "words")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with unlike_models(tmp_path_factory.mktemp("weights")) as its_url:
        yield its_url


@pytest.fixture
def client(url: str) -> Iterator[triton.InferenceServerClient]:
    with triton_client(url) as its_client:
        yield its_client


def blues(count: int) -> np.ndarray:
    """As the network of colours takes them."""
    values = np.zeros((count, 3, 96, 96), np.float32)
    values[:, 2] = 1
    return values


WINDOWS = np.stack([np.full((24, 3), 4, np.float32), np.full((24, 3), 9, np.float32)])


@pytest.mark.parametrize("is_binary", [True, False], ids=["binary", "JSON"])
@pytest.mark.parametrize(
    ("name", "values", "datatype", "output", "expected"),
    [
        ("colours", blues(2), "FP32", "label", ["blue", "blue"]),
        ("iris", np.array([SETOSA, VIRGINICA], np.float32), "FP32", "label", ["setosa", "virginica"]),
        ("iris", np.array([SETOSA, VIRGINICA], np.float32), "FP32", "class", [0, 2]),
        ("level", WINDOWS, "FP32", "numbers", [[2.0], [3.0]]),
        ("words", np.array([[1, 2, 4]]), "INT64", "numbers", [[0.875, 70.0]]),
    ],
)
def test_triton_gives_each_model_what_its_network_takes(
    client: triton.InferenceServerClient,
    name: str,
    values: np.ndarray,
    datatype: str,
    output: str,
    expected: list[Any],
    is_binary: bool,
) -> None:
    its_input = triton.InferInput("tensor", list(values.shape), datatype)
    its_input.set_data_from_numpy(values, binary_data=is_binary)
    wanted = triton.InferRequestedOutput(output, binary_data=is_binary)
    answer = client.infer(name, [its_input], outputs=[wanted], model_version="1.0.0")
    found = answer.as_numpy(output).tolist()
    assert [each.decode() if isinstance(each, bytes) else each for each in found] == expected


def test_the_metadata_are_enough_to_ask_any_model(client: triton.InferenceServerClient) -> None:
    types = {"FP32": np.float32, "INT64": np.int64, "UINT8": np.uint8}
    for name in NAMES:
        metadata = client.get_model_metadata(name)
        its = metadata["inputs"][-1]
        values = np.zeros([1, *its["shape"][1:]], types[its["datatype"]])
        its_input = triton.InferInput(its["name"], list(values.shape), its["datatype"])
        its_input.set_data_from_numpy(values)
        answer = client.infer(name, [its_input])
        for output in metadata["outputs"]:
            found = answer.as_numpy(output["name"])
            assert list(found.shape[1:]) == output["shape"][1:], (name, output)


def test_triton_lists_the_repository_and_learns_that_models_are_managed_elsewhere(
    client: triton.InferenceServerClient,
) -> None:
    listed = client.get_model_repository_index()
    assert [(each["name"], each["state"]) for each in listed] == [(name, "READY") for name in NAMES]
    client.load_model("iris")
    with pytest.raises(InferenceServerException, match="no model 'none'"):
        client.load_model("none")
    with pytest.raises(InferenceServerException, match="iris is served because the workers have its folder"):
        client.unload_model("iris")
    assert client.is_model_ready("iris")


def test_a_row_that_the_network_cannot_compute_fails_alone(url: str) -> None:
    rows = [[1, 2, 4], [1, 2, 99], [0, 0, 0]]
    with httpx.Client(base_url=url, timeout=PATIENCE_S) as http:
        answer = http.post("/predict/batch", params={"model": "words"}, json={"inputs": rows}).json()
    first, second, third = answer["results"]
    assert first["prediction"]["outputs"] == [0.875, 70.0]
    assert third["prediction"]["outputs"] == [0.0, 0.0]
    assert second["problem"]["status"] == 422
    assert "idx=99 must be within" in second["problem"]["detail"]


def test_the_client_asks_about_rows_and_is_told_who_takes_pictures(url: str) -> None:
    with Client(url) as asking:
        assert asking.predict_row(SETOSA, model="iris").label == "setosa"
        assert asking.predict_row(WINDOWS[1], model="level").outputs == [3.0]
        kinds = {model.name: (model.kind, model.shape) for model in asking.models()}
        with pytest.raises(Refused, match=r"iris takes 4 numbers \(float32\), not pictures"):
            asking.predict(ROOT / "samples" / "sandal.png", model="iris")
        with pytest.raises(Refused, match="colours takes pictures"):
            asking.predict_row(SETOSA, model="colours")
        assert asking.predict(ROOT / "samples" / "sandal.png").label == "Sandal"
    assert kinds["iris"] == ("tensor", [4])
    assert kinds["colours"] == ("image", [3, 96, 96])
    assert kinds["fashion-mnist"] == ("garment", [28, 28])


def test_the_command_asks_about_a_row_in_a_file(url: str, tmp_path: Path) -> None:
    file = tmp_path / "row.json"
    file.write_bytes(tensor_models.row_of(VIRGINICA))
    command = [sys.executable, "-m", "mlaas", "predict", "--url", url, "--model", "iris", "--json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["label"] == "virginica"
