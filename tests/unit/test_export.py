import keras
import numpy as np
import onnx
import onnxruntime
import pytest

from model.export import to_onnx
from model.network import build

# TensorFlow 2.21's arrays do not know NumPy 2's copy keyword yet.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture(scope="module")
def network():
    """Untrained, but with every weight another than a new network has: folding must use them all."""
    keras.utils.set_random_seed(1)
    network = build((8, 16), 10)
    random = np.random.default_rng(1)
    network.set_weights(
        [random.uniform(0.5, 1.5, weight.shape) * (weight + 0.1) for weight in network.get_weights()]
    )
    return network


@pytest.fixture(scope="module")
def exported(network):
    return to_onnx(network)


def pictures(count):
    return np.random.default_rng(count).integers(0, 256, (count, 28, 28), dtype=np.uint8)


def run(exported, images):
    return onnxruntime.InferenceSession(exported).run(None, {"pixels": images})[0]


@pytest.mark.parametrize("count", [1, 2, 33])
def test_the_export_gives_the_answers_of_the_network_for_any_number_of_pictures(network, exported, count):
    expected = network.predict(pictures(count), verbose=0)
    assert np.abs(run(exported, pictures(count)) - expected).max() < 1e-5
    assert expected.std() > 0.01


def test_batch_normalisation_is_folded_away(exported):
    operators = [node.op_type for node in onnx.load_from_string(exported).graph.node]
    assert operators.count("Conv") == 4
    assert "BatchNormalization" not in operators


def test_what_goes_in_and_comes_out_has_a_name_and_a_type(exported):
    graph = onnx.load_from_string(exported).graph
    (pixels,), (probabilities,) = graph.input, graph.output
    assert (pixels.name, pixels.type.tensor_type.elem_type) == ("pixels", onnx.TensorProto.UINT8)
    assert (probabilities.name, probabilities.type.tensor_type.elem_type) == (
        "probabilities",
        onnx.TensorProto.FLOAT,
    )


def test_a_layer_that_cannot_be_written_stops_the_export():
    inputs = keras.Input((28, 28), dtype="uint8")
    outputs = keras.layers.Dense(10)(keras.layers.Flatten()(inputs))
    with pytest.raises(KeyError, match="Flatten"):
        to_onnx(keras.Model(inputs, outputs))
