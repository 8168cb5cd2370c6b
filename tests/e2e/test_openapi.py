"""The OpenAPI document against the real processes, as schemathesis makes requests of it."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from gateway.api_keys import digest_of
from tests import second_model, tensor_models
from tests.e2e.services import ROOT, Service, up

KEY = "mlaas_schemathesis"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Service, str]]:
    """With keys, so that it is seen which routes want one."""
    file: Path = tmp_path_factory.mktemp("keys") / "api-keys"
    file.write_text(f"schemathesis {digest_of(KEY)}\n")
    weights_dir = tmp_path_factory.mktemp("weights")
    second_model.copy_shipped(weights_dir)
    tensor_models.write_iris(weights_dir)
    of_models = {"MLAAS_MODEL__NAMES": "[fashion-mnist, iris]", "MLAAS_MODEL__WEIGHTS_DIR": str(weights_dir)}
    with up(MLAAS_GATEWAY__API_KEYS_FILE=str(file), **of_models) as started:
        yield started


@pytest.mark.timeout(300)
def test_every_answer_is_one_that_the_document_says(running: tuple[Service, str], tmp_path: Path) -> None:
    """No 5xx, nothing that is not documented, nothing valid refused, nothing wrong accepted."""
    service, url = running
    here = Path(__file__).parent
    run = [
        str(Path(sys.executable).with_name("schemathesis")),
        *("--config-file", str(here / "schemathesis.toml"), "run", f"{url}/openapi.json"),
        *("--phases", "examples,coverage,fuzzing", "--no-color", "--header", f"X-API-Key: {KEY}"),
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SCHEMATHESIS_HOOKS": "tests.e2e.openapi_hooks"}
    done = subprocess.run(run, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout + done.stderr
    operations = httpx.get(f"{url}/openapi.json").json()["paths"].values()
    assert f"Tested: {sum(map(len, operations))}\n" in done.stdout
    assert re.search(r"(\d{3,}) generated, \1 passed", done.stdout), done.stdout
    assert "Traceback" not in service.output


def test_every_operation_documents_what_it_answers_by_example(running: tuple[Service, str]) -> None:
    document = httpx.get(f"{running[1]}/openapi.json").json()
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert operation["summary"], path
            all_of_them = operation["responses"].items()
            success = next((each for status, each in all_of_them if status.startswith("2")), None)
            if success is None:
                assert path.endswith("/unload")  # is always refused
            else:
                assert {"X-Request-ID", "Server-Timing"} <= set(success["headers"]), path
            for status, response in operation["responses"].items():
                if status in ("429", "503"):
                    assert "Retry-After" in response["headers"], (path, status)
                for content in response.get("content", {}).values():
                    assert "schema" in content, (path, status)
