import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from msgspec.structs import replace

from model.settings import NetworkSettings
from model.training.calibration import softmax
from model.training.export import to_onnx
from model.training.network import multiply_adds, serving, to_serve, to_train

# TensorFlow 2.21's arrays do not know NumPy 2's copy keyword yet.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

VGG = NetworkSettings(kind="vgg", widths=(8, 16), members=1)
RESNETS = NetworkSettings(kind="resnet", widths=(8, 16, 24), members=3)
MIRRORED = NetworkSettings(kind="resnet", widths=(8, 16, 24), members=2, mirrored=True)


@pytest.fixture(
    scope="module", params=[VGG, RESNETS, MIRRORED], ids=["one vgg", "three resnets", "two, mirrored"]
)
def trained(request):
    """Untrained, but with every weight another than a new network has: folding must use them all.

    The last layer's are small, so that no probability is 0 or 1.
    """
    keras.utils.set_random_seed(1)
    networks = [to_train(request.param, 10) for _ in range(request.param.members)]
    random = np.random.default_rng(1)
    for network in networks:
        network.set_weights(
            [random.uniform(0.7, 1.3, weight.shape) * (weight + 0.02) for weight in network.get_weights()]
        )
        logits = network.predict(pictures(5), verbose=0)
        last = network.layers[-1]
        last.set_weights([weight / logits.std() for weight in last.get_weights()])
    return request.param, networks


@pytest.fixture(scope="module")
def network(trained):
    return to_serve(trained[0], 10, trained[1], temperature=1.7)


@pytest.fixture(scope="module")
def exported(network):
    return to_onnx(network)


def pictures(count):
    return np.random.default_rng(count).integers(0, 256, (count, 28, 28), dtype=np.uint8)


def run(exported, images):
    return onnxruntime.InferenceSession(exported).run(["probabilities", "features"], {"pixels": images})


def test_what_is_served_is_the_mean_of_the_members_logits_over_the_temperature(trained, network):
    images = pictures(5)
    views = [images, images[:, :, ::-1]] if trained[0].mirrored else [images]
    logits = [network.predict(view, verbose=0) for network in trained[1] for view in views]
    expected = softmax(np.mean(logits, axis=0) / 1.7)
    assert np.abs(network.predict(images, verbose=0) - expected).max() < 1e-5
    assert 0.01 < expected.std() < 0.29


@pytest.mark.parametrize("count", [1, 2, 33])
def test_the_export_gives_the_answers_of_the_network_for_any_number_of_pictures(network, exported, count):
    features = keras.Model(network.input, network.get_layer("features").output)
    probabilities, found = run(exported, pictures(count))
    assert np.abs(probabilities - network.predict(pictures(count), verbose=0)).max() < 1e-5
    np.testing.assert_allclose(found, features.predict(pictures(count), verbose=0), rtol=1e-3, atol=1e-4)


def test_batch_normalisation_is_folded_away(trained, exported):
    operators = [node.op_type for node in onnx.load_from_string(exported).graph.node]
    assert operators.count("Conv") == trained[0].members * {"vgg": 4, "resnet": 7}[trained[0].kind]
    assert "BatchNormalization" not in operators


def test_what_goes_in_and_comes_out_has_a_name_and_a_type(exported):
    graph = onnx.load_from_string(exported).graph
    kinds = {each.name: each.type.tensor_type.elem_type for each in [*graph.input, *graph.output]}
    floats = onnx.TensorProto.FLOAT
    assert kinds == {"pixels": onnx.TensorProto.UINT8, "probabilities": floats, "features": floats}


def test_a_layer_that_cannot_be_written_stops_the_export():
    inputs = keras.Input((28, 28), dtype="uint8")
    outputs = keras.layers.Dense(10)(keras.layers.Flatten()(inputs))
    with pytest.raises(KeyError, match="Flatten"):
        to_onnx(keras.Model(inputs, outputs))


def test_multiply_adds_are_counted_by_hand():
    convolutions, dense = 28 * 28 * 9 * (1 * 8 + 8 * 8) + 14 * 14 * 9 * (8 * 16 + 16 * 16), 16 * 10
    assert multiply_adds(serving(VGG, 10), VGG) == convolutions + dense
    mirrored = replace(VGG, mirrored=True)
    assert multiply_adds(serving(mirrored, 10), mirrored) == 2 * convolutions + dense
