from pathlib import Path

import msgspec
import numpy as np
import pytest
import yaml
from msgspec.structs import replace

from model.runtimes import OnnxRuntime
from model.training import drawn_clothes, photo_model
from model.training.dataset import DatasetError
from model.training.evaluate import calibration_error
from model.training.fine_tuning import FineTuningSettings, checkpoints_of, learn, read_settings, shown
from model.training.learning import TrainingError
from model.training.photo_variation import KEPT_SIDE, Photos, read, seen
from tests.unit.recipes import softmax

# TensorFlow 2.21's arrays do not know NumPy 2's copy keyword yet.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.long,
]

CONFIG = Path(__file__).parents[2] / "configs" / "clothing-photo.yaml"
KINDS = ("dress", "pants", "t-shirt")


def settings(folder: Path) -> FineTuningSettings:
    """For three kinds of drawings: small, but every step is there."""
    its = read_settings(CONFIG)
    return replace(
        its,
        labels=KINDS,
        train_dir=str(folder / "train"),
        choose_dir=str(folder / "choose"),
        checkpoint_dir=str(folder / "checkpoints"),
        weights_dir=str(folder / "weights"),
        side=64,
        small_side=48,
        epochs=3,
        small_epochs=1,
        plain_epochs=1,
        batch_size=8,
        learning_rate=0.0005,
        ema_decay=0.5,
        dropout=0.0,  # what is dropped does not depend on the seed and the epoch alone
        drop_path=0.0,
        variation=replace(its.variation, mixup=0.1, cutmix=0.1),
    )


def write_drawings(folder: Path, seeds: range) -> None:
    for kind in KINDS:
        (folder / kind).mkdir(parents=True)
        for seed in seeds:
            picture = drawn_clothes.as_jpeg(drawn_clothes.draw(kind, seed))
            (folder / kind / f"{seed}.jpg").write_bytes(picture)


class Trained(msgspec.Struct, frozen=True):
    """A training, and everything that its parts gave."""

    settings: FineTuningSettings
    photos: Photos
    chosen_by: Photos
    progress: object
    network: object
    lines: list[str]
    folder: Path


def photos_of(its: FineTuningSettings) -> tuple[Photos, Photos]:
    photos = read(Path(its.train_dir), its.labels, KEPT_SIDE)
    return photos, read(Path(its.choose_dir), its.labels, its.side)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    folder = tmp_path_factory.mktemp("photos")
    write_drawings(folder / "train", range(100, 116))
    write_drawings(folder / "choose", range(200, 206))
    its, lines = settings(folder), []
    photos, chosen_by = photos_of(its)
    progress, network = learn(its, photos, chosen_by, lines.append, progress_bar=False)
    shipped = photo_model.ship(its, progress, network, photos, chosen_by, lines.append)
    return Trained(its, photos, chosen_by, progress, network, lines, shipped)


# Settings.


def test_the_shipped_settings_are_whole() -> None:
    its = read_settings(CONFIG)
    assert (its.name, its.side, len(its.labels)) == ("clothing-photo", 224, 10)
    assert list(its.labels) == sorted(its.labels)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (("seed: 1 ", "sead: 1 "), "sead"),
        (("batch_size: 32", "batch_size: 0"), "batch_size"),
        (("warmup_epochs: 1 ", "warmup_epochs: 90 "), "warmup_epochs"),
    ],
)
def test_wrong_settings_are_named(tmp_path: Path, change: tuple[str, str], problem: str) -> None:
    text = CONFIG.read_text()
    assert change[0] in text
    (tmp_path / "settings.yaml").write_text(text.replace(*change))
    with pytest.raises(TrainingError, match=rf"settings\.yaml.*{problem}"):
        read_settings(tmp_path / "settings.yaml")
    with pytest.raises(TrainingError, match="cannot be read"):
        read_settings(tmp_path / "missing.yaml")


def test_what_changes_the_weights_has_checkpoints_of_its_own(tmp_path: Path) -> None:
    its = settings(tmp_path)
    own = checkpoints_of(its).best
    assert own(progress := _nothing()) == checkpoints_of(replace(its, version="2")).best(progress)
    assert own(progress) != checkpoints_of(replace(its, learning_rate=0.1)).best(progress)


def _nothing() -> object:
    from model.training.learning import Progress

    return Progress()


# Learning.


def test_an_epoch_shows_every_photo_once_in_its_size(trained: Trained) -> None:
    its = replace(trained.settings, variation=replace(trained.settings.variation, mixup=0.0, cutmix=0.0))
    first, second = (shown(its, trained.photos, epoch) for epoch in (0, 1))
    assert first.images.shape == (48, 48, 48, 3)
    assert second.images.shape == (48, 64, 64, 3)
    for each in (first, second):
        counts = np.bincount(each.targets[:, 0].argmax(axis=1), minlength=3)
        assert counts.tolist() == [16, 16, 16]
    np.testing.assert_allclose(first.targets.sum(axis=2), 1, atol=1e-5)
    np.testing.assert_allclose(first.targets.max(), 0.9 + 0.1 / 3, atol=1e-5)
    again = shown(its, trained.photos, 0)
    np.testing.assert_array_equal(again.images, first.images)
    np.testing.assert_array_equal(again.targets, first.targets)


def test_it_learns_to_tell_drawings_apart(trained: Trained) -> None:
    history = trained.progress.history
    assert len(history) == trained.settings.epochs
    assert max(epoch.held_out_accuracy for epoch in history) >= 0.8


class Interrupted(Exception):
    pass


def test_an_interrupted_training_goes_on_where_it_was(trained: Trained, tmp_path: Path) -> None:
    its = replace(trained.settings, checkpoint_dir=str(tmp_path))

    def interrupting(line: str) -> None:
        raise Interrupted

    with pytest.raises(Interrupted):
        learn(its, trained.photos, trained.chosen_by, interrupting, progress_bar=False)
    lines: list[str] = []
    progress, network = learn(its, trained.photos, trained.chosen_by, lines.append, progress_bar=False)
    assert lines[0] == "resuming after epoch 1 of 3"
    assert len(progress.history) == 3
    for own, other in zip(network.get_weights(), trained.network.get_weights(), strict=True):
        np.testing.assert_allclose(own, other, atol=2e-3)


# The folder.


def test_the_manifest_says_what_serving_needs(trained: Trained) -> None:
    manifest = yaml.safe_load((trained.folder / "model.yaml").read_text())
    assert trained.folder == Path(trained.settings.weights_dir, "clothing-photo", trained.settings.version)
    assert manifest["labels"] == list(KINDS)
    assert manifest["input"] == {
        "height": 64, "width": 64, "channels": 3, "dtype": "uint8", "layout": "NHWC",
    }  # fmt: skip
    assert manifest["onnx"]["exported_from"] == manifest["keras"]["sha256"]
    for its in (manifest["keras"], manifest["onnx"], *manifest["golden"]):
        assert photo_model.digest(trained.folder / its["file"]) == its["sha256"]
    found = {str(path.relative_to(trained.folder)) for path in trained.folder.rglob("*") if path.is_file()}
    golden = {each["file"] for each in manifest["golden"]}
    assert found == {"model.yaml", "model.keras", "model.onnx", "training.json", "card.md"} | golden


def test_the_golden_pictures_have_the_answers_that_are_written(trained: Trained) -> None:
    manifest = yaml.safe_load((trained.folder / "model.yaml").read_text())
    exported = (trained.folder / "model.onnx").read_bytes()
    runtime = OnnxRuntime(exported, threads=1, file="the export")
    assert manifest["golden"]
    for each in manifest["golden"]:
        picture = (trained.folder / each["file"]).read_bytes()
        (row,) = runtime.run(seen(picture, 64)[None])[0]
        assert KINDS[row.argmax()] == each["label"]
        assert row.max() == pytest.approx(each["probability"], abs=0.02)


def test_the_keras_file_answers_as_the_trained_network_does(trained: Trained) -> None:
    import keras

    network = keras.saving.load_model(trained.folder / "model.keras", compile=False, safe_mode=True)
    record = msgspec.json.decode((trained.folder / "training.json").read_bytes())
    images = trained.chosen_by.images
    logits = photo_model.mean_logits(trained.settings, trained.network, images) / record["temperature"]
    np.testing.assert_allclose(network(images).numpy(), softmax(logits), atol=1e-4)
    mirrored = network(np.ascontiguousarray(images[:, :, ::-1])).numpy()
    np.testing.assert_allclose(mirrored, network(images).numpy(), atol=1e-4)


def test_the_record_and_the_card_have_the_figures(trained: Trained) -> None:
    record = msgspec.json.decode((trained.folder / "training.json").read_bytes())
    figures = record["figures"]
    assert figures["metrics"]["count"] == 18
    assert figures["agreement"] >= photo_model.AGREEMENT
    assert len(record["history"]) == 3
    assert str(trained.folder.parents[2]) not in (trained.folder / "training.json").read_text()
    card = (trained.folder / "card.md").read_text()
    assert f"**{figures['metrics']['accuracy']:.1%} ±" in card
    assert all(f"| {kind} | " in card for kind in KINDS)
    assert "Apache-2.0" in card
    assert "CC0" in card


def test_a_version_that_exists_is_not_replaced(trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"exists\. Set another version"):
        photo_model.folder_of(trained.settings)
    config = tmp_path / "settings.yaml"
    config.write_bytes(msgspec.yaml.encode(trained.settings))
    with pytest.raises(SystemExit, match="exists"):
        photo_model.main([str(config)])


def test_photos_that_are_missing_are_named(tmp_path: Path) -> None:
    config = tmp_path / "settings.yaml"
    config.write_bytes(msgspec.yaml.encode(settings(tmp_path)))
    with pytest.raises(SystemExit, match=f"error: {tmp_path}/train is not a folder"):
        photo_model.main([str(config)])
    with pytest.raises(DatasetError):
        photos_of(settings(tmp_path))


def test_temperatures_of_other_photos_show_what_the_fitted_one_hides() -> None:
    """Right half of the time at a confidence of 0.9, so that every temperature is too low."""
    random = np.random.default_rng(1)
    labels = random.integers(0, 2, 600).astype(np.uint8)
    says = np.where(random.random(600) < 0.5, labels, 1 - labels)
    sure = np.where(np.eye(2)[says] == 1, 0.9, 0.1).astype(np.float32)
    before = calibration_error(sure.max(axis=1), sure.argmax(axis=1) == labels)
    after = photo_model.unfitted_ece(sure, labels, ("a", "b"), seed=1)
    assert before == pytest.approx(0.4, abs=0.06)
    assert after < 0.25
