"""The command `mlaas` as it is typed."""

import importlib
import json
import os
import pkgutil
import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from gateway.answer import grey_png
from mlaas import commands
from mlaas.cli import SECTIONS, command
from mlaas.commands import Chosen, pass_chosen, train
from model import TrainSettings
from tests import second_model

SANDAL = "samples/sandal.png"
NOBODY = "http://127.0.0.1:1"


def mlaas(*arguments: str) -> Result:
    return CliRunner().invoke(command, arguments)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[TrainSettings]:
    """What `mlaas train` was told; it does not train."""
    told: list[TrainSettings] = []

    @pass_chosen
    def note(chosen: Chosen) -> None:
        told.append(chosen.load("train").train)

    monkeypatch.setattr(train.train, "callback", note)
    return told


@pytest.fixture
def files(tmp_path: Path) -> tuple[str, str]:
    for name in ("first", "second"):
        (tmp_path / f"{name}.yaml").write_text(f"train: {{name: {name}}}")
    return str(tmp_path / "first.yaml"), str(tmp_path / "second.yaml")


def test_the_settings_file_may_be_named_before_the_command_or_after(
    trained: list[TrainSettings], files: tuple[str, str]
) -> None:
    first, _ = files
    assert mlaas("--config", first, "train").exit_code == 0
    assert mlaas("train", "--config", first).exit_code == 0
    assert [told.name for told in trained] == ["first", "first"]


def test_of_two_settings_files_the_later_wins(trained: list[TrainSettings], files: tuple[str, str]) -> None:
    assert mlaas("--config", files[0], "train", "--config", files[1]).exit_code == 0
    assert [told.name for told in trained] == ["second"]


def test_an_option_wins_over_the_file(trained: list[TrainSettings], files: tuple[str, str]) -> None:
    options = ["--epochs", "3", "--seed", "7", "--name", "mine"]
    assert (
        mlaas("--set", "train.network.widths=[8, 16]", "train", "--config", files[0], *options).exit_code == 0
    )
    (told,) = trained
    assert (told.epochs, told.seed, told.name) == (3, 7, "mine")
    assert told.network.widths == (8, 16)


def test_one_setting_may_be_chosen_before_the_command_or_after(trained: list[TrainSettings]) -> None:
    assert mlaas("--set", "train.epochs=1", "train", "--set", "train.name=late").exit_code == 0
    assert mlaas("--set", "train.epochs=1", "train", "--set", "train.epochs=2").exit_code == 0
    assert [(told.epochs, told.name == "late") for told in trained] == [(1, True), (2, False)]
    assert "KEY=VALUE" in mlaas("train", "--set", "train.epochs").output


@pytest.mark.parametrize(
    "name",
    ["train", "evaluate", "predict", "up", "worker", "gateway", "config show", "topics create", "dlq ls"],
)
def test_commands_that_read_settings_take_a_file(name: str) -> None:
    assert "--config" in mlaas(*name.split(), "--help").output


@pytest.mark.parametrize("name", ["models", "watch", "jobs", "keys new", "bench", "completion"])
def test_others_take_none(name: str) -> None:
    assert "No such option" in mlaas(*name.split(), "--config", "mine.yaml").output


def test_up_brings_a_broker_unless_one_was_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    urls: list[str] = []
    monkeypatch.setattr("mlaas.up.up", lambda settings, _: urls.append(settings.broker.url))
    file = tmp_path / "mine.yaml"
    file.write_text("broker: {url: kafka://file:1}")
    assert mlaas("up").exit_code == 0
    assert mlaas("up", "--config", str(file)).exit_code == 0
    monkeypatch.setenv("MLAAS_BROKER__URL", "kafka://environment:1")
    for options in ([], ["--set", "broker.url=kafka://set:1"], ["--broker", "kafka://option:1"]):
        assert mlaas("up", *options).exit_code == 0
    assert urls == [
        "embedded://",
        "kafka://file:1",
        "kafka://environment:1",
        "kafka://set:1",
        "kafka://option:1",
    ]


def test_what_only_a_gateway_heeds_does_not_go_with_local() -> None:
    for options in (["--url", NOBODY], ["--timeout", "1"], ["--explain", "x"]):
        assert "--local does not use a gateway" in mlaas("predict", "--local", *options, SANDAL).output


def test_a_table_of_another_program_may_be_made_of_the_answers() -> None:
    said = mlaas("predict", "--local", "--csv", "--top-k", "2", SANDAL)
    assert said.exit_code == 0
    titles, line = (line.split(",") for line in said.stdout.splitlines())
    assert titles[:5] == ["file", "label", "confidence", "label_2", "confidence_2"]
    assert line[:2] == [SANDAL, "Sandal"]
    assert float(line[2]) + float(line[4]) <= 1
    several = json.loads(mlaas("predict", "--local", "--top-k", "3", SANDAL).stdout)
    assert len(several["probabilities"]) == 3
    assert "exclude each other" in mlaas("predict", "--csv", "--json", SANDAL).output


def test_folders_inside_of_a_folder_are_said_to_be_left_out(tmp_path: Path) -> None:
    for name in ("inner", ".hidden"):
        (tmp_path / name).mkdir()
    (tmp_path / "notes.txt").write_text("no picture")
    said = mlaas("predict", "--local", str(tmp_path), SANDAL)
    assert said.exit_code == 0
    assert said.stderr.splitlines() == [
        "skipped because of their extensions: notes.txt",
        "skipped because they are folders; name them to classify what is in them: inner",
    ]


def test_a_model_without_its_onnx_file_is_said_to_be_without_it(tmp_path: Path) -> None:
    version = Path("weights/fashion-mnist/1.4.0")
    folder = tmp_path / "fashion-mnist" / version.name
    shutil.copytree(version, folder, ignore=shutil.ignore_patterns("*.onnx"))
    (tmp_path / "keras.py").write_text("raise ImportError('No module named keras')")
    local = ["predict", "--local", SANDAL]
    said = subprocess.run(
        [sys.executable, "-m", "mlaas", "--set", f"model.weights_dir={tmp_path}", *local],
        env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True,
    )  # fmt: skip
    assert said.returncode == os.EX_DATAERR
    assert " is missing: copy it there (`git checkout weights` restores those of the project)" in said.stderr


def test_a_model_is_asked_by_its_name(tmp_path: Path) -> None:
    second_model.add_mirrored(tmp_path, "mirrored")
    weights = f"model.weights_dir={tmp_path}"
    said = mlaas("--set", weights, "predict", "--local", "--model", "mirrored", SANDAL)
    assert said.exit_code == 0
    answer = json.loads(said.stdout)
    assert (answer["file"], answer["label"], answer["model"]) == (SANDAL, "Coat", "mirrored")


def test_doubts_are_part_of_the_answer(tmp_path: Path) -> None:
    black = tmp_path / "black.png"
    black.write_bytes(grey_png(bytes(40 * 40), 40))
    said = mlaas("predict", "--local", "--mode", "product", str(black))
    assert said.exit_code == 0
    assert "picture very small" in json.loads(said.stdout)["warnings"]


def test_a_bad_picture_loses_no_other(tmp_path: Path) -> None:
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"rubbish")
    said = mlaas("predict", "--local", str(bad), "nothing.png", SANDAL)
    assert said.exit_code == 1
    entries = [json.loads(line) for line in said.stdout.splitlines()]
    assert ["problem" in entry for entry in entries] == [True, True, False]
    assert entries[2]["label"] == "Sandal"
    assert [line.split(":")[0] for line in said.stderr.splitlines()] == [str(bad), "nothing.png"]


def test_an_empty_folder_is_said(tmp_path: Path) -> None:
    said = mlaas("predict", "--local", str(tmp_path))
    assert said.exit_code == 1
    assert "no pictures in" in said.stderr


def test_a_job_with_a_file_that_is_not_there_is_not_handed_over() -> None:
    said = mlaas("jobs", "submit", "--url", NOBODY, SANDAL, "nothing.png")
    assert said.exit_code == 1
    assert "nothing.png: no such file" in said.stderr


def test_no_gateway_is_said_once_with_what_to_do() -> None:
    said = mlaas("predict", "--url", NOBODY, SANDAL, SANDAL)
    assert (said.exit_code, said.stdout) == (1, "")
    (line,) = said.stderr.splitlines()
    assert line.startswith("mlaas: ") and line.endswith("use --url or MLAAS_URL for another address")


def test_the_clients_variables_are_no_settings() -> None:
    variables = {"MLAAS_URL": NOBODY, "MLAAS_API_KEY": "k"}
    said = CliRunner(env=variables).invoke(command, ["config", "show"])
    assert said.exit_code == 0
    assert NOBODY not in said.stdout


def test_the_mode_is_one_of_those_that_there_are() -> None:
    assert "'auto', 'raw28', 'product', 'photo'" in mlaas("predict", "--mode", "sketch", SANDAL).stderr


def test_every_command_is_in_a_section_of_the_help_and_shows_an_example() -> None:
    modules = [
        importlib.import_module(f"mlaas.commands.{its.name}")
        for its in pkgutil.iter_modules(commands.__path__)
    ]
    found = {its for module in modules for its in vars(module).values() if isinstance(its, click.Command)}
    below = {its for group in found if isinstance(group, click.Group) for its in group.commands.values()}
    names = command.list_commands(click.Context(command))
    assert sorted(names) == sorted([*(its.name or "" for its in found - below), "config", "completion"])
    help_ = mlaas("--help").stdout
    assert all(f"\n{title}:\n" in help_ for title in SECTIONS)
    for section in SECTIONS.values():
        for name, entry in section.items():
            assert f"{name} " in help_ and entry.help in help_
            assert f"Example: {entry.example}" in " ".join(mlaas(name, "--help").stdout.split())


def test_no_summary_in_a_list_of_commands_is_cut_off() -> None:
    for name in ("", *command.list_commands(click.Context(command))):
        asked = [*name.split(), "--help"]
        said = CliRunner().invoke(command, asked, terminal_width=78).stdout  # of 80 columns, Click leaves two
        assert "..." not in said.replace("FILES...", "").replace("]...", ""), name


@pytest.mark.parametrize(
    "example", [its.example for section in SECTIONS.values() for its in section.values()]
)
def test_every_example_can_be_typed(example: str) -> None:
    """Its command and options exist: --help is asked for in place of doing it."""
    words = [word.strip('"$()') for word in example.removeprefix("eval ").split()]
    said = mlaas(*words[1:], "--help")
    assert said.exit_code == 0, said.output


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_calls_the_command(shell: str) -> None:
    said = mlaas("completion", shell)
    assert said.exit_code == 0
    assert "_MLAAS_COMPLETE" in said.stdout


def test_the_command_starts_without_what_only_some_of_its_parts_need() -> None:
    """A gateway's image has no httpx, a worker's no fastapi, neither TensorFlow. Help needs no settings."""
    heavy = {"httpx", "fastapi", "confluent_kafka", "numpy", "onnxruntime", "keras", "uvicorn"}
    heavy |= {"mlaas.settings", "mlaas_client", "yaml"}
    load = "from mlaas.cli import *; [command.get_command(None, its) for its in command.list_commands(None)]"
    code = f"import sys; {load}; print(*({heavy} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "\n"


def test_help_loads_no_command() -> None:
    loaded = "[its for its in sys.modules if its.startswith(('mlaas.commands.', 'messaging'))]"
    code = f"import sys, mlaas.cli; print(*{loaded})"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "\n"


def test_what_is_not_installed_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "httpx.py").write_text("raise ModuleNotFoundError('no', name='httpx')")
    said = subprocess.run(
        [sys.executable, "-m", "mlaas", "models"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)}, capture_output=True, text=True,
    )  # fmt: skip
    assert said.returncode == 1
    assert said.stderr.startswith(
        f"mlaas: httpx is not installed: run make install in {Path(__file__).parents[2]}\n"
    )
    assert len(said.stderr.splitlines()) == 1


@pytest.mark.parametrize("host", ["no-such-host.invalid", "192.0.2.1"])
def test_a_host_that_is_not_this_machine_is_said_in_one_line(host: str) -> None:
    said = mlaas("--set", f"gateway.host={host}", "up", "--port", "0")
    assert said.exit_code == 1
    assert f"cannot listen on {host}:0: " in said.stderr
    assert said.stderr.endswith("set --host to an address of this machine\n")


def test_a_start_without_a_folder_for_temporary_files_is_said_in_one_line() -> None:
    """No file may grow, so there is no folder in which one can be written, as on a read-only file system."""
    said = subprocess.run(
        [sys.executable, "-m", "mlaas", "up", "--port", "0"], capture_output=True, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)),
    )  # fmt: skip
    assert said.returncode == 1
    assert "Traceback" not in said.stderr
    assert said.stderr.splitlines()[-1].startswith("mlaas: no folder for jobs: ")
    assert said.stderr.endswith("set TMPDIR to a folder that can be written\n")


def test_what_kubernetes_sets_is_ignored_with_one_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLAAS_PORT", "tcp://10.0.0.1:8000")
    said = mlaas("config", "show")
    assert said.exit_code == 0
    assert said.stderr.count("MLAAS_PORT") == 1
    assert "MLAAS_PORT" not in os.environ, "processes that this one starts have nothing to warn about"


def test_a_proxy_that_cannot_be_used_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks4://127.0.0.1:1")
    monkeypatch.delenv("NO_PROXY", raising=False)
    for pictures in ([SANDAL], [SANDAL, SANDAL]):
        said = mlaas("predict", "--url", "http://127.0.0.1:1", *pictures)
        assert said.exit_code == 1
        assert said.stderr.startswith("mlaas: ALL_PROXY is not the URL of a proxy")


def test_a_url_that_is_none_is_wrong_usage() -> None:
    for typed in ("bench kafka://x", "bench http://host:port/predict", f"predict --url http://h:p {SANDAL}"):
        said = mlaas(*typed.split())
        assert (said.exit_code, "is not" in said.stderr) == (2, True), typed


def test_a_mistyped_command_is_said_with_the_nearest_one() -> None:
    said = mlaas("prdict", SANDAL)
    assert (said.exit_code, "No such command 'prdict'. Did you mean 'predict'?" in said.stderr) == (2, True)
    assert "Did you mean" not in mlaas("xyz").stderr


@pytest.mark.parametrize("option", ["--port", "--workers", "--gateways"])
def test_a_number_that_cannot_be_is_said_with_the_range(option: str) -> None:
    said = mlaas("up", option, {"--port": "99999"}.get(option, "0"))
    assert said.exit_code == 2
    assert re.search(rf"'{option}': \d+ is not in the range (0<=x<=65535|x>=1)", said.output)


def test_a_start_without_the_broker_that_was_named_says_what_up_does_without_one() -> None:
    nobody = ["--set", "broker.publish_timeout_ms=1000", "--broker", "kafka://127.0.0.1:1"]
    said = mlaas("up", "--port", "0", *nobody)
    assert said.exit_code == os.EX_UNAVAILABLE
    assert said.stderr.endswith("Without --broker and broker.url, `mlaas up` has its own\n")


@pytest.mark.parametrize("url", ["rabbit://x", "localhost:9092", "kafka://", ""])
def test_an_url_that_is_no_brokers_is_said_in_one_line(url: str) -> None:
    said = mlaas("up", "--port", "0", "--broker", url)
    assert said.exit_code == os.EX_CONFIG
    assert len(said.stderr.splitlines()) == 1 and "URL" in said.stderr
