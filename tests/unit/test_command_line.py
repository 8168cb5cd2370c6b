"""The command `mlaas` as it is typed."""

from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from gateway.png import encode
from mlaas.chosen import Chosen
from mlaas.cli import command
from model.settings import TrainSettings
from tests import second_model

SANDAL = "samples/sandal.png"


def mlaas(*arguments: str) -> Result:
    return CliRunner().invoke(command, arguments)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[TrainSettings]:
    """What `mlaas train` was told; it does not train."""
    told: list[TrainSettings] = []

    @click.pass_obj
    def note(chosen: Chosen, epochs: int | None, seed: int | None, name: str | None) -> None:
        told.append(chosen.load("train", train__epochs=epochs, train__seed=seed, train__name=name).train)

    monkeypatch.setattr(command.commands["train"], "callback", note)
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


@pytest.mark.parametrize("name", ["train", "evaluate", "predict", "up", "worker", "gateway"])
def test_every_command_takes_a_settings_file(name: str) -> None:
    assert "--config" in mlaas(name, "--help").output


def test_a_model_is_asked_by_its_name(tmp_path: Path) -> None:
    second_model.add_mirrored(tmp_path, "mirrored")
    weights = f"model.weights_dir={tmp_path}"
    said = mlaas("--set", weights, "predict", "--local", "--model", "mirrored", SANDAL)
    assert said.exit_code == 0
    assert said.stdout.startswith(f"{SANDAL}: Coat (")


def test_doubts_are_printed_after_the_answer(tmp_path: Path) -> None:
    black = tmp_path / "black.png"
    black.write_bytes(encode(bytes(40 * 40), 40))
    said = mlaas("predict", "--local", "--mode", "product", str(black))
    assert said.exit_code == 0
    assert len(said.stdout.splitlines()) == 1
    assert f"{black}: warning: picture very small\n" in said.stderr
    assert said.output.index("warning") > said.output.index("%")


def test_the_mode_is_one_of_those_that_there_are() -> None:
    assert "'auto', 'raw28', 'product', 'photo'" in mlaas("predict", "--mode", "sketch", SANDAL).stderr
