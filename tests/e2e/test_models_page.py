"""docs/models.md, line by line: a model that is written by hand, classified with, and served."""

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import numpy as np
import pytest
import yaml
from PIL import Image

from deploy.kafka.local_kafka import LocalKafka
from model import manifest as manifests
from tests import tensor_models
from tests.e2e.services import PATIENCE_S, ROOT, mlaas, service, until, up
from tests.e2e.test_over_apache_kafka import environment
from tests.image_models import convolutional

pytestmark = pytest.mark.all_models

PAGE = (ROOT / "docs" / "models.md").read_text()
SHELL = re.findall(r"^```sh\n(.*?)^```", PAGE, re.M | re.S)
(MANIFEST,) = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.M | re.S)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the reader of the page is, with a file of a model, a picture, and the shipped models."""
    place = tmp_path_factory.mktemp("models")
    for name in ("fashion-mnist", "fashion-mnist-large"):
        shutil.copytree(ROOT / "weights" / name, place / "weights" / name)
    (place / "flowers.onnx").write_bytes(convolutional(96))
    Image.new("RGB", (300, 200), (30, 240, 20)).save(place / "rose.png")
    (place / "iris.onnx").write_bytes(tensor_models.iris())
    (place / "level.onnx").write_bytes(tensor_models.level())
    (row,) = re.findall(r"^```json\n(.*?)^```", PAGE, re.M | re.S)
    (place / "row.json").write_text(row)
    (place / "pictures" / "more").mkdir(parents=True)
    for number in range(30):
        colour = tuple(np.roll((200, 90, 90), number).tolist())
        folder = place / "pictures" / ("more" if number % 2 else "")
        Image.new("RGB", (120, 100 + number), colour).save(folder / f"{number}.png")
    return place


def settings(folder: Path) -> dict[str, str]:
    return {"MLAAS_MODEL__WEIGHTS_DIR": str(folder / "weights")}


def run(folder: Path, script: str, **more: str) -> str:
    path = f"{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}"
    theirs = os.environ | settings(folder) | {"PATH": path} | more
    done = subprocess.run(
        ["bash", "-ec", script], cwd=folder, env=theirs, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def running(folder: Path) -> Iterator[str]:
    """`mlaas up`, started before the reader adds a model; its URL."""
    with up(**settings(folder)) as (_, url):
        yield url


@pytest.fixture(scope="module")
def added(running: str, folder: Path) -> str:
    return run(folder, SHELL[0])


def test_a_file_becomes_a_model_that_classifies(added: str, folder: Path) -> None:
    assert "rose.png: rose" in added
    assert (folder / "weights" / "flowers" / "1.0.0" / "golden" / "1.png").exists()
    assert json.loads(added.splitlines()[-1])["label"] == "rose"


def test_the_model_is_served_beside_the_shipped_ones_without_a_restart(
    added: str, running: str, folder: Path
) -> None:
    (curl,) = re.findall(r"^curl .*$", SHELL[1], re.M)
    url = running
    with httpx.Client(base_url=url, timeout=PATIENCE_S) as http:
        until(lambda: http.get("/models/flowers").status_code == 200, "serving flowers")
        answer = json.loads(run(folder, curl.replace("localhost:8000", url.removeprefix("http://"))))
        assert (answer["label"], answer["version"], answer["mode"]) == ("rose", "1.0.0", "image")
        assert (answer["in_distribution"], answer["ood_score"]) == (None, None)
        described = http.get("/models/flowers").json()
        assert (described["kind"], described["shape"], described["dtype"]) == (
            "image",
            [3, 96, 96],
            "float32",
        )
        assert described["input"].startswith("96 x 96 RGB")
        picture = (folder / "rose.png").read_bytes()
        answer = http.post("/predict", params={"model": "flowers", "explain": "input"}, content=picture)
        assert answer.json()["input"].startswith("data:image/png;base64,iVBOR")
        refused = http.post("/predict", params={"model": "flowers", "mode": "photo"}, content=picture)
        assert refused.status_code == 422
        assert "mode is for models of clothing" in refused.json()["detail"]
        values = {"name": "image", "datatype": "UINT8", "shape": [1, 28, 28], "data": [0] * 784}
        refused = http.post("/v2/models/flowers/infer", json={"inputs": [values]})
        assert refused.status_code == 400
        assert "datatype 'UINT8' is not accepted; accepted: BYTES" in refused.text
        assert http.get("/v2/models/flowers").json()["inputs"][0]["datatype"] == "BYTES"


def test_a_model_of_numbers_is_added_and_asked(folder: Path) -> None:
    add, serve, regression = (block for block in SHELL if "iris" in block or "level" in block)
    added = run(folder, add)
    assert "row.json: setosa" in added
    assert json.loads(added.splitlines()[-1])["label"] == "setosa"
    assert "output: 1 number, as there are no --labels" in run(folder, regression)
    (names,) = re.findall(r"--set 'model\.names=([^']*)'", serve)
    (curl,) = re.findall(r"^curl .*$", serve, re.M)
    with up(MLAAS_MODEL__NAMES=names, **settings(folder)) as (_, url):
        answer = json.loads(run(folder, curl.replace("localhost:8000", url.removeprefix("http://"))))
    assert (answer["label"], answer["mode"]) == ("setosa", "tensor")
    its = manifests.read(folder / "weights" / "iris" / "1.0.0")
    assert "`{shape: [4], dtype: float32}`" in PAGE
    assert (its.input.shape, its.input.dtype, its.kind) == ((4,), "float32", "tensor")


def test_a_folder_made_by_hand_is_checked(added: str, folder: Path) -> None:
    digest = run(folder, SHELL[2]).split()[0]
    text = MANIFEST.replace("THE-DIGEST-THAT-SHA256SUM-PRINTED", digest)
    (folder / "weights" / "flowers" / "1.1.0" / "model.yaml").write_text(text)
    (check,) = re.findall(r"`(mlaas models check [^`]*)`", PAGE)
    assert run(folder, check).startswith("flowers 1.1.0 can be served: onnx")


def test_versions_are_promoted_compared_shared_and_rolled_back(
    added: str, running: str, folder: Path
) -> None:
    flowers = folder / "weights" / "flowers"
    shutil.copytree(flowers / "1.0.0", flowers / "1.1.0", dirs_exist_ok=True)
    manifest = (flowers / "1.0.0" / "model.yaml").read_text().replace("version: 1.0.0", "version: 1.1.0")
    (flowers / "1.1.0" / "model.yaml").write_text(manifest)
    (script,) = [each for each in SHELL if "models promote" in each]
    expected = [
        {"1.0.0": 100},
        {"1.0.0": 100, "1.1.0": 0},
        {"1.0.0": 90, "1.1.0": 10},
        {"1.1.0": 100},
        {"1.0.0": 100},
    ]
    with httpx.Client(base_url=running, timeout=PATIENCE_S) as http:

        def are_served(shares: dict[str, int]) -> bool:
            versions = http.get("/models/flowers").json()["versions"]
            return {its["version"]: its["share_percent"] for its in versions} == shares

        for line, its in zip(script.splitlines(), expected, strict=True):
            run(folder, line)
            until(partial(are_served, its), line)


def test_the_line_for_imagenet_models_is_a_valid_preprocessing(folder: Path) -> None:
    (line,) = re.findall(r"PyTorch: `(\{.*?\})`", PAGE, re.S)
    its = yaml.safe_load(MANIFEST.replace("THE-DIGEST-THAT-SHA256SUM-PRINTED", 64 * "a"))
    its["preprocessing"] = yaml.safe_load(line)
    changed = folder / "other" / "flowers" / "1.1.0"
    changed.mkdir(parents=True)
    (changed / "model.yaml").write_text(yaml.safe_dump(its))
    assert manifests.read(changed).preprocessing.scale == "0..1"


def test_every_field_of_the_manifest_is_on_the_page() -> None:
    fields = {
        *manifests.Manifest.__struct_fields__,
        *manifests.PictureInput.__struct_fields__,
        *manifests.TensorInput.__struct_fields__,
        *manifests.ImagePreprocessing.__struct_fields__,
        *manifests.Export.__struct_fields__,
        *manifests.Golden.__struct_fields__,
    }
    assert not {field for field in fields if f"`{field}`" not in PAGE}


def test_a_model_with_a_queue_of_its_own_has_workers_of_its_own(added: str, folder: Path) -> None:
    (options,) = re.findall(r"^mlaas (--set 'topics\.queues=.*) up (--models .*)$", PAGE, re.M)
    before, after = (shlex.split(each) for each in options)
    arguments = [*before, "up", "--port", "0", *after]
    with service(*arguments, **settings(folder)) as running:
        url = running.wait_for(r"Ready: (http://\S+)")[1]
        picture = (folder / "rose.png").read_bytes()
        with httpx.Client(base_url=url, timeout=PATIENCE_S) as http:
            listed = {each["name"]: each for each in http.get("/models").json()["models"]}
            asked = {name: http.post("/predict", params={"model": name}, content=picture) for name in listed}
    assert "worker-1 serves the queue shared: fashion-mnist\n" in running.output
    assert "worker-slow-1 serves the queue slow: flowers\n" in running.output
    assert {name: (its["queue"], its["ready"], its["default"]) for name, its in listed.items()} == {
        "fashion-mnist": ("shared", True, True),
        "flowers": ("slow", True, False),
    }
    assert {name: answer.json()["model"] for name, answer in asked.items()} == {name: name for name in listed}


def test_on_several_machines_the_workers_of_a_queue_are_started_with_its_models(
    added: str, folder: Path, apache_kafka: LocalKafka
) -> None:
    (script,) = (each for each in SHELL if "mlaas topics create" in each)
    (queues,) = re.findall(r"^export MLAAS_TOPICS__QUEUES='(.*)'$", script, re.M)
    *first, worker = script.splitlines()
    theirs = environment(apache_kafka)
    requests, jobs = (f"{theirs[f'MLAAS_TOPICS__{name}']}.slow" for name in ("REQUESTS", "JOBS"))
    created = run(folder, "\n".join(first), **theirs).splitlines()
    assert {f"{requests}: created", f"{jobs}: created"} <= set(created)
    theirs |= {"MLAAS_TOPICS__QUEUES": queues} | settings(folder)
    with service(*shlex.split(worker.removeprefix("mlaas ")), **theirs) as running:
        for number in (1, 2):
            running.wait_for(f"worker-slow-{number} serves the queue slow: flowers")
        running.wait_for(f"assigned partitions of {re.escape(requests)}")
        sent = mlaas("send", "--wait", "--model", "flowers", str(folder / "rose.png"), **theirs)
    assert json.loads(sent.stdout)["model"] == "flowers"
    assert f"partitions of {theirs['MLAAS_TOPICS__REQUESTS']}:" not in running.output


def test_the_model_is_quantized(added: str, folder: Path) -> None:
    (script,) = [each for each in SHELL if "--int8" in each]
    said = run(folder, script)
    (shown,) = re.findall(r"^int8: .*$", PAGE, re.M)
    (printed,) = re.findall(r"^int8: the same .*$", said, re.M)
    assert re.sub(r"[\d.]+", "0", printed) == re.sub(r"[\d.]+", "0", shown)
    assert "of 30 pictures" in printed
    (made,) = re.findall(r"^(\S+) is ready", said, re.M)
    assert Path(made, "model.onnx").stat().st_size < 0.5 * (folder / "flowers.onnx").stat().st_size
