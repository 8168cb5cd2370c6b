from pathlib import Path

import keras
import msgspec
import numpy as np
import pytest

from model import manifest as manifests
from model.classifier import load
from model.manifest import Export, File, ModelError
from tests import second_model

NAME = "fashion-mnist"

# TensorFlow 2.21's arrays do not know NumPy 2's copy keyword yet.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture
def weights(tmp_path):
    """A copy of the shipped model that a test may damage."""
    second_model.copy_shipped(tmp_path)
    return tmp_path


@pytest.fixture
def folder(weights):
    return manifests.folder(weights, NAME)


def flip_a_bit(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def empty(path):
    path.write_bytes(b"")


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def pickle(path):
    path.write_bytes(b"\x80\x04cos\nsystem\n(S'touch owned'\ntR.")


NOT_NAMED = "is not the file that its manifest names"


@pytest.mark.parametrize("damage", [flip_a_bit, empty, cut, pickle, Path.unlink])
@pytest.mark.parametrize("runtime", ["onnx", "keras"])
def test_damaged_weights_are_refused_before_they_are_opened(weights, folder, runtime, damage, monkeypatch):
    monkeypatch.setattr(keras.saving, "load_model", None)
    monkeypatch.setattr("onnxruntime.InferenceSession", None)
    damage(folder / f"model.{runtime}")
    with pytest.raises(ModelError, match=f"{NOT_NAMED}|cannot be read|has no ONNX file"):
        load(weights, NAME, runtime, 1)


def test_an_h5_file_under_another_name_is_refused(weights, folder):
    network = keras.saving.load_model(folder / "model.keras", compile=False)
    network.save_weights(folder / "other.weights.h5")
    (folder / "other.weights.h5").replace(folder / "model.keras")
    with pytest.raises(ModelError, match=NOT_NAMED):
        load(weights, NAME, "keras", 1)


def test_a_damaged_export_is_refused_and_not_replaced_by_keras(weights, folder):
    flip_a_bit(folder / "model.onnx")
    with pytest.raises(ModelError, match=NOT_NAMED):
        load(weights, NAME, "auto", 1)


def with_other_weights(folder, change):
    """The model with a .keras file that change() has made from the network, and a manifest that fits."""
    path = folder / "model.keras"
    change(keras.saving.load_model(path, compile=False)).save(path)
    second_model.change(folder, keras=File(file=path.name, sha256=manifests.sha256(path.read_bytes())))


def not_a_number(network):
    network.get_layer("probabilities").bias.assign(np.full(10, np.nan, np.float32))
    return network


def with_code_in_it(network):
    return keras.Model(network.input, keras.layers.Lambda(lambda x: x)(network.output))


def one_class_less(network):
    features = network.get_layer("features").output
    return keras.Model(network.input, keras.layers.Dense(9, "softmax")(features))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (not_a_number, r"model\.keras does not give probabilities"),
        (with_code_in_it, r"Keras cannot open .*model\.keras"),
        (one_class_less, r"model\.keras gives 9 numbers for 10 labels"),
    ],
)
def test_a_model_that_cannot_be_served_is_refused_by_name(weights, folder, change, complaint):
    with_other_weights(folder, change)
    with pytest.raises(ModelError, match=complaint):
        load(weights, NAME, "keras", 1)


def test_a_damaged_detector_is_refused(weights, folder):
    flip_a_bit(folder / "detector.npz")
    with pytest.raises(ModelError, match=rf"detector\.npz {NOT_NAMED}"):
        load(weights, NAME, "onnx", 1)


@pytest.mark.parametrize("runtime", ["onnx", "keras"])
def test_a_file_that_is_no_model_is_refused_although_its_digest_is_right(weights, folder, runtime):
    content = b"not a model"
    (folder / f"model.{runtime}").write_bytes(content)
    digest = manifests.sha256(content)
    if runtime == "onnx":
        keras_sha256 = manifests.read(folder).keras.sha256
        changed = {"onnx": Export(file="model.onnx", sha256=digest, exported_from=keras_sha256)}
    else:
        changed = {"keras": File(file="model.keras", sha256=digest)}
    second_model.change(folder, **changed)
    with pytest.raises(ModelError, match=r"cannot open|is damaged"):
        load(weights, NAME, runtime, 1)


def test_a_damaged_golden_picture_is_refused(weights, folder):
    flip_a_bit(folder / "golden" / "bag.png")
    with pytest.raises(ModelError, match=rf"bag\.png {NOT_NAMED}"):
        load(weights, NAME, "auto", 1)


def test_a_golden_picture_that_is_classified_otherwise_is_named(weights, folder):
    its = manifests.read(folder)
    wrong = [msgspec.structs.replace(golden, label="Bag") for golden in its.golden]
    second_model.change(folder, golden=tuple(wrong))
    with pytest.raises(ModelError, match=r"t-shirt-top\.png is classified as T-shirt/top 0\.99\d, .* as Bag"):
        load(weights, NAME, "auto", 1)


def test_a_golden_picture_that_is_less_probable_than_it_was_is_named(weights, folder):
    its = manifests.read(folder)
    second_model.change(
        folder, golden=tuple(msgspec.structs.replace(golden, probability=0.9) for golden in its.golden)
    )
    with pytest.raises(ModelError, match=r"and should be as T-shirt/top 0\.900"):
        load(weights, NAME, "auto", 1)
