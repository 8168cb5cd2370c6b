"""The Open Inference Protocol, asked by KServe's own client, of everything running."""

import json
import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from model.classifier import load
from tests.e2e.protocol_page import blocks, run, unlike_models
from tests.e2e.services import PATIENCE_S, ROOT

KSERVE = "kserve==0.21.0"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with unlike_models(tmp_path_factory.mktemp("weights")) as its_url:
        yield its_url


@pytest.fixture(scope="module")
def kserve_python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """In an environment of its own, with older versions of some packages; it finds the others in this one."""
    place = tmp_path_factory.mktemp("kserve")
    python = str(place / "bin" / "python")
    make = [sys.executable, "-m", "venv", "--without-pip", str(place)]
    subprocess.run(make, check=True, timeout=PATIENCE_S)
    (packages,) = place.glob("lib/python*/site-packages")
    (packages / "others.pth").write_text(sysconfig.get_path("purelib"))
    install = ["-m", "pip", "--python", python, "install", "-q", "--no-compile", KSERVE]
    done = subprocess.run([sys.executable, *install], capture_output=True, text=True, timeout=800)
    if done.returncode != 0:
        reason = f"{KSERVE} cannot be installed here: {done.stderr.strip()[-300:]}"
        (pytest.fail if os.environ.get("REQUIRE_KSERVE") else pytest.skip)(reason)
    return python


@pytest.mark.timeout(900)
def test_the_lines_for_kserves_client_print_the_answer(url: str, kserve_python: str) -> None:
    (code,) = [block for block in blocks("python") if "kserve" in block]
    printed = run([kserve_python, "-c", code.replace("http://localhost:8000", url)])
    assert "'probabilities': array([[" in printed
    assert "'class': array([" in printed


@pytest.mark.timeout(900)
def test_kserve_asks_in_every_form(url: str, kserve_python: str) -> None:
    data, picture = ROOT / "tests" / "data" / "fashion-mnist-test-500.npz", ROOT / "samples" / "sandal.png"
    printed = run(
        [kserve_python, str(Path(__file__).with_name("ask_by_kserve.py")), url, str(data), str(picture)]
    )
    *probabilities, from_binary, from_json, error, in_binary, in_json = json.loads(printed.splitlines()[-1])
    expected = load(ROOT / "weights", "fashion-mnist", "onnx", 1).predict(np.load(data)["images"][:32])
    assert len(probabilities) == 4
    for rows in probabilities:
        assert np.allclose(rows, expected.answers, atol=2e-5)
    assert from_binary == from_json == ["Sandal"]
    assert "[n, 28, 28]" in error
    assert "400" in error
    assert in_binary == in_json == [["blue", "blue"], ["setosa", "virginica"], [[2.0], [3.0]]]
