import shutil
from pathlib import Path

import keras
import msgspec
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
    for kind in ("keras", "onnx", "json"):
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
