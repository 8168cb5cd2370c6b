"""The Open Inference Protocol and GET /models, asked by clients that others wrote, of everything running."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from model import manifest as manifests
from model.classifier import load
from tests.e2e.protocol_page import blocks, run, triton_client
from tests.e2e.services import PATIENCE_S, ROOT, SAMPLES, label_of, up

pytestmark = pytest.mark.all_models

NAMES = ("fashion-mnist", "fashion-mnist-large")
SLICE = np.load(ROOT / "tests" / "data" / "fashion-mnist-test-500.npz")
PICTURES = SLICE["images"][:256]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with up() as (_, its_url):
        yield its_url


@pytest.fixture
def client(url: str) -> Iterator[triton.InferenceServerClient]:
    with triton_client(url) as its_client:
        yield its_client


@pytest.fixture(scope="module")
def expected() -> np.ndarray:
    """What the model itself says of the pictures."""
    return load(ROOT / "weights", "fashion-mnist", "onnx", 1).predict(PICTURES).answers


def tensor(values: np.ndarray, datatype: str, *, is_binary: bool = True) -> triton.InferInput:
    its_input = triton.InferInput("image", list(values.shape), datatype)
    its_input.set_data_from_numpy(values, binary_data=is_binary)
    return its_input


def files(*paths: Path) -> np.ndarray:
    return np.array([path.read_bytes() for path in paths], dtype=object)


def test_triton_finds_the_server_and_its_models_ready(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.get_server_metadata()["extensions"] == [
        "binary_tensor_data",
        "classification",
        "model_repository",
    ]
    for name in NAMES:
        version = manifests.read(manifests.folder(ROOT / "weights", name)).version
        assert client.is_model_ready(name)
        assert client.is_model_ready(name, version)
        assert client.get_model_metadata(name, version)["versions"] == [version]
    assert not client.is_model_ready("none")
    assert not client.is_model_ready("fashion-mnist", "99")


@pytest.mark.parametrize("is_binary", [True, False], ids=["binary", "JSON"])
@pytest.mark.parametrize("datatype", ["UINT8", "FP32"])
def test_pixels_from_triton_get_the_models_own_probabilities(
    client: triton.InferenceServerClient, expected: np.ndarray, datatype: str, is_binary: bool
) -> None:
    values = PICTURES if datatype == "UINT8" else (PICTURES / 255).astype(np.float32)
    answer = client.infer(
        "fashion-mnist", [tensor(values, datatype, is_binary=is_binary)], request_id="its-own"
    )
    probabilities = answer.as_numpy("probabilities")
    assert (probabilities.dtype, probabilities.shape) == (np.float32, (256, 10))
    assert np.allclose(probabilities, expected, atol=2e-5)
    assert np.array_equal(answer.as_numpy("class"), expected.argmax(axis=1))
    assert (answer.as_numpy("class") == SLICE["labels"][:256]).mean() > 0.85
    assert answer.get_response()["id"] == "its-own"
    assert (
        answer.get_response()["model_version"]
        == manifests.read(manifests.folder(ROOT / "weights", NAMES[0])).version
    )


@pytest.mark.parametrize("name", NAMES)
def test_files_from_triton_are_answered_by_the_model_that_is_asked(
    client: triton.InferenceServerClient, name: str
) -> None:
    answer = client.infer(name, [tensor(files(*SAMPLES), "BYTES")])
    assert [label.decode() for label in answer.as_numpy("label")] == [label_of(sample) for sample in SAMPLES]
    assert answer.get_response()["model_name"] == name


def test_triton_gets_the_outputs_that_it_asks_for_in_the_form_that_it_wants(
    client: triton.InferenceServerClient,
) -> None:
    outputs = [
        triton.InferRequestedOutput("label", binary_data=False),
        triton.InferRequestedOutput("probabilities", class_count=2),
    ]
    version = manifests.read(manifests.folder(ROOT / "weights", "fashion-mnist")).version
    answer = client.infer(
        "fashion-mnist",
        [tensor(files(ROOT / "samples" / "sandal.png"), "BYTES")],
        model_version=version,
        outputs=outputs,
        timeout=30_000_000,
        parameters={"mode": "raw28"},
    )
    assert list(answer.as_numpy("label")) == ["Sandal"]
    first, second = answer.as_numpy("probabilities")[0]
    assert re.fullmatch(rb"0\.9\d{5}:5:Sandal|1\.000000:5:Sandal", first)
    assert re.fullmatch(rb"0\.\d{6}:\d:.+", second)
    assert answer.as_numpy("class") is None


def test_many_at_once_from_triton_get_each_its_own(url: str, expected: np.ndarray) -> None:
    with triton.InferenceServerClient(url.removeprefix("http://"), concurrency=8) as client:
        waiting = [
            client.async_infer("fashion-mnist", [tensor(PICTURES[[row]], "UINT8")]) for row in range(40)
        ]
        for row, one in enumerate(waiting):
            answer = one.get_result(timeout=PATIENCE_S)
            assert np.allclose(answer.as_numpy("probabilities")[0], expected[row], atol=2e-5)


@pytest.mark.parametrize(
    ("name", "version", "values", "datatype", "status", "says"),
    [
        ("none", "", PICTURES[:1], "UINT8", "404", "no model 'none'"),
        ("fashion-mnist", "99", PICTURES[:1], "UINT8", "404", "served: fashion-mnist 1"),
        ("fashion-mnist", "", PICTURES[:1, :14], "UINT8", "400", "[n, 28, 28]"),
        ("fashion-mnist", "", PICTURES[:1].astype(np.float32), "FP32", "400", "0 to 1"),
        ("fashion-mnist", "", np.array([b"text"], object), "BYTES", "400", "picture 0"),
        ("fashion-mnist", "", SLICE["images"][:257], "UINT8", "413", "at most 256"),
    ],
)
def test_triton_understands_what_is_wrong(
    client: triton.InferenceServerClient,
    name: str,
    version: str,
    values: Any,
    datatype: str,
    status: str,
    says: str,
) -> None:
    with pytest.raises(InferenceServerException) as raised:
        client.infer(name, [tensor(values, datatype)], model_version=version)
    assert raised.value.status() == status
    assert says in raised.value.message()


def test_the_models_are_listed_as_their_manifests_have_them(url: str) -> None:
    with httpx.Client(base_url=url, timeout=PATIENCE_S) as http:
        listed = http.get("/models")
        default, *others = listed.json()["models"]
        assert (default["name"], default["default"]) == (NAMES[0], True)
        assert sorted(model["name"] for model in others) == ["clothing-photo", *NAMES[1:]]
        assert not any(model["default"] for model in others)
        for name in NAMES:
            one = http.get(f"/models/{name}")
            manifest = manifests.read(manifests.folder(ROOT / "weights", name))
            assert one.json()["sha256"] == manifest.onnx.sha256
            assert one.json()["accuracy"] == manifest.accuracy
            assert one.json()["labels"] == list(manifest.labels)
            head = http.head(f"/models/{name}")
            assert (head.content, head.headers["content-length"]) == (b"", str(len(one.content)))
            unchanged = http.get(f"/models/{name}", headers={"If-None-Match": one.headers["etag"]})
            assert unchanged.status_code == 304
        assert http.get("/models/none").status_code == 404


def test_the_curl_lines_of_the_page_are_answered(url: str) -> None:
    metadata, answer = (
        run(["bash", "-c", block.replace("localhost:8000", url.removeprefix("http://"))])
        for block in blocks("sh")
    )
    assert '"inputs":[{"name":"image"' in metadata
    assert '"data":["Sandal"]' in answer


def test_the_lines_for_tritons_client_print_the_labels(url: str) -> None:
    (code,) = [block for block in blocks("python") if "tritonclient" in block]
    printed = run([sys.executable, "-c", code.replace("localhost:8000", url.removeprefix("http://"))])
    assert printed.startswith(("[b'Bag' b'Dress'] [0.9", "[b'Bag' b'Dress'] [1."))
