import shutil
from pathlib import Path

import keras
import msgspec
import numpy as np
import pytest

from model import manifest as manifests
from model.classifier import load
from model.manifest import ModelError

WEIGHTS = Path("weights")
NAME = "fashion-mnist"

# TensorFlow 2.21's arrays do not know NumPy 2's copy keyword yet.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture
def weights(tmp_path):
    """A copy of the shipped model that a test may damage."""
    for kind in ("keras", "onnx", "npz", "json"):
        shutil.copy(WEIGHTS / f"{NAME}.{kind}", tmp_path)
    return tmp_path


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


@pytest.mark.parametrize("damage", [flip_a_bit, empty, cut, pickle, Path.unlink])
@pytest.mark.parametrize("runtime", ["onnx", "keras"])
def test_damaged_weights_are_refused_before_they_are_opened(weights, runtime, damage, monkeypatch):
    monkeypatch.setattr(keras.saving, "load_model", None)
    monkeypatch.setattr("onnxruntime.InferenceSession", None)
    damage(weights / f"{NAME}.{runtime}")
    with pytest.raises(
        ModelError, match=r"is not the file that was trained|cannot be read|has no ONNX export"
    ):
        load(weights, NAME, runtime, 1)


def test_an_h5_file_under_another_name_is_refused(weights):
    network = keras.saving.load_model(WEIGHTS / f"{NAME}.keras", compile=False)
    network.save_weights(weights / "other.weights.h5")
    (weights / "other.weights.h5").replace(weights / f"{NAME}.keras")
    with pytest.raises(ModelError, match="is not the file that was trained"):
        load(weights, NAME, "keras", 1)


def test_a_damaged_export_is_refused_and_not_replaced_by_keras(weights):
    flip_a_bit(weights / f"{NAME}.onnx")
    with pytest.raises(ModelError, match="is not the file that was trained"):
        load(weights, NAME, "auto", 1)


def with_other_weights(weights, change):
    """The model with a .keras file that change() has made from the network, and a manifest that fits."""
    path = weights / f"{NAME}.keras"
    change(keras.saving.load_model(path, compile=False)).save(path)
    digest = manifests.sha256(path.read_bytes())
    manifests.write(weights, msgspec.structs.replace(manifests.read(weights, NAME), keras_sha256=digest))


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
        (not_a_number, r"fashion-mnist\.keras does not give probabilities"),
        (with_code_in_it, r"Keras cannot open .*fashion-mnist\.keras"),
        (one_class_less, r"fashion-mnist\.keras gives 9 numbers for 10 labels"),
    ],
)
def test_a_model_that_cannot_be_served_is_refused_by_name(weights, change, complaint):
    with_other_weights(weights, change)
    with pytest.raises(ModelError, match=complaint):
        load(weights, NAME, "keras", 1)


def test_a_damaged_detector_is_refused(weights):
    flip_a_bit(weights / f"{NAME}.npz")
    with pytest.raises(ModelError, match=r"fashion-mnist\.npz is not the file that was trained"):
        load(weights, NAME, "onnx", 1)


@pytest.mark.parametrize("runtime", ["onnx", "keras"])
def test_a_file_that_is_no_model_is_refused_although_its_digest_is_right(weights, runtime):
    content = b"not a model"
    (weights / f"{NAME}.{runtime}").write_bytes(content)
    digest = {f"{runtime}_sha256": manifests.sha256(content)}
    manifest = msgspec.structs.replace(manifests.read(weights, NAME), **digest)
    fitting = msgspec.structs.replace(manifest, onnx_from_sha256=manifest.keras_sha256)
    manifests.write(weights, fitting)
    with pytest.raises(ModelError, match="cannot open"):
        load(weights, NAME, runtime, 1)
