from pathlib import Path

import msgspec
import numpy as np
import pytest

from model import dataset, learning
from model import train as training
from model.checkpoint import Checkpoints, Progress, fingerprint
from model.classifier import load
from model.dataset import Dataset
from model.manifest import verify
from model.network import build
from model.settings import AugmentationSettings, ModelSettings, TrainSettings
from model.train import train

# TensorFlow 2.21's arrays do not know NumPy 2's copy keyword yet.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

AUGMENTATION = AugmentationSettings(
    shift_pixels=2, flip=True, erase_probability=0.5, erase_area_min=0.02, erase_area_max=0.25, plain_epochs=1
)


@pytest.fixture
def settings(tmp_path):
    return TrainSettings(
        version="0",
        data_dir="data",
        checkpoint_dir=str(tmp_path / "checkpoints"),
        seed=1,
        widths=(4,),
        epochs=2,
        warmup_epochs=1,
        batch_size=32,
        learning_rate=0.1,
        momentum=0.9,
        weight_decay=0.005,
        ema_decay=0.9,
        validation_pictures=50,
        limit_pictures=150,
        augmentation=AUGMENTATION,
    )


@pytest.fixture
def model(tmp_path):
    return ModelSettings(
        name="tiny", weights_dir=str(tmp_path / "weights"), runtime="auto", threads=1, max_pixels=1_000_000
    )


@pytest.fixture(autouse=True)
def data(monkeypatch):
    """The committed pictures, in place of the data set."""
    with np.load(Path(__file__).parents[1] / "data" / "fashion-mnist-test-500.npz") as arrays:
        images, labels = arrays["images"], arrays["labels"]
    data = Dataset(images[:400], labels[:400], images[400:], labels[400:])
    monkeypatch.setattr(dataset, "load", lambda _: data)
    return data


def state(settings, name):
    """All that the last epoch left: weights, averages, momentum, number of steps."""
    learner = learning.prepare(build(settings.widths, len(dataset.LABELS)), settings, pictures=100)
    averaged = build(settings.widths, len(dataset.LABELS))
    Checkpoints(settings, name).restore(learner, averaged)
    optimizer = [np.asarray(variable) for variable in learner.optimizer.variables]
    return [*learner.get_weights(), *averaged.get_weights(), *optimizer]


def interrupt_after(monkeypatch, epochs):
    run_epoch = learning.run_epoch

    def run_or_interrupt(learner, data, settings, epoch, *rest):
        if epoch == epochs:
            raise KeyboardInterrupt
        run_epoch(learner, data, settings, epoch, *rest)

    monkeypatch.setattr(learning, "run_epoch", run_or_interrupt)


def quiet(settings, model):
    lines = []
    return train(settings, model, lines.append, progress_bar=False), lines


def test_training_writes_a_model_that_can_be_served(settings, model):
    manifest, lines = quiet(settings, model)
    assert load(Path(model.weights_dir), "tiny", "auto", 1).manifest == manifest
    assert (manifest.labels, manifest.metrics.count, manifest.epochs) == (dataset.LABELS, 100, 2)
    assert verify(Path(model.weights_dir, manifest.keras_file), manifest.onnx_from_sha256)
    assert sum("held-out accuracy" in line for line in lines) == 2


def test_an_interrupted_training_ends_with_the_weights_of_an_uninterrupted_one(settings, model, monkeypatch):
    quiet(settings, msgspec.structs.replace(model, name="whole"))
    with monkeypatch.context() as interrupted:
        interrupt_after(interrupted, 1)
        with pytest.raises(KeyboardInterrupt):
            quiet(settings, model)
    _, lines = quiet(settings, model)
    assert lines[0] == "going on after epoch 1 of 2"
    for resumed, whole in zip(state(settings, "tiny"), state(settings, "whole"), strict=True):
        np.testing.assert_allclose(resumed, whole, atol=1e-6)


def test_a_finished_training_is_not_run_again(settings, model, monkeypatch):
    first, _ = quiet(settings, model)
    interrupt_after(monkeypatch, 0)
    again, _ = quiet(settings, model)
    assert again.metrics == first.metrics


def test_other_settings_start_afresh(settings):
    assert fingerprint(settings) != fingerprint(msgspec.structs.replace(settings, learning_rate=0.2))
    assert fingerprint(settings) == fingerprint(msgspec.structs.replace(settings, data_dir="elsewhere"))


def test_the_best_epoch_is_the_last_of_the_most_accurate():
    progress = Progress()
    for accuracy in (0.5, 0.9, 0.9, 0.8):
        progress = progress.after(accuracy, seconds=1.0)
    assert progress == Progress(epochs_done=4, best_epoch=3, best_accuracy=0.9, wall_seconds=4.0)


def test_held_out_pictures_are_not_trained_on(settings, data):
    split = training.split(data, settings)
    assert (len(split.images), len(split.held_out_images)) == (350, 50)
    trained_on = {picture.tobytes() for picture in split.images}
    assert not trained_on & {picture.tobytes() for picture in split.held_out_images}


def test_the_learning_rate_rises_to_its_peak_and_falls_to_nothing(settings):
    rate = learning.schedule(settings, steps_per_epoch=10)
    rates = [float(rate(step)) for step in range(21)]
    assert rates[0] == 0
    assert rates.index(max(rates)) == 10
    assert rates[10] == pytest.approx(0.1)
    assert rates[20] == pytest.approx(0, abs=1e-6)
