"""What `pip install` takes from a checkout: the service is whole, the client is alone."""

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from collections.abc import Callable
from importlib.metadata import distribution
from pathlib import Path

import httpx
import pytest
import yaml

from mlaas import __version__
from tests.e2e.services import ROOT, label_of, until

PACKAGES = {"configs", "gateway", "messaging", "mlaas", "mlaas_client", "model", "weights", "worker"}
SANDAL = ROOT / "samples" / "sandal.png"
SERVICE = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CLIENT = tomllib.loads((ROOT / "client" / "pyproject.toml").read_text())["project"]


def test_service_client_and_chart_have_one_version() -> None:
    chart = yaml.safe_load((ROOT / "deploy" / "helm" / "Chart.yaml").read_text())
    assert {CLIENT["version"], chart["version"], chart["appVersion"]} == {__version__}


def test_a_script_beside_a_clone_finds_the_package_and_not_the_folder_of_that_name(tmp_path: Path) -> None:
    """In the environment that make has made."""
    (tmp_path / "mlaas").mkdir()
    script = tmp_path / "ask.py"
    script.write_text("from mlaas import Client; print(Client.__module__)")
    outside = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    for command in (["ask.py"], ["-m", "mlaas", "--version"]):
        done = subprocess.run(
            [sys.executable, *command], cwd=tmp_path, env=outside, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{done.stderr}\nmake install mends an environment of before"
        assert done.stdout.strip() in ("mlaas_client.clients", f"mlaas, version {__version__}")


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Of mlaas and mlaas_client, built from a copy: building leaves folders behind."""
    checkout = tmp_path_factory.mktemp("checkout")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, checkout)
    for name in ("client", "tests", *(PACKAGES - {"mlaas_client"})):
        shutil.copytree(ROOT / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
    teacher = checkout / "weights" / "fashion-mnist-teacher" / "1.0.0"
    teacher.mkdir(parents=True)
    (teacher / "model.keras").write_bytes(b"teaches, and is not shipped")
    built = {}
    for source in (".", "./client"):
        build = ["-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", "wheels", source]
        subprocess.run([sys.executable, *build], cwd=checkout, check=True, timeout=300)
    for wheel in (checkout / "wheels").glob("*.whl"):
        built[wheel.name.partition("-")[0]] = wheel
    return built


@pytest.fixture(scope="module")
def installed(wheels: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the service is installed in."""
    folder = tmp_path_factory.mktemp("environment") / "site-packages"
    with zipfile.ZipFile(wheels["mlaas"]) as archive:
        archive.extractall(folder)
    return folder


def contents(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if ".dist-info/" not in name}


def sources(folder: Path) -> set[str]:
    files = (file for file in folder.rglob("*") if file.is_file() and "__pycache__" not in file.parts)
    return {str(file.relative_to(folder.parent)) for file in files}


def test_the_service_is_whole_and_has_nothing_else(wheels: dict[str, Path]) -> None:
    found = contents(wheels["mlaas"])
    assert {name.partition("/")[0] for name in found} == PACKAGES
    code = PACKAGES - {"configs", "weights", "mlaas_client"}
    wanted = set().union(*(sources(ROOT / name) for name in code), sources(ROOT / "client" / "mlaas_client"))
    assert {name for name in found if not name.startswith(("configs/", "weights/"))} == wanted
    assert {name for name in found if name.startswith("configs/")} == sources(ROOT / "configs")
    models = {
        name for name in sources(ROOT / "weights") if "teacher" not in name and not name.endswith(".md")
    }
    assert {name for name in found if name.startswith("weights/")} == models


def test_the_client_is_one_package(wheels: dict[str, Path]) -> None:
    assert contents(wheels["mlaas_client"]) == sources(ROOT / "client" / "mlaas_client")
    with zipfile.ZipFile(wheels["mlaas_client"]) as archive:
        (licence,) = (name for name in archive.namelist() if name.endswith("/LICENSE"))
        assert archive.read(licence) == (ROOT / "LICENSE").read_bytes()


def test_both_have_the_same_version_and_need_the_same_of_httpx(wheels: dict[str, Path]) -> None:
    assert len({wheel.name.split("-")[1] for wheel in wheels.values()}) == 1
    assert SERVICE["optional-dependencies"]["client"] == CLIENT["dependencies"]


def test_all_is_every_extra_that_serves() -> None:
    (everything,) = SERVICE["optional-dependencies"]["all"]
    named = re.fullmatch(r"mlaas\[(.+)\]", everything)
    assert named
    assert (
        {"client", "gateway", "worker"} <= set(named[1].split(",")) <= SERVICE["optional-dependencies"].keys()
    )


def test_the_client_alone_imports_without_the_service(wheels: dict[str, Path], tmp_path: Path) -> None:
    with zipfile.ZipFile(wheels["mlaas_client"]) as archive:
        archive.extractall(tmp_path)
    code = "import mlaas_client, sys; print(mlaas_client.Client, *sys.modules.keys() & {packages})"
    libraries = os.pathsep.join([str(tmp_path), sysconfig.get_path("purelib")])
    # -S: an editable installation would lend the rest.
    command = [sys.executable, "-S", "-P", "-c", code.replace("{packages}", repr(PACKAGES))]
    said = subprocess.check_output(
        command, env={**os.environ, "PYTHONPATH": libraries}, text=True, timeout=60
    )
    assert said == "<class 'mlaas_client.clients.Client'> mlaas_client\n"


@pytest.fixture(scope="module")
def base(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The path of an environment in which `pip install CHECKOUT` was all."""
    folder = tmp_path_factory.mktemp("base")
    for requirement in SERVICE["dependencies"]:
        its_files = distribution(re.split("[<>=]", requirement)[0]).files or ()
        for name in {file.parts[0] for file in its_files} - {".."}:
            (folder / name).symlink_to(Path(sysconfig.get_path("purelib")) / name)
    return os.pathsep.join([str(installed), str(folder)])


@pytest.mark.parametrize(
    ("command", "extra"),
    [
        (["up", "--port", "0"], "gateway"),
        (["gateway", "--port", "0"], "gateway"),
        (["worker"], "worker"),
        (["predict", str(SANDAL)], "client"),
        (["predict", "--local", str(SANDAL)], "worker"),
        (["models"], "client"),
        (["doctor"], "client"),
        (["evaluate"], "worker"),
        (["train"], "worker"),
    ],
    ids=lambda its: " ".join(its[:2]) if isinstance(its, list) else its,
)
def test_without_its_extra_a_command_names_it_in_one_line(
    command: list[str], extra: str, base: str, tmp_path: Path
) -> None:
    """-S: the environment of the tests would lend what is missing; and so would the checkout as folder."""
    said = subprocess.run(
        [sys.executable, "-S", "-m", "mlaas", *command],
        env={**os.environ, "PYTHONPATH": base}, cwd=tmp_path, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert said.returncode == 1
    (line,) = said.stderr.splitlines()
    assert re.match(rf"mlaas: \w+ is not installed: run pip install 'CHECKOUT\[{extra}\]', or ", line)
    assert "'CHECKOUT[all]'" in line


@pytest.mark.parametrize("command", [["--help"], ["config", "show"], ["completion", "bash"]], ids=" ".join)
def test_without_any_extra_the_rest_works(command: list[str], base: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-S", "-m", "mlaas", *command],
        env={**os.environ, "PYTHONPATH": base}, cwd=tmp_path, capture_output=True, text=True, timeout=100,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture
def python(installed: Path, tmp_path: Path) -> Callable[..., "subprocess.Popen[str]"]:
    """Starts Python where the service is installed, in a folder whose modules have the names of ours."""
    for name in (*PACKAGES - {"mlaas"}, "client"):
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('{name}.py of the working directory')")

    def start(*arguments: str, **more: object) -> "subprocess.Popen[str]":
        environment = {**os.environ, "PYTHONPATH": str(installed)}
        return subprocess.Popen(
            [sys.executable, *arguments], cwd=tmp_path, env=environment, text=True, stdout=subprocess.PIPE
        )

    return start


def test_the_service_answers_away_from_the_checkout(
    python: Callable[..., "subprocess.Popen[str]"], installed: Path
) -> None:
    said, _ = python("-P", "-c", "import mlaas; from mlaas import Client; print(mlaas.__file__)").communicate(
        timeout=60
    )
    assert Path(said.strip()).is_relative_to(installed)
    said, _ = python("-m", "mlaas", "predict", "--local", str(SANDAL)).communicate(timeout=100)
    assert json.loads(said)["label"] == "Sandal"


def test_modules_of_the_working_directory_take_the_place_of_none_of_ours(
    python: Callable[..., "subprocess.Popen[str]"],
) -> None:
    """In the command, in the processes that it starts, and in those that they start."""
    with python("-m", "mlaas", "up", "--port", "0") as up:
        try:
            assert up.stdout
            ready = next(line for line in up.stdout if line.startswith("Ready: "))
            url = ready.split()[1]
            answer = httpx.post(f"{url}/predict", content=SANDAL.read_bytes(), timeout=60).json()
            assert answer["label"] == label_of(SANDAL)
        finally:
            up.terminate()
            until(lambda: up.poll() is not None, "the end of mlaas up")
