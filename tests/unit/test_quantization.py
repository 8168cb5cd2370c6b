"""An export in 8-bit integers, of a network that has learned a little."""

from pathlib import Path

import keras
import numpy as np
import onnx
import pytest

from model.onnx_runtime import OnnxRuntime
from model.settings import NetworkSettings
from model.training.export import to_onnx
from model.training.network import to_serve, to_train
from model.training.objective import Objective, targets
from model.training.quantization import quantized

# TensorFlow 2.21's arrays do not know NumPy 2's copy keyword yet.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

RESNETS = NetworkSettings(kind="resnet", widths=(8, 16), members=2)


@pytest.fixture(scope="module")
def pictures():
    with np.load(Path(__file__).parents[1] / "data" / "fashion-mnist-test-500.npz") as arrays:
        return arrays["images"], arrays["labels"]


@pytest.fixture(scope="module")
def exported(pictures):
    """In float32."""
    keras.utils.set_random_seed(1)
    members = [to_train(RESNETS, 10) for _ in range(RESNETS.members)]
    for member in members:
        member.compile(keras.optimizers.SGD(0.05, 0.9), Objective(0.0, 1.0), jit_compile=False)
        member.fit(pictures[0], targets(pictures[1], 10, None), batch_size=32, epochs=6, verbose=0)
    return to_onnx(to_serve(RESNETS, 10, members, temperature=1.0))


@pytest.fixture(scope="module")
def smaller(exported, pictures):
    return quantized(exported, pictures[0])


def run(content, images):
    return OnnxRuntime(content, threads=1, file="the export").run(images)


def test_the_answers_are_those_of_the_network_but_for_rounding(exported, smaller, pictures):
    (exact, exact_features), (rounded, features) = (run(each, pictures[0]) for each in (exported, smaller))
    assert (exact.argmax(axis=1) == rounded.argmax(axis=1)).mean() > 0.97
    assert 0 < np.abs(exact - rounded).mean() < 0.01
    assert features.shape == exact_features.shape


def test_every_convolution_but_those_of_the_picture_has_weights_of_8_bits(smaller):
    graph = onnx.load_from_string(smaller).graph
    makers = {output: node for node in graph.node for output in node.output}
    kinds = [
        "int8" if makers.get(node.input[1]) else "float32" for node in graph.node if node.op_type == "Conv"
    ]
    assert (kinds.count("float32"), kinds.count("int8")) == (RESNETS.members, RESNETS.members * 3)


def test_the_file_is_smaller_and_has_the_same_inputs_and_outputs(exported, smaller):
    before, after = (onnx.load_from_string(content).graph for content in (exported, smaller))
    assert [*after.input, *after.output] == [*before.input, *before.output]
    assert len(smaller) < len(exported)


def test_it_follows_from_network_and_pictures_alone(exported, smaller, pictures):
    assert quantized(exported, pictures[0]) == smaller


@pytest.mark.parametrize("count", [1, 70])
def test_any_number_of_pictures_will_do_and_nothing_is_printed(exported, pictures, capfd, caplog, count):
    run(quantized(exported, pictures[0][:count]), pictures[0])
    assert capfd.readouterr() == ("", "")
    assert not caplog.records
