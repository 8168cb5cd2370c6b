import logging
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from msgspec.structs import replace

from model import NetworkSettings
from model.training.export import quantized, to_onnx
from model.training.network import Objective, multiply_adds, serving, targets, to_serve, to_train
from tests.unit.recipes import softmax

# TensorFlow 2.21's arrays do not know NumPy 2's copy keyword yet.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

VGG = NetworkSettings(kind="vgg", widths=(8, 16), members=1)
RESNETS = NetworkSettings(kind="resnet", widths=(8, 16, 24), members=3)
MIRRORED = NetworkSettings(kind="resnet", widths=(8, 16, 24), members=2, mirrored=True)
LEARNERS = NetworkSettings(kind="resnet", widths=(8, 16), members=2)


def noise(count):
    return np.random.default_rng(count).integers(0, 256, (count, 28, 28), dtype=np.uint8)


def run(exported, images):
    return onnxruntime.InferenceSession(exported).run(["probabilities", "features"], {"pixels": images})


# Exporting.


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
        logits = network.predict(noise(5), verbose=0)
        last = network.layers[-1]
        last.set_weights([weight / logits.std() for weight in last.get_weights()])
    return request.param, networks


@pytest.fixture(scope="module")
def network(trained):
    return to_serve(trained[0], 10, trained[1], temperature=1.7)


@pytest.fixture(scope="module")
def exported(network):
    return to_onnx(network)


def test_what_is_served_is_the_mean_of_the_members_logits_over_the_temperature(trained, network):
    images = noise(5)
    views = [images, images[:, :, ::-1]] if trained[0].mirrored else [images]
    logits = [network.predict(view, verbose=0) for network in trained[1] for view in views]
    expected = softmax(np.mean(logits, axis=0) / 1.7)
    assert np.abs(network.predict(images, verbose=0) - expected).max() < 1e-5
    assert 0.01 < expected.std() < 0.29


@pytest.mark.parametrize("count", [1, 2, 33])
def test_the_export_gives_the_answers_of_the_network_for_any_number_of_pictures(network, exported, count):
    features = keras.Model(network.input, network.get_layer("features").output)
    probabilities, found = run(exported, noise(count))
    assert np.abs(probabilities - network.predict(noise(count), verbose=0)).max() < 1e-5
    np.testing.assert_allclose(found, features.predict(noise(count), verbose=0), rtol=1e-3, atol=1e-4)


def test_batch_normalization_is_folded_away(trained, exported):
    """The quantizer counts on it."""
    operators = [node.op_type for node in onnx.load_from_string(exported).graph.node]
    assert operators.count("Conv") == trained[0].members * {"vgg": 4, "resnet": 7}[trained[0].kind]
    assert not {"BatchNormalization", "Div", "Sub", "Sqrt"} & set(operators)


def test_what_goes_in_and_comes_out_has_a_name_and_a_type(exported):
    graph = onnx.load_from_string(exported).graph
    kinds = {each.name: each.type.tensor_type.elem_type for each in [*graph.input, *graph.output]}
    floats = onnx.TensorProto.FLOAT
    assert kinds == {"pixels": onnx.TensorProto.UINT8, "probabilities": floats, "features": floats}


def test_exporting_prints_and_logs_nothing(network, capfd, caplog):
    with caplog.at_level(logging.INFO):
        to_onnx(network)
    assert capfd.readouterr().out == ""
    assert not caplog.records


EXPORT_THE_SHIPPED_NETWORK = """
import sys, pathlib, keras
from model.training.export import to_onnx
network = keras.saving.load_model("weights/fashion-mnist/1.4.0/model.keras", compile=False)
pathlib.Path(sys.argv[1]).write_bytes(to_onnx(network))
print(keras.backend.backend())
"""


@pytest.mark.timeout(400)
@pytest.mark.long
def test_a_network_that_was_trained_on_jax_is_exported_alike(tmp_path):
    path = tmp_path / "exported.onnx"
    said = subprocess.run(
        [sys.executable, "-c", EXPORT_THE_SHIPPED_NETWORK, str(path)],
        env={**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"},
        check=True,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert said.stdout.strip() == "jax"
    network = keras.saving.load_model("weights/fashion-mnist/1.4.0/model.keras", compile=False)
    answers = run(path.read_bytes(), noise(5))[0]
    assert np.abs(answers - network.predict(noise(5), verbose=0)).max() < 1e-5


def test_multiply_adds_are_counted_by_hand():
    convolutions, dense = 28 * 28 * 9 * (1 * 8 + 8 * 8) + 14 * 14 * 9 * (8 * 16 + 16 * 16), 16 * 10
    assert multiply_adds(serving(VGG, 10), VGG) == convolutions + dense
    mirrored = replace(VGG, mirrored=True)
    assert multiply_adds(serving(mirrored, 10), mirrored) == 2 * convolutions + dense


# In 8-bit integers.


@pytest.fixture(scope="module")
def pictures():
    with np.load(Path(__file__).parents[1] / "data" / "fashion-mnist-test-500.npz") as arrays:
        return arrays["images"], arrays["labels"]


@pytest.fixture(scope="module")
def exact(pictures):
    """In float32, of a network that has learned a little."""
    keras.utils.set_random_seed(1)
    members = [to_train(LEARNERS, 10) for _ in range(LEARNERS.members)]
    for member in members:
        member.compile(keras.optimizers.SGD(0.05, 0.9), Objective(0.0, 1.0), jit_compile=False)
        member.fit(pictures[0], targets(pictures[1], 10, None), batch_size=32, epochs=6, verbose=0)
    return to_onnx(to_serve(LEARNERS, 10, members, temperature=1.0))


@pytest.fixture(scope="module")
def smaller(exact, pictures):
    return quantized(exact, pictures[0])


def test_the_answers_are_those_of_the_network_but_for_rounding(exact, smaller, pictures):
    (answers, features), (rounded, others) = (run(each, pictures[0]) for each in (exact, smaller))
    assert (answers.argmax(axis=1) == rounded.argmax(axis=1)).mean() > 0.97
    assert 0 < np.abs(answers - rounded).mean() < 0.01
    assert others.shape == features.shape


def test_all_but_the_first_convolutions_and_the_last_layer_have_weights_of_8_bits(smaller):
    graph = onnx.load_from_string(smaller).graph
    makers = {output: node.op_type for node in graph.node for output in node.output}
    kinds = [
        "int8" if makers.get(node.input[1]) else "float32" for node in graph.node if node.op_type == "Conv"
    ]
    assert (kinds.count("float32"), kinds.count("int8")) == (LEARNERS.members, LEARNERS.members * 3)
    (last,) = (node for node in graph.node if node.op_type == "Softmax")
    (bias,) = (node for node in graph.node if node.output[0] == last.input[0])
    assert [makers.get(name) for name in bias.input] == ["MatMul", None]


def test_the_file_is_smaller_and_has_the_same_inputs_and_outputs(exact, smaller):
    before, after = (onnx.load_from_string(content).graph for content in (exact, smaller))
    assert [*after.input, *after.output] == [*before.input, *before.output]
    assert len(smaller) < len(exact)


def test_it_follows_from_network_and_pictures_alone(exact, smaller, pictures):
    assert quantized(exact, pictures[0]) == smaller


@pytest.mark.parametrize("count", [1, 70])
def test_any_number_of_pictures_will_do_and_nothing_is_printed(exact, pictures, capfd, caplog, count):
    run(quantized(exact, pictures[0][:count]), pictures[0])
    assert capfd.readouterr() == ("", "")
    assert not caplog.records
