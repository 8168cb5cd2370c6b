import os
import runpy
import sys
from io import BytesIO
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from model import manifest as manifests
from model.classifier import choose, load, predict_picture
from model.manifest import ModelError, sha256
from model.preprocessing import prepare
from model.training import dataset, drawn_clothes
from model.training.evaluate import in_batches
from tests import second_model

WEIGHTS = Path("weights")
NAME = "fashion-mnist"
SAMPLES = Path("samples")

# TensorFlow 2.21's arrays do not know NumPy 2's copy keyword yet.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

needs_data_set = pytest.mark.skipif(
    dataset.find(Path("data"), dataset.DEBIAN_DIR) is None and "REQUIRE_FASHION_MNIST" not in os.environ,
    reason="the data set is missing: apt install dataset-fashion-mnist, or put its four files into data/",
)


@pytest.fixture(scope="module")
def classifiers():
    return [load(WEIGHTS, NAME, runtime, 1) for runtime in ("onnx", "keras")]


@pytest.fixture(scope="module")
def some():
    """500 test pictures and their labels."""
    with np.load(Path(__file__).parents[1] / "data" / "fashion-mnist-test-500.npz") as arrays:
        return arrays["images"], arrays["labels"]


@pytest.fixture(scope="module")
def every():
    """The 10,000 test pictures and their labels."""
    data = dataset.load(Path("data"))
    return data.test_images, data.test_labels


@pytest.fixture
def weights(tmp_path):
    """A copy of the shipped model that a test may damage."""
    second_model.copy_shipped(tmp_path)
    return tmp_path


def answers(classifier, images):
    return in_batches(classifier.predict, images)[0].argmax(axis=1)


def accuracy(classifier, images, labels):
    return (answers(classifier, images) == labels).mean()


def assert_alike(classifiers, images):
    onnx, reference = (in_batches(classifier.predict, images)[0] for classifier in classifiers)
    assert (onnx.argmax(axis=1) == reference.argmax(axis=1)).mean() >= 0.99
    assert np.abs(onnx - reference).mean() < 1e-3


def test_the_export_gives_the_answers_of_keras_but_for_rounding(classifiers, some):
    assert [classifier.runtime for classifier in classifiers] == ["onnx", "keras"]
    assert_alike(classifiers, some[0])


@needs_data_set
def test_the_export_is_as_close_on_every_test_picture(classifiers, every):
    assert_alike(classifiers, every[0])


def test_the_shipped_model_is_right_nine_times_in_ten(classifiers, some):
    assert accuracy(classifiers[0], *some) >= 0.90


@needs_data_set
def test_the_shipped_model_is_as_accurate_as_its_manifest_says(classifiers, every):
    found = accuracy(classifiers[0], *every)
    assert found >= 0.93
    assert found == pytest.approx(classifiers[0].manifest.accuracy, abs=1e-4)


@pytest.mark.parametrize("count", [1, 2, 7, 64])
def test_every_picture_gets_a_row_of_probabilities(classifiers, some, count):
    for classifier in classifiers:
        rows = classifier.predict(some[0][:count]).answers
        assert (rows.shape, rows.dtype) == ((count, 10), np.float32)
        assert np.allclose(rows.sum(axis=1), 1, atol=1e-5)


def test_a_picture_gets_the_same_answer_alone_and_among_others(classifiers, some):
    for classifier in classifiers:
        alone = np.concatenate([classifier.predict(some[0][i : i + 1]).answers for i in range(8)])
        assert np.allclose(alone, classifier.predict(some[0][:8]).answers, atol=1e-5)


def test_auto_takes_the_export_where_there_is_one(weights):
    assert load(weights, NAME, "auto", 1).runtime == "onnx"


def test_auto_takes_keras_when_there_is_no_export(weights):
    (manifests.folder(weights, NAME) / "model.onnx").unlink()
    assert load(weights, NAME, "auto", 1).runtime == "keras"


def test_auto_takes_keras_when_the_export_is_of_another_model(weights):
    folder = manifests.folder(weights, NAME)
    export = msgspec.structs.replace(manifests.read(folder).onnx, exported_from="0" * 64)
    second_model.change(folder, onnx=export)
    assert load(weights, NAME, "auto", 1).runtime == "keras"
    with pytest.raises(ModelError, match="has no ONNX file of these weights"):
        load(weights, NAME, "onnx", 1)


def test_an_unknown_runtime_is_refused_with_the_known_ones():
    with pytest.raises(ModelError, match="Choose auto, onnx or keras"):
        choose("torch", manifests.read(second_model.SHIPPED), second_model.SHIPPED)


def test_a_runtime_that_is_not_installed_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ModelError, match="The runtime onnx is not installed"):
        load(WEIGHTS, NAME, "onnx", 1)


def as_a_shop_shows_it(picture):
    """The picture as a PNG of 600x800: dark on white, off the centre."""
    page = Image.new("L", (600, 800), 253)
    page.paste(Image.fromarray(255 - picture).resize((420, 420), Image.Resampling.BICUBIC), (90, 250))
    file = BytesIO()
    page.save(file, "PNG", compress_level=1)
    return file.getvalue()


def test_a_product_photo_is_recognised_like_the_picture_it_was_made_from(classifiers, some):
    pictures = some[0][::5]
    photos = np.stack([prepare(as_a_shop_shows_it(each), max_pixels=1_000_000).pixels for each in pictures])
    expected, answered = (answers(classifiers[0], batch) for batch in (pictures, photos))
    assert (expected == answered).mean() >= 0.90


@pytest.mark.parametrize("sample", sorted(SAMPLES.glob("*.png")), ids=lambda path: path.stem)
def test_the_sample_pictures_are_recognised(sample):
    classifier = load(WEIGHTS, NAME, "onnx", 1)
    answer = predict_picture(sample.read_bytes(), classifier, mode="auto", max_pixels=1000)
    label, probability = next(iter(answer.probabilities.items()))
    assert label.lower().replace("/", "-").replace(" ", "-") == sample.stem
    assert probability > 0.8


PHOTOS = runpy.run_path("samples/make_samples.py")["PHOTOS"]


@pytest.mark.parametrize("kind", PHOTOS)
def test_the_sample_photos_are_recognised_and_are_what_the_script_draws(kind):
    classifier = load(WEIGHTS, "clothing-photo", "onnx", 1)
    content = (SAMPLES / f"photo-{kind}.jpg").read_bytes()
    answer = predict_picture(content, classifier, mode="auto", max_pixels=10**6)
    label, probability = next(iter(answer.probabilities.items()))
    assert label == kind
    assert probability > 0.9
    assert len(content) < 60_000
    assert sha256(content) not in [golden.sha256 for golden in classifier.manifest.golden]
    drawn = drawn_clothes.draw(kind, PHOTOS[kind])
    stored = np.asarray(Image.open(BytesIO(content)), np.float32)
    assert np.abs(stored - np.asarray(drawn)).mean() < 5
