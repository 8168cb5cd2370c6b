"""What `pip install` takes from a checkout is whole."""

import json
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

from tests.e2e.services import ROOT


def test_the_wheel_answers_away_from_the_checkout(tmp_path: Path) -> None:
    checkout, installed = tmp_path / "checkout", tmp_path / "installed"
    checkout.mkdir()  # building leaves folders behind
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, checkout)
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    for package in packages:
        if "." not in package:
            shutil.copytree(ROOT / package, checkout / package)
    build = ["-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", "wheels", "."]
    subprocess.run([sys.executable, *build], cwd=checkout, check=True, timeout=300)
    (wheel,) = (checkout / "wheels").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    shutil.rmtree(checkout)

    def python(*arguments: str) -> str:
        return subprocess.check_output(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(installed)},
            timeout=100,
            text=True,
        )

    assert Path(python("-c", "import mlaas; print(mlaas.__file__)")).is_relative_to(installed)
    said = python("-m", "mlaas", "predict", "--local", str(ROOT / "samples" / "sandal.png"))
    assert json.loads(said)["label"] == "Sandal"
