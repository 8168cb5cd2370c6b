import json
import os
from io import BytesIO

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from mlaas.commands import Chosen
from mlaas.commands.train import evaluate as command
from model import classifier as classifiers
from model import manifest as manifests
from model.manifest import ModelError
from model.training import dataset, ood, report
from model.training import evaluate as evaluation
from model.training.evaluate import evaluate, in_batches, in_bins
from model.training.figures import Epoch, Evaluation, OodFigures, PhotoFigures
from tests.unit.measured_model import NearestMean, pictures, record, write_record
from tests.unit.test_photos import sorted_photos

FOG = {"fog": OodFigures(auroc=0.875, false_positive_rate=0.25, count=8)}
HISTORY = {
    "history": [
        {"loss": 1.5, "accuracy": 0.5, "held_out_loss": 1.2, "held_out_accuracy": 0.6, "seconds": 3.0},
        {"loss": 0.5, "accuracy": 0.8, "held_out_loss": 0.4, "held_out_accuracy": 0.9, "seconds": 3.0},
    ]
}


@pytest.fixture(scope="module")
def data():
    return pictures()


@pytest.fixture(scope="module")
def classifier(data, tmp_path_factory):
    return NearestMean(data, write_record(tmp_path_factory.mktemp("model")))


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """The out-of-distribution sets have tests of their own; a few pictures are enough to corrupt."""
    monkeypatch.setattr(ood, "measure", lambda *_: FOG)
    monkeypatch.setattr(evaluation, "ROBUSTNESS_PICTURES", 10)


@pytest.fixture
def write(classifier, data, tmp_path):
    """Writes a report; returns what it measured, its folder, and what it said."""

    def run(history=None):
        folder, lines = tmp_path / "reports" / "tiny", []
        folder.mkdir(parents=True, exist_ok=True)
        if history:
            (folder / "history.json").write_text(json.dumps(history))
        found = report.write(classifier, data, tmp_path / "reports", tmp_path / "docs", lines.append)
        return found, folder, lines

    return run


def test_the_figures_are_in_a_file_as_they_were_measured(write, classifier, data):
    found, folder, _ = write()
    assert msgspec.json.decode((folder / "metrics.json").read_bytes(), type=Evaluation) == found
    probabilities, _ = in_batches(classifier.predict, data.test_images)
    plain = evaluate(classifier, record(), probabilities, data.test_labels)
    assert msgspec.structs.replace(found, robustness=None, ood=None) == plain
    assert found.ood == FOG
    assert len(found.robustness.corruptions) == 15


def test_every_plot_is_a_small_picture(write):
    _, folder, _ = write(HISTORY)
    found = sorted(path.name for path in folder.glob("*.png"))
    assert found == ["confusion-matrix.png", "learning-curves.png", "mistakes.png", "reliability.png"]
    for path in folder.glob("*.png"):
        assert path.stat().st_size < 150_000
        with Image.open(path) as image:
            assert (image.format, image.mode) == ("PNG", "P")
            assert min(image.size) > 300


def test_without_a_history_the_curves_are_left_out_and_that_is_said(write):
    _, folder, lines = write()
    assert not (folder / "learning-curves.png").exists()
    assert any(line.startswith("no learning curves, because") for line in lines)
    assert "learning-curves" not in (folder.parents[1] / "docs" / "model-card-tiny.md").read_text()


def test_a_damaged_history_is_named(write):
    with pytest.raises(ModelError, match=r"history\.json"):
        write({"history": [{"loss": "low"}]})


def test_the_surest_mistakes_come_first():
    rows = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.3, 0.7]], np.float32)
    assert report.surest_mistakes(rows, np.array([0, 1, 0, 0], np.uint8)) == [2, 3, 1]


def test_plots_show_their_figures():
    same = report.learning_curves([Epoch(1.0, 0.5, 1.0, 0.5, 1.0)] * 2)
    assert same == report.learning_curves([Epoch(1.0, 0.5, 1.0, 0.5, 1.0)] * 2)
    assert same != report.learning_curves([Epoch(1.0, 0.5, 1.0, 0.9, 1.0)] * 2)
    assert report.confusion_matrix([[3, 0], [0, 3]], "ab") != report.confusion_matrix([[3, 0], [1, 2]], "ab")
    half, sure = in_bins(np.array([0.5]), np.array([1])), in_bins(np.array([0.9]), np.array([1]))
    assert report.reliability(half, sure) != report.reliability(half, half)


def test_a_model_without_mistakes_has_an_empty_plot_of_them():
    drawn = report.mistakes(
        np.zeros((1, 28, 28), np.uint8), np.eye(1, 2, dtype=np.float32), np.array([0]), "ab"
    )
    assert np.ptp(np.asarray(Image.open(BytesIO(drawn)).convert("L"))) == 0


@pytest.fixture
def photos(data, tmp_path):
    return sorted_photos(data, tmp_path / "photos")


@pytest.fixture
def run(monkeypatch, classifier, data, tmp_path):
    """The command, on this model; reports go to a folder of the test's own."""
    monkeypatch.setattr(classifiers, "load", lambda *_: classifier)
    monkeypatch.setattr(dataset, "load", lambda _: data)
    chosen = Chosen(None, [("train.reports_dir", str(tmp_path / "reports"))])

    def invoke(*arguments, code=0):
        done = CliRunner().invoke(command, arguments, obj=chosen)
        assert done.exit_code == code, done.output
        return done.stdout if code == 0 else done

    return invoke


def test_the_command_writes_the_report_and_the_card(run, tmp_path):
    found = json.loads(run("--report", "--json"))
    assert json.loads((tmp_path / "reports" / "tiny" / "metrics.json").read_bytes()) == found
    assert (tmp_path / "docs" / "model-card-tiny.md").exists()


def test_photos_measured_for_the_report_get_into_the_card(run, photos, tmp_path):
    run("--report")
    assert "## Photos" not in (tmp_path / "docs" / "model-card-tiny.md").read_text()
    found = msgspec.json.decode(run("--photos", str(photos), "--report", "--json"), type=PhotoFigures)
    assert f"{found.right} of 7" in (tmp_path / "docs" / "model-card-tiny.md").read_text()


def test_photos_are_only_printed_without_a_report(run, photos, tmp_path):
    assert "prepared by plain inverted resize" in run("--photos", str(photos))
    assert not (tmp_path / "reports").exists()


def test_a_wrong_folder_of_photos_is_an_error_that_says_the_layout(run, tmp_path):
    done = run("--photos", str(tmp_path / "nowhere"), code=os.EX_NOINPUT)
    assert "a folder for each kind" in done.stderr


def test_the_card_alone_is_written_from_the_report(run, tmp_path, classifier, monkeypatch):
    run("--report")
    card = tmp_path / "docs" / "model-card-tiny.md"
    written = card.read_text()
    card.write_text("edited")
    monkeypatch.setattr(classifiers, "load", None)
    monkeypatch.setattr(manifests, "folder", lambda *_: classifier.folder)
    monkeypatch.setattr(manifests, "read", lambda _: classifier.manifest)
    run("--model", "tiny", "--card")
    assert card.read_text() == written
