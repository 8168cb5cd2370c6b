import json
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from model import NetworkSettings, TeacherSettings, TrainSettings
from model import manifest as manifests
from model.classifier import load
from model.manifest import ModelError, verify
from model.runtimes import OnnxRuntime
from model.training import dataset, learning, ood
from model.training.dataset import Dataset
from model.training.figures import Epoch, read_record
from model.training.learning import Progress, TrainingError, checkpoints_of, fingerprint
from model.training.lessons import Lessons
from model.training.train import alone, train
from tests.unit import recipes

# TensorFlow 2.21's arrays do not know NumPy 2's copy keyword yet.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

AUGMENTATION = replace(recipes.AUGMENTATION, photo_share=0.2)


@pytest.fixture
def settings(tmp_path):
    return TrainSettings(
        name="tiny",
        version="0",
        data_dir="data",
        checkpoint_dir=str(tmp_path / "checkpoints"),
        reports_dir=str(tmp_path / "reports"),
        seed=1,
        runs=1,
        data_seed=1,
        network=NetworkSettings(kind="vgg", widths=(4,), members=1),
        precision="float32",
        epochs=2,
        later_epochs=2,
        warmup_epochs=1,
        batch_size=32,
        learning_rate=0.1,
        momentum=0.9,
        weight_decay=0.005,
        ema_decay=0.9,
        validation_pictures=50,
        limit_pictures=150,
        augmentation=AUGMENTATION,
        teacher=TeacherSettings(name="", weight=0.5, temperature=2.0),
        skipping=recipes.SKIPPING,
    )


@pytest.fixture
def weights_dir(tmp_path):
    return tmp_path / "weights"


@pytest.fixture(autouse=True)
def data(monkeypatch):
    """The committed pictures, in place of the data set."""
    with np.load(Path(__file__).parents[1] / "data" / "fashion-mnist-test-500.npz") as arrays:
        images, labels = arrays["images"], arrays["labels"]
    monkeypatch.setattr(ood, "OUTLIERS", 50)
    data = Dataset(images[:400], labels[:400], images[400:], labels[400:])
    monkeypatch.setattr(dataset, "load", lambda _: data)
    return data


def state(settings):
    """All that the last epoch left: weights, averages, momentum, number of steps."""
    settings = alone(settings, 0)
    learner = learning.compiled(settings, pictures=100, taught=False)
    averaged = learning.untrained(settings)
    checkpoints_of(settings).restore(learner, averaged)
    optimizer = [np.asarray(variable) for variable in learner.optimizer.variables]
    return [*learner.get_weights(), *averaged.get_weights(), *optimizer]


def interrupt_after(monkeypatch, epochs):
    of = Lessons.of

    def teach_or_interrupt(lessons, epoch):
        if epoch == epochs:
            raise KeyboardInterrupt
        return of(lessons, epoch)

    monkeypatch.setattr(Lessons, "of", teach_or_interrupt)


def quiet(settings, weights_dir):
    lines = []
    return train(settings, weights_dir, lines.append, progress_bar=False), lines


def test_training_writes_a_model_that_can_be_served(settings, weights_dir):
    manifest, lines = quiet(settings, weights_dir)
    served = load(weights_dir, "tiny", "auto", 1)
    assert served.manifest == manifest
    record = read_record(served.folder)
    assert (manifest.labels, record.metrics.count, record.epochs) == (dataset.LABELS, 100, 2)
    assert verify(served.folder / manifest.keras.file, manifest.onnx.exported_from)
    assert record.keras_sha256 == manifest.keras.sha256
    assert sum("held-out" in line and "min left" in line for line in lines) == 2


@pytest.mark.parametrize(("editions", "epochs", "interrupted_after"), [(0, 2, 1), (1, 2, 1), (0, 4, 2)])
def test_an_interrupted_training_ends_with_the_weights_of_an_uninterrupted_one(
    settings, weights_dir, monkeypatch, editions, epochs, interrupted_after
):
    settings = replace(settings, epochs=epochs, augmentation=replace(AUGMENTATION, editions=editions))
    quiet(replace(settings, name="whole"), weights_dir)
    with monkeypatch.context() as interrupted:
        interrupt_after(interrupted, interrupted_after)
        with pytest.raises(KeyboardInterrupt):
            quiet(settings, weights_dir)
    _, lines = quiet(settings, weights_dir)
    assert lines[0] == f"seed 1: resuming after epoch {interrupted_after} of {epochs}"
    for resumed, whole in zip(state(settings), state(replace(settings, name="whole")), strict=True):
        np.testing.assert_allclose(resumed, whole, atol=1e-6)


def test_a_finished_training_is_not_run_again(settings, weights_dir, monkeypatch):
    folder = weights_dir / "tiny" / "0"
    quiet(settings, weights_dir)
    first = read_record(folder)
    interrupt_after(monkeypatch, 0)
    quiet(settings, weights_dir)
    assert read_record(folder).metrics == first.metrics


def test_of_several_runs_the_best_on_held_out_pictures_is_shipped(settings, weights_dir):
    manifest, _ = quiet(replace(settings, runs=2), weights_dir)
    results = json.loads(Path(settings.reports_dir, "tiny", "seeds.json").read_text())
    best = max(results, key=lambda result: result["held_out_accuracy"])
    assert [result["seed"] for result in results] == [1, 2]
    assert read_record(manifests.folder(weights_dir, "tiny")).settings.seed == best["seed"]
    assert manifest.accuracy == best["accuracy"]


def test_the_history_has_every_epoch(settings, weights_dir):
    quiet(settings, weights_dir)
    history = json.loads(Path(settings.reports_dir, "tiny", "history.json").read_text())["history"]
    assert [sorted(epoch) for epoch in history] == [
        ["accuracy", "held_out_accuracy", "held_out_loss", "loss", "seconds"]
    ] * 2


@pytest.mark.timeout(400)
def test_members_learn_in_turn_and_answer_together(settings, weights_dir):
    three = NetworkSettings(kind="resnet", widths=(4, 8), members=3, mirrored=True)
    manifest, _ = quiet(replace(settings, network=three), weights_dir)
    images = np.random.default_rng(1).integers(0, 256, (2, 28, 28), np.uint8)
    _, features = OnnxRuntime.of_model(manifests.folder(weights_dir, "tiny"), manifest, 1).run(images)
    assert features.shape == (2, 3 * 8)
    assert not np.allclose(features[:, :8], features[:, 8:16])
    for runtime in ("onnx", "keras"):
        answers, mirrored = (
            load(weights_dir, "tiny", runtime, 1).predict(its) for its in (images, images[:, :, ::-1])
        )
        np.testing.assert_allclose(answers.answers, mirrored.answers, atol=1e-6)
    record = read_record(manifests.folder(weights_dir, "tiny"))
    assert record.settings.network == three
    assert (record.epochs, len(record.best_epochs)) == (2 + 2 + 2, 3)


def test_a_teacher_is_asked_once_for_every_edition(settings, weights_dir, monkeypatch):
    quiet(settings, weights_dir)
    taught = replace(
        settings,
        name="student",
        teacher=replace(settings.teacher, name="tiny"),
        augmentation=replace(AUGMENTATION, editions=1, plain_epochs=0),
    )
    quiet(taught, weights_dir)
    assert read_record(manifests.folder(weights_dir, "student")).settings.teacher.name == "tiny"
    assert len(list(Path(settings.checkpoint_dir).glob("teacher-*/*.npy"))) == 1


def test_a_teacher_that_is_not_there_is_named(settings, weights_dir):
    with pytest.raises(ModelError, match=r"other has no .*model\.yaml"):
        quiet(replace(settings, teacher=replace(settings.teacher, name="other")), weights_dir)


def test_a_loss_that_is_not_a_number_ends_the_training_with_a_hint(settings, weights_dir):
    with pytest.raises(TrainingError, match=r"lower train\.learning_rate"):
        quiet(replace(settings, learning_rate=1e30, warmup_epochs=0), weights_dir)
    assert checkpoints_of(alone(settings, 0)).progress().epochs_done == 0


def test_members_without_enough_epochs_are_refused(settings, weights_dir):
    two = replace(settings, later_epochs=1, network=replace(settings.network, members=2))
    with pytest.raises(TrainingError, match="later_epochs must be greater than"):
        quiet(two, weights_dir)


def test_other_settings_start_afresh(settings):
    assert fingerprint(settings) != fingerprint(replace(settings, learning_rate=0.2))
    assert fingerprint(settings) == fingerprint(replace(settings, data_dir="elsewhere"))


def test_the_best_epoch_is_the_last_of_the_most_accurate():
    progress = Progress()
    for accuracy in (0.5, 0.9, 0.9, 0.8):
        progress = progress.after(Epoch(1.0, 0.5, 1.0, accuracy, seconds=2.0))
    assert (progress.epochs_done, progress.best_epoch) == (4, 3)


def test_held_out_pictures_are_not_trained_on(settings, data):
    split = dataset.split(data, settings)
    assert (len(split.images), len(split.held_out_images)) == (350, 50)
    trained_on = {picture.tobytes() for picture in split.images}
    assert not trained_on & {picture.tobytes() for picture in split.held_out_images}


def test_the_learning_rate_rises_to_its_peak_and_falls_to_nothing(settings):
    rate = learning.schedule(settings, pictures=10 * settings.batch_size)
    rates = [float(rate(step)) for step in range(21)]
    assert rates[0] == 0
    assert rates.index(max(rates)) == 10
    assert rates[10] == pytest.approx(0.1)
    assert rates[20] == pytest.approx(0, abs=1e-6)
