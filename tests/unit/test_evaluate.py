import json
from types import SimpleNamespace

import msgspec
import numpy as np
import pytest
from click.testing import CliRunner

from mlaas.commands import Chosen
from mlaas.commands.train import evaluate as command
from model import classifier as classifiers
from model.classifier import Predictions
from model.training import dataset, ood
from model.training.evaluate import (
    BATCH,
    calibration_error,
    confusion,
    evaluate,
    fit_temperature,
    in_batches,
    in_bins,
    measure,
    nll,
    robustness,
    top_accuracy,
    with_temperature,
)
from model.training.figures import OodFigures
from tests.unit.measured_model import NearestMean, manifest, record, write_record
from tests.unit.measured_model import pictures as committed
from tests.unit.recipes import softmax


class FirstPixel:
    """Says that a picture's class is the number in its first pixel."""

    manifest = manifest(labels=("a", "b", "c"))
    runtime = "none"

    def __init__(self):
        self.batches = []

    def predict(self, pictures):
        self.batches.append(len(pictures))
        return Predictions(np.eye(3, dtype=np.float32)[pictures[:, 0, 0]], np.zeros(len(pictures)))


class BrighterSide:
    """Class 1 if the right half is brighter, else 0."""

    def predict(self, pictures):
        right = pictures[:, :, 14:].sum(axis=(1, 2), dtype=int) > pictures[:, :, :14].sum(
            axis=(1, 2), dtype=int
        )
        return Predictions(np.eye(2, dtype=np.float32)[right.astype(int)], np.zeros(len(pictures)))


def pictures(*classes):
    images = np.zeros((len(classes), 28, 28), np.uint8)
    images[:, 0, 0] = classes
    return images


def answered(classifier, images, labels):
    """The figures of the classifier's own answers."""
    probabilities, _ = in_batches(classifier.predict, images)
    return evaluate(classifier, record(), probabilities, np.array(labels, np.uint8))


def test_accuracy_is_the_share_of_right_answers():
    metrics = answered(FirstPixel(), pictures(0, 1, 2, 2), [0, 1, 1, 2])
    assert (metrics.accuracy, metrics.count) == (0.75, 4)


def test_every_class_has_its_own_accuracy():
    metrics = answered(FirstPixel(), pictures(0, 1, 2, 2), [0, 1, 1, 2])
    assert metrics.per_class == {"a": 1.0, "b": 0.5, "c": 1.0}


def test_a_class_without_pictures_is_left_out():
    metrics = measure(np.eye(3, dtype=np.float32)[[0]], np.array([0], np.uint8), ("a", "b", "c"))
    assert metrics.per_class == {"a": 1.0}


def test_many_pictures_are_predicted_a_batch_at_a_time_in_order():
    classifier = FirstPixel()
    classes = np.arange(BATCH + 5) % 3
    assert in_batches(classifier.predict, pictures(*classes))[0].argmax(axis=1) == pytest.approx(classes)
    assert classifier.batches == [BATCH, 5]


def test_the_figures_before_the_temperature_are_those_of_the_plain_softmax():
    random = np.random.default_rng(0)
    logits, labels = random.normal(0, 3, (200, 3)), random.integers(0, 3, 200).astype(np.uint8)
    classifier = SimpleNamespace(manifest=manifest(labels=("a", "b", "c")), runtime="none")
    found = evaluate(classifier, record(temperature=2.5), softmax(logits / 2.5).astype(np.float32), labels)
    plain = measure(softmax(logits).astype(np.float32), labels, ("a", "b", "c"))
    for name, value in msgspec.structs.asdict(found.before_temperature).items():
        assert value == pytest.approx(getattr(plain, name), abs=1e-5), name
    assert found.nll != pytest.approx(plain.nll, abs=0.01)


def test_calibration_error_is_the_mean_distance_of_confidence_and_hits():
    confidence, hits = np.array([0.9, 0.9, 0.9, 0.9, 0.5, 0.5]), np.array([1, 1, 1, 0, 1, 0])
    assert calibration_error(confidence, hits) == pytest.approx(4 / 6 * 0.15)


def test_answers_of_full_confidence_are_in_the_last_bin():
    bins = in_bins(np.array([1.0, 0.97, 0.0]), np.array([1, 0, 0]))
    assert (bins.counts[-1], bins.counts[0], bins.hits[-1], bins.confidence[-1]) == (2, 1, 1, 1.97)


def test_the_second_answer_counts_for_top_two():
    rows = np.array([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2], [0.5, 0.3, 0.2]], np.float32)
    assert top_accuracy(rows, np.array([0, 1, 2], np.uint8), 2) == pytest.approx(2 / 3)


def test_confusion_has_a_row_for_each_label_and_a_column_for_each_answer():
    rows = np.eye(3, dtype=np.float32)[[0, 2, 2]]
    assert confusion(rows, np.array([0, 1, 2], np.uint8)) == ((1, 0, 0), (0, 0, 1), (0, 0, 1))


def test_robustness_is_the_accuracy_under_each_corruption_and_level():
    labels = np.array([0, 1, 1], np.uint8)
    images = np.zeros((3, 28, 28), np.uint8)
    images[0, 10:18, 2:8] = images[1:, 10:18, 20:26] = 200
    found = robustness(BrighterSide(), images, labels)
    assert (found.clean, found.count) == (1.0, 3)
    assert found.corruptions["mirror"] == (0.0,)
    assert found.corruptions["upside down"] == (1.0,)
    assert found.corruptions["scale"] == (1.0, 1.0, 1.0)
    assert found.mean == pytest.approx(np.mean([np.mean(levels) for levels in found.corruptions.values()]))


# Calibration.

RANDOM = np.random.default_rng(1)
LOGITS = RANDOM.normal(0, 2, (5000, 10)).astype(np.float32)
LABELS = np.array([RANDOM.choice(10, p=row / row.sum()) for row in softmax(LOGITS).astype(float)], np.uint8)


@pytest.mark.parametrize("overconfidence", [0.5, 1.0, 2.5])
def test_the_temperature_takes_back_what_the_logits_are_too_large_by(overconfidence):
    assert fit_temperature(LOGITS * overconfidence, LABELS) == pytest.approx(overconfidence, rel=0.06)


def test_no_other_temperature_makes_the_labels_likelier():
    best = fit_temperature(LOGITS * 2, LABELS)
    others = [nll(LOGITS * 2 / (best * factor), LABELS) for factor in (0.8, 0.95, 1.05, 1.25)]
    assert nll(LOGITS * 2 / best, LABELS) < min(others)


def test_a_temperature_is_taken_back_by_its_inverse():
    warm = softmax(LOGITS / 1.7)
    np.testing.assert_allclose(with_temperature(warm, 1 / 1.7), softmax(LOGITS), atol=1e-5)


def test_a_probability_of_zero_stays_finite():
    assert np.isfinite(with_temperature(np.array([[1.0, 0.0]], np.float32), 2.0)).all()


# The command.


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """The command measures this model, on the committed pictures."""
    data = committed()
    asked = []

    def load(weights_dir, name, runtime, threads, version):
        asked.append(name)
        return NearestMean(data, write_record(tmp_path), name=name)

    monkeypatch.setattr(classifiers, "load", load)
    monkeypatch.setattr(dataset, "load", lambda _: data)
    return asked


def run(*arguments, code=0):
    done = CliRunner().invoke(command, arguments, obj=Chosen(None, []))
    assert done.exit_code == code, done.output
    return done.output


def test_the_command_prints_the_figures_of_the_model_asked_for(tiny):
    found = json.loads(run("--model", "fashion-mnist-large", "--json"))
    assert tiny == ["fashion-mnist-large"]
    assert (found["model"], found["version"], found["runtime"]) == ("fashion-mnist-large", "7.1", "none")
    assert (found["macs"], found["parameters"], found["count"]) == (56789, 1234, 100)
    assert 0.5 < found["accuracy"] <= found["top2_accuracy"] <= 1
    assert {"ece", "classwise_ece", "nll", "brier"} <= set(found) & set(found["before_temperature"])
    assert "robustness" not in found and "ood" not in found


def test_the_command_measures_what_is_asked_for_besides(tiny, monkeypatch):
    figures = {"fog": OodFigures(auroc=0.875, false_positive_rate=0.25, count=8)}
    monkeypatch.setattr(ood, "measure", lambda *_: figures)
    found = json.loads(run("--ood", "--robustness", "--json"))
    assert found["ood"]["fog"]["auroc"] == 0.875
    assert found["robustness"]["count"] == 100
    printed = run("--ood", "--robustness")
    for text in ("T-shirt/top", "expected calibration error", "glass blur", "fog", "0.875", "56,789"):
        assert text in printed


def test_photos_are_not_corrupted(tiny, tmp_path):
    assert "leave out --photos" in run("--photos", str(tmp_path), "--robustness", code=2)
