"""`mlaas models`: model folders are made from files, checked, listed and removed."""

import json
import os
import pickle
import re
from io import BytesIO
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import pytest
import yaml
from click.testing import CliRunner, Result
from keras import layers
from onnx import TensorProto, helper
from PIL import Image

from mlaas.cli import command
from model import manifest as manifests
from model.classifier import load, predict_picture
from model.manifest import PictureInput
from tests import second_model, tensor_models
from tests.image_models import COLOURS, brightest, convolutional

# TensorFlow 2.21's arrays do not know NumPy 2's copy keyword yet.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

RGB_96 = PictureInput(height=96, width=96, channels=3, dtype="float32", layout="NCHW")
LABELS = ",".join(COLOURS)
DATA = Path(__file__).parents[1] / "data"


def png(colour: Any, folder: Path) -> Path:
    path = folder / f"{abs(hash(colour))}.png"
    Image.new("RGB", (40, 30), colour).save(path)
    return path


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    folder = tmp_path / "weights"
    folder.mkdir()
    return folder


@pytest.fixture
def models(weights: Path) -> Any:
    def run(*arguments: str | Path) -> Result:
        given = ["--set", f"model.weights_dir={weights}", "models", *map(str, arguments)]
        return CliRunner().invoke(command, given)

    return run


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "colours.onnx"
    path.write_bytes(brightest(RGB_96))
    return path


def top(weights: Path, name: str, picture: bytes, runtime: str = "auto") -> tuple[str, float]:
    found = predict_picture(picture, load(weights, name, runtime, 1), mode="auto", max_pixels=10**6)
    return next(iter(found.probabilities.items()))


def test_an_onnx_file_becomes_a_model_that_can_be_served(models: Any, weights: Path, file: Path) -> None:
    red = png((250, 10, 10), weights.parent)
    done = models("add", "colours", file, "--labels", LABELS, "--golden", f"{red}=red")
    assert done.exit_code == 0, done.output
    assert "input: 96 x 96 RGB, float32, NCHW" in done.stdout
    for line in (
        "output: 3 logits (16 trial inputs gave numbers below 0 or above 1; --output changes it)",
        "resize: crop, the middle of the picture (assumed; --resize and --crop-fraction change it)",
        "interpolation: bilinear (assumed; --interpolation changes it)",
        "values: 0..1 (assumed; --scale changes it)",
        "mean, std: none (assumed; --mean and --std change it)",
    ):
        assert line in done.stdout.splitlines()
    assert "not checked" not in done.stdout
    assert re.search(r"cost on one thread: [\d.]+ ms for one picture, .*; \d+ MiB of memory", done.stdout)
    assert "curl -F file=@PICTURE 'localhost:8000/predict?model=colours'" in done.stdout
    folder = weights / "colours" / "1.0.0"
    assert sorted(path.name for path in folder.iterdir()) == ["golden", "model.onnx", "model.yaml"]
    assert os.listdir(weights) == ["colours"]
    its = manifests.read(folder)
    assert [golden.label for golden in its.golden] == ["red"]
    assert its.preprocessing.resize == "crop"
    assert top(weights, "colours", red.read_bytes())[0] == "red"


def test_what_is_said_of_the_pictures_is_not_assumed_and_what_was_not_checked_is_said(
    models: Any, weights: Path, file: Path
) -> None:
    means = ["--mean", "0.5,0.5,0.5", "--std", "0.5,0.5,0.5"]
    said = ["--resize", "stretch", "--interpolation", "area", "--scale", "0..1", "--output", "logits", *means]
    done = models("add", "colours", file, "--labels", LABELS, *said)
    assert done.exit_code == 0, done.output
    assert "assumed" not in done.stdout
    assert "output: 3 logits" in done.stdout.splitlines()
    assert "--golden PICTURE=LABEL checks it" in done.stdout
    its = manifests.read(weights / "colours" / "1.0.0").preprocessing
    assert (its.resize, its.interpolation, its.scale) == ("stretch", "area", "0..1")


def test_the_lines_to_ask_it_name_the_gateway_that_there_is(
    models: Any, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = models("add", "colours", file, "--labels", LABELS, "--set", "gateway.port=8123")
    assert "'localhost:8123/predict?model=colours'" in elsewhere.stdout
    monkeypatch.setenv("MLAAS_URL", "https://shop.example/")
    away = models("add", "colours", file, "--labels", LABELS)
    assert "'https://shop.example/predict?model=colours'" in away.stdout


def test_a_model_of_four_numbers_and_three_labels_is_found_to_be_one(models: Any, weights: Path) -> None:
    place = weights.parent
    (place / "iris.onnx").write_bytes(tensor_models.iris())
    (place / "row.json").write_bytes(tensor_models.row_of(tensor_models.SETOSA))
    labels = ",".join(tensor_models.LABELS)
    golden = f"{place / 'row.json'}=setosa"
    done = models("add", "iris", place / "iris.onnx", "--labels", labels, "--golden", golden)
    assert done.exit_code == 0, done.output
    assert "input: 4 numbers (float32)" in done.stdout
    assert "output: 3 logits (16 trial inputs gave" in done.stdout
    assert "resize" not in done.stdout
    assert re.search(r"row\.json: setosa \(\d\d\.\d%\)", done.stdout)
    assert re.search(r"cost on one thread: [\d.]+ ms for one row", done.stdout)
    assert done.stdout.endswith(
        "  curl -H 'Content-Type: application/json' -d '{\"inputs\": [[0, 0, 0, 0]]}' "
        "'localhost:8000/predict?model=iris'\n"
    )
    assert manifests.read(weights / "iris" / "1.0.0").golden[0].label == "setosa"
    assert models("check", "iris").stdout == "iris 1.0.0 can be served: onnx, 1 golden rows\n"
    wrong = f"{place / 'row.json'}=virginica"
    refused = models("add", "iris", place / "iris.onnx", "--labels", labels, "--golden", wrong)
    assert refused.exit_code == os.EX_DATAERR
    assert refused.stderr.endswith("not as virginica: check the order of --labels\n")


def test_a_window_without_labels_becomes_a_regression(models: Any, weights: Path) -> None:
    place = weights.parent
    (place / "level.onnx").write_bytes(tensor_models.level())
    (place / "row.json").write_bytes(tensor_models.row_of([[4.0] * 3] * 24))
    add = "add", "level", place / "level.onnx", "--golden"
    refused = models(*add, f"{place / 'row.json'}=2.5")
    assert refused.exit_code == os.EX_DATAERR
    assert refused.stderr.endswith("row.json is answered by 2, not by 2.5\n")
    assert os.listdir(weights) == []
    done = models(*add, f"{place / 'row.json'}=2")
    assert done.exit_code == 0, done.output
    assert "input: 24 x 3 numbers (float32)" in done.stdout
    assert "output: 1 number, as there are no --labels" in done.stdout
    assert "-d @ROW.json 'localhost:8000/predict?model=level'" in done.stdout
    its = manifests.read(weights / "level" / "1.0.0")
    assert (its.labels, its.output, its.golden[0].numbers) == ((), "numbers", (2.0,))


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        (["--labels", "a,b,c", "--output", "numbers"], "numbers have no labels: leave out --labels"),
        (["--labels", "a,b"], "--labels (names or a file) has 2; the model has 3 classes"),
        (["--scale", "0..1"], "numbers are not prepared: leave out --scale"),
        (["--kind", "image"], "not that of pictures"),
        (["--output", "logits"], "the model has 3 classes: name them with --labels"),
    ],
)
def test_what_does_not_suit_a_model_of_numbers_is_refused(
    models: Any, weights: Path, options: list[str], complaint: str
) -> None:
    file = weights.parent / "iris.onnx"
    file.write_bytes(tensor_models.iris())
    done = models("add", "iris", file, *options)
    assert done.exit_code == os.EX_DATAERR
    assert complaint in done.stderr
    assert os.listdir(weights) == []


def test_the_next_version_follows_the_latest(models: Any, weights: Path, file: Path) -> None:
    for version in ([], ["--version", "1.9"], []):
        assert models("add", "colours", file, "--labels", LABELS, *version).exit_code == 0
    assert manifests.versions(weights, "colours") == ["1.0.0", "1.9", "1.10"]
    again = models("add", "colours", file, "--labels", LABELS, "--version", "1.9")
    assert again.exit_code == os.EX_DATAERR
    assert again.stderr.endswith("1.9 exists; choose another --version\n")


def keras_file(folder: Path, *given: Any) -> Path:
    keras.utils.set_random_seed(3)
    path = folder / "network.keras"
    keras.Sequential(given).save(path)
    return path


@pytest.mark.timeout(300)
def test_a_keras_classifier_of_8_x_8_grey_is_exported_and_compared(models: Any, weights: Path) -> None:
    path = keras_file(
        weights.parent,
        layers.Input((8, 8, 1)),
        layers.Conv2D(4, 3, activation="relu"),
        layers.Flatten(),
        layers.Dense(10, "softmax"),
    )
    labels = weights.parent / "labels.txt"
    labels.write_text("\n".join("0123456789") + "\n")
    done = models("add", "digits", path, "--labels", labels, "--resize", "fit")
    assert done.exit_code == 0, done.output
    assert "input: 8 x 8 grey, float32, NHWC" in done.stdout
    assert "output: 10 probabilities" in done.stdout
    assert re.search(r"the export differs from Keras by at most \d\.\de-\d+", done.stdout)
    picture = BytesIO()
    Image.new("L", (8, 8), 200).save(picture, "PNG")
    onnx_says = top(weights, "digits", picture.getvalue(), "onnx")
    keras_says = top(weights, "digits", picture.getvalue(), "keras")
    assert onnx_says[0] == keras_says[0]
    assert onnx_says[1] == pytest.approx(keras_says[1], abs=1e-4)


@pytest.mark.timeout(300)
def test_a_single_sigmoid_has_two_labels_and_a_rescaling_layer_is_noticed(models: Any, weights: Path) -> None:
    path = keras_file(
        weights.parent,
        layers.Input((32, 32, 3)),
        layers.Rescaling(1 / 255),
        layers.Conv2D(4, 3, strides=2, activation="relu"),
        layers.GlobalAveragePooling2D(),
        layers.Dense(1, "sigmoid"),
    )
    done = models("add", "animals", path, "--labels", "cat,dog")
    assert done.exit_code == 0, done.output
    assert "output: 1 sigmoid" in done.stdout
    assert "values: 0..255 (the network scales them itself)" in done.stdout
    assert manifests.read(weights / "animals" / "1.0.0").output == "sigmoid"


@pytest.mark.timeout(300)
def test_a_file_of_somebody_elses_is_added_without_a_word_too_many(models: Any, weights: Path) -> None:
    shown, other = DATA / "digit-3.png", DATA / "digit-8.png"
    done = models(
        "add", "digits", DATA / "digits.keras", "--labels", ",".join("0123456789"), "--golden", f"{shown}=3"
    )
    assert done.exit_code == 0, done.output
    assert "warn" not in done.output.lower()
    assert top(weights, "digits", other.read_bytes())[0] == "8"


@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore:In the future .np.object:FutureWarning")  # Keras looks for it
def test_a_thousand_labels_in_nchw_are_served_ten_at_a_time(models: Any, weights: Path) -> None:
    into = keras.Input((3, 224, 224))
    known = keras.applications.MobileNetV3Small((224, 224, 3), weights=None, include_preprocessing=False)
    network = keras.Model(into, known(layers.Permute((2, 3, 1))(into)))
    path = weights.parent / "mobilenet.onnx"
    network(np.zeros((1, 3, 224, 224), np.float32))
    network.export(path, format="onnx", verbose=False)
    labels = weights.parent / "labels.txt"
    labels.write_text("\n".join(f"kind {number}" for number in range(1000)))
    done = models("add", "kinds", path, "--labels", labels, "--scale", "-1..1")
    assert done.exit_code == 0, done.output
    assert "input: 224 x 224 RGB, float32, NCHW" in done.stdout
    its = manifests.read(weights / "kinds" / "1.0.0")
    assert (len(its.labels), its.keras, its.output) == (1000, None, "probabilities")
    picture = png((200, 30, 30), weights.parent)
    given = ["--set", f"model.weights_dir={weights}", "predict", "--local", "--model", "kinds", str(picture)]
    said = json.loads(CliRunner().invoke(command, given).stdout)
    assert said["label"] == next(iter(said["probabilities"]))
    assert len(said["probabilities"]) == 10


def test_an_onnx_file_for_exactly_one_picture_serves_batches(models: Any, weights: Path, file: Path) -> None:
    network = onnx.load(file)
    network.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1
    onnx.save(network, file)
    assert models("add", "colours", file, "--labels", LABELS).exit_code == 0
    classifier = load(weights, "colours", "onnx", 1)
    pictures = np.zeros((3, 96, 96, 3), np.uint8)
    for channel in range(3):
        pictures[channel, ..., channel] = 255
    assert classifier.predict(pictures).answers.argmax(axis=1).tolist() == [0, 1, 2]


def of_shape(file: Path, *shape: Any, kind: int = TensorProto.FLOAT) -> None:
    """The file of a network that gives the mean of all its inputs' numbers."""
    nodes = [helper.make_node("ReduceMean", ["picture"], ["answer"], axes=[1], keepdims=0)]
    graph = helper.make_graph(
        nodes,
        "any",
        [helper.make_tensor_value_info("picture", kind, shape)],
        [helper.make_tensor_value_info("answer", kind, None)],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    file.write_bytes(made.SerializeToString())


def two_inputs(file: Path) -> None:
    network = onnx.load(file)
    network.graph.input.append(helper.make_tensor_value_info("other", TensorProto.FLOAT, [1]))
    onnx.save(network, file)


def not_a_number(file: Path) -> None:
    network = onnx.load(file)
    network.graph.initializer[1].CopyFrom(
        onnx.numpy_helper.from_array(np.full((3, 3), np.nan, np.float32), "weights")
    )
    onnx.save(network, file)


def custom_operator(file: Path) -> None:
    network = onnx.load(file)
    network.graph.node[1].domain = "example.com"
    network.opset_import.append(helper.make_opsetid("example.com", 1))
    file.write_bytes(network.SerializeToString())


def external_data(file: Path) -> None:
    network = onnx.load(file)
    weights = network.graph.initializer[1]
    weights.ClearField("raw_data")
    weights.data_location = TensorProto.EXTERNAL
    weights.external_data.add(key="location", value="../../etc/passwd")
    file.write_bytes(network.SerializeToString())


@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        (("n", 5, 8, 8), TensorProto.FLOAT),
        (("n", 4), TensorProto.FLOAT),
        (("n", 3, 8, 8), TensorProto.DOUBLE),
    ],
)
def test_an_input_that_is_no_pictures_is_not_taken_for_one(
    models: Any, weights: Path, file: Path, shape: Any, kind: int
) -> None:
    of_shape(file, *shape, kind=kind)
    done = models("add", "colours", file, "--labels", LABELS, "--kind", "image")
    assert done.exit_code == os.EX_DATAERR
    assert "which is not that of pictures in grey or RGB" in done.stderr
    assert os.listdir(weights) == []


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (two_inputs, "has 2 inputs; a model with one can be served"),
        (not_a_number, "something other than finite numbers"),
        (custom_operator, "ONNX Runtime cannot open "),
        (external_data, "ONNX Runtime cannot open "),
        (
            lambda file: file.write_bytes(pickle.dumps({"a": 1})),
            "colours.onnx is damaged, or not an ONNX file",
        ),
        (lambda file: file.write_bytes(b""), "colours.onnx is damaged, or not an ONNX file"),
        (lambda file: of_shape(file, "n", 3, "h", "w"), "give height and width, as in --size 224"),
        (lambda file: of_shape(file, "a", "b", "c", "d"), "export the model with a fixed size"),
        (lambda file: of_shape(file, 7, 3, 8, 8), "takes exactly 7 inputs"),
    ],
)
def test_what_cannot_be_served_is_refused_in_one_line_and_leaves_nothing(
    models: Any, weights: Path, file: Path, damage: Any, complaint: str
) -> None:
    damage(file)
    done = models("add", "colours", file, "--labels", LABELS)
    assert done.exit_code == os.EX_DATAERR, done.output
    assert complaint in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert os.listdir(weights) == []


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ([], "the model has 3 classes: name them with --labels"),
        (["--labels", "a,b"], "--labels (names or a file) has 2; the model has 3 classes"),
        (["--labels", "a,b,b"], "the model has the same label twice"),
        (["--labels", "a,b", "--output", "sigmoid"], "the model gives 3: try --output sigmoids"),
        (["--labels", LABELS, "--mean", "1,2"], "the model has 2 numbers in mean for 3 channels"),
        (["--labels", LABELS, "--output", "probabilities"], "model.onnx does not give probabilities"),
        (
            ["--labels", LABELS, "--golden", "PICTURE=blue"],
            "not as blue: check the order of --labels, and --scale, --mean and --std",
        ),
        (
            ["--labels", LABELS, "--golden", "PICTURE=pink"],
            "the model has no label 'pink'; its labels: red, green, blue",
        ),
        (
            ["--labels", LABELS, "--golden", "nowhere.png=red"],
            "nowhere.png cannot be read (No such file or directory)",
        ),
        (["--labels", LABELS, "--version", "../1"], "'../1' cannot be a version"),
        (["--labels", LABELS, "--version", "v2"], "'v2' cannot be a version"),
    ],
)
def test_what_does_not_fit_the_model_is_refused_and_leaves_nothing(
    models: Any, weights: Path, file: Path, options: list[str], complaint: str
) -> None:
    picture = str(png((250, 10, 10), weights.parent))
    done = models("add", "colours", file, *(option.replace("PICTURE", picture) for option in options))
    assert done.exit_code == os.EX_DATAERR, done.output
    assert complaint in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert os.listdir(weights) == []


# In 8-bit integers.


def pictures(folder: Path) -> Path:
    """60 pictures, each with more of one colour, and a file that is none."""
    random = np.random.default_rng(1)
    folder.mkdir()
    for number in range(60):
        colour = np.full(3, 120)
        colour[number % 3] += 60
        noise = random.integers(-10, 11, (40, 40, 1))
        Image.fromarray((colour + noise).astype(np.uint8)).save(folder / f"{number:02}.png")
    (folder / "notes.txt").write_text("no picture")
    return folder


@pytest.fixture
def deep(tmp_path: Path) -> Path:
    path = tmp_path / "deep.onnx"
    path.write_bytes(convolutional())
    return path


def test_a_model_in_8_bit_integers_is_smaller_and_says_what_it_costs(
    models: Any, weights: Path, deep: Path
) -> None:
    folder, red = pictures(weights.parent / "pictures"), png((250, 10, 10), weights.parent)
    done = models("add", "deep", deep, "--labels", LABELS, "--int8", folder, "--golden", f"{red}=red")
    assert done.exit_code == 0, done.output
    assert "notes.txt is left out: it is no picture that can be read" in done.stdout
    assert "calibrated with 60 pictures; 100 or more are better" in done.stdout
    (sizes,) = re.findall(
        r"int8: the same answer for 100.0% of 60 pictures; ([\d.]+) MB became ([\d.]+) MB, and [\d.]+ ms for "
        r"a picture [\d.]+ ms",
        done.stdout,
    )
    made = (weights / "deep" / "1.0.0" / "model.onnx").read_bytes()
    assert [f"{size / 1e6:.2f}" for size in (deep.stat().st_size, len(made))] == list(sizes)
    assert len(made) < 0.5 * deep.stat().st_size
    operators = {node.op_type for node in onnx.load_from_string(made).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= operators
    assert manifests.read(weights / "deep" / "1.0.0").golden[0].label == "red"
    assert models("check", "deep").exit_code == 0


def test_a_model_that_8_bit_integers_change_is_refused_unless_forced(
    models: Any, weights: Path, deep: Path
) -> None:
    deep.write_bytes(convolutional(outlier=1000.0))
    folder = pictures(weights.parent / "pictures")
    add = ("add", "deep", deep, "--labels", LABELS, "--int8", folder)
    done = models(*add)
    assert done.exit_code == os.EX_DATAERR
    assert re.search(r"change [\d.]+% of the answers, and may change 5%: calibrate with more", done.stderr)
    assert os.listdir(weights) == []
    assert models(*add, "--force").exit_code == 0


def test_without_pictures_nothing_is_quantized(models: Any, weights: Path, deep: Path) -> None:
    (weights.parent / "nothing").mkdir()
    done = models("add", "deep", deep, "--labels", LABELS, "--int8", weights.parent / "nothing")
    assert done.exit_code == os.EX_DATAERR
    assert "nothing has no pictures to calibrate with" in done.stderr
    assert os.listdir(weights) == []


# Of any size.


def test_a_network_for_any_size_gets_the_one_that_is_given(models: Any, weights: Path, deep: Path) -> None:
    deep.write_bytes(convolutional(None))
    done = models("add", "deep", deep, "--labels", LABELS, "--size", "24x40")
    assert done.exit_code == 0, done.output
    assert "input: 24 high x 40 wide RGB, float32, NCHW" in done.stdout
    its = manifests.read(weights / "deep" / "1.0.0").input
    assert (its.height, its.width) == (24, 40)
    assert top(weights, "deep", png((10, 250, 10), weights.parent).read_bytes())[0] == "green"
    assert models("add", "deep", deep, "--labels", LABELS, "--size", "24 x 40").exit_code == 2


def test_a_network_of_a_fixed_size_gets_no_other(models: Any, weights: Path, deep: Path) -> None:
    done = models("add", "deep", deep, "--labels", LABELS, "--size", "64")
    assert done.exit_code == os.EX_DATAERR
    assert "without a free height and width: leave out --size, or export" in done.stderr


@pytest.mark.timeout(300)
def test_a_keras_network_for_any_size_gets_the_one_that_is_given(models: Any, weights: Path) -> None:
    path = keras_file(
        weights.parent,
        layers.Input((None, None, 3)),
        layers.Conv2D(4, 3, activation="relu"),
        layers.GlobalAveragePooling2D(),
        layers.Dense(3, "softmax"),
    )
    done = models("add", "any", path, "--labels", LABELS, "--size", "48")
    assert done.exit_code == 0, done.output
    assert "input: 48 x 48 RGB, float32, NHWC" in done.stdout
    assert "the export differs from Keras by at most" in done.stdout


@pytest.mark.timeout(300)
def test_a_keras_file_with_code_in_it_is_refused(models: Any, weights: Path) -> None:
    path = keras_file(
        weights.parent, layers.Input((8, 8, 1)), layers.Lambda(lambda x: x * 2), layers.Flatten()
    )
    done = models("add", "code", path, "--labels", "a,b")
    assert done.exit_code == os.EX_DATAERR
    assert f"Keras cannot open {path}" in done.stderr
    assert os.listdir(weights) == []


def test_a_version_that_is_not_the_latest_is_said_to_be_not_served(models: Any, file: Path) -> None:
    assert models("add", "colours", file, "--labels", LABELS, "--version", "2.0").exit_code == 0
    older = models("add", "colours", file, "--labels", LABELS, "--version", "1.10")
    assert "2.0 is still the latest version, which is the one that is served" in older.stdout


def test_a_manifest_that_takes_probabilities_for_logits_fails_the_check(
    models: Any, weights: Path, file: Path
) -> None:
    file.write_bytes(brightest(RGB_96, "Softmax"))
    assert models("add", "colours", file, "--labels", LABELS).exit_code == 0
    second_model.change(weights / "colours" / "1.0.0", output="logits")
    done = models("check", "colours")
    assert done.exit_code == os.EX_DATAERR
    assert "gives probabilities, and its manifest says logits" in done.stderr


def test_mode_is_refused_locally_as_over_http(models: Any, weights: Path, file: Path) -> None:
    assert models("add", "colours", file, "--labels", LABELS).exit_code == 0
    picture = str(png((250, 10, 10), weights.parent))
    given = ["--set", f"model.weights_dir={weights}", "predict", "--local", "--model", "colours", "--mode"]
    done = CliRunner().invoke(command, [*given, "raw28", picture])
    assert done.exit_code == 1
    assert "mode is for models of clothing; colours prepares every picture alike" in done.stderr


def test_a_file_of_another_kind_is_refused(models: Any, weights: Path) -> None:
    path = weights.parent / "network.pt"
    path.touch()
    done = models("add", "torch", path, "--labels", "a,b")
    assert done.exit_code != 0
    assert "is not a .onnx, .keras or .h5 file" in done.stderr


def test_folders_are_listed_shown_checked_and_removed(models: Any, weights: Path, file: Path) -> None:
    second_model.copy_shipped(weights)
    assert models("add", "colours", file, "--labels", LABELS).exit_code == 0
    assert models("add", "colours", file, "--labels", LABELS).exit_code == 0
    listed = json.loads(models("list", "--json").stdout)
    assert listed["colours"] == {"versions": ["1.0.0", "1.0.1"], "version": "1.0.1"}
    assert set(listed) == {"colours", "fashion-mnist"}
    shown = models("show", "colours").stdout
    assert shown.startswith("name: colours\nversion: 1.0.1\n")
    assert shown.endswith("# colours: 1.0.1 answers\n")
    assert "colours 1.0.0 can be served: onnx" in models("check", "colours", "--version", "1.0.0").stdout
    assert "10 golden pictures" in models("check", "fashion-mnist").stdout
    asked = models("remove", "colours", "--version", "1.0.0")  # nobody can answer
    assert asked.exit_code == 2
    assert "Delete colours 1.0.0, from " in asked.stderr
    assert asked.stderr.endswith("Standard input is not a terminal: confirm with --yes\n")
    for version in ("1.0.0", "1.0.1"):
        assert models("remove", "colours", "--version", version, "--yes").exit_code == 0
    gone = models("show", "colours")
    assert gone.exit_code == os.EX_DATAERR
    assert "has no <version>/model.yaml, such as 1.0.0/model.yaml; models there: fashion-mnist" in gone.stderr
    (second_model.in_weights(weights) / "model.onnx").write_bytes(b"")
    damaged = models("check", "fashion-mnist")
    assert damaged.exit_code == os.EX_DATAERR
    assert "model.onnx is not the file that its manifest names" in damaged.stderr


def test_a_folder_that_cannot_be_served_is_listed_with_the_reason(
    models: Any, weights: Path, file: Path
) -> None:
    for name in ("colours", "flowers", "pets"):
        assert models("add", name, file, "--labels", LABELS).exit_code == 0
    (weights / "flowers" / "1.0.0" / "model.yaml").write_text("name: flowers")
    (weights / "pets" / "serving.yaml").write_text("[")
    listed = json.loads(models("list", "--json").stdout)
    assert listed["colours"] == {"versions": ["1.0.0"], "version": "1.0.0"}
    assert (listed["flowers"]["versions"], listed["flowers"]["version"]) == (["1.0.0"], "1.0.0")
    assert "flowers/1.0.0/model.yaml is not the manifest of a model" in listed["flowers"]["problem"]
    assert listed["pets"].keys() == {"versions", "problem"}
    assert "pets/serving.yaml does not say which versions are served" in listed["pets"]["problem"]


@pytest.fixture
def three(models: Any, file: Path) -> None:
    """Versions 1.0.0 to 1.0.2 of colours, of which the first answers."""
    for version in ("1.0.0", "1.0.1", "1.0.2"):
        assert models("add", "colours", file, "--labels", LABELS, "--version", version).exit_code == 0
        if version == "1.0.0":
            assert models("promote", "colours", version).exit_code == 0


def pointer(weights: Path) -> Any:
    return yaml.safe_load((weights / "colours" / "serving.yaml").read_text())


def test_versions_are_promoted_with_a_share_as_a_shadow_and_back(
    models: Any, weights: Path, three: None
) -> None:
    assert pointer(weights) == {"version": "1.0.0"}
    done = models("promote", "colours", "1.0.1", "--share", "10")
    assert "1.0.0 answers 90 %, 1.0.1 answers 10 %" in done.stdout
    assert "`mlaas models` shows" in done.stdout
    assert models("promote", "colours", "1.0.2", "--shadow").exit_code == 0
    assert pointer(weights) == {
        "version": "1.0.0", "share": {"version": "1.0.1", "percent": 10}, "shadow": "1.0.2",
    }  # fmt: skip
    assert json.loads(models("list", "--json").stdout)["colours"]["share"]["percent"] == 10
    assert "1.0.1 answers 10 %, 1.0.2 is its shadow\n" in models("show", "colours").stdout
    assert models("rollback", "colours").exit_code == 0
    assert pointer(weights) == {"version": "1.0.0"}
    assert models("promote", "colours", "1.0.2").exit_code == 0
    assert pointer(weights) == {"version": "1.0.2", "previous": "1.0.0"}
    assert models("rollback", "colours").exit_code == 0
    assert pointer(weights) == {"version": "1.0.0"}
    nothing = models("rollback", "colours")
    assert nothing.exit_code == os.EX_DATAERR
    assert "there is nothing to go back to: 1.0.0 answers alone" in nothing.stderr


def test_a_version_that_is_not_there_or_answers_already_is_not_promoted(
    models: Any, weights: Path, three: None
) -> None:
    for options, says in (
        (["9.0"], "has no 9.0/model.yaml; there are 1.0.0, 1.0.1, 1.0.2"),
        (["1.0.0", "--share", "10"], "1.0.0 answers already"),
        (["1.0.0", "--shadow"], "1.0.0 answers already"),
    ):
        refused = models("promote", "colours", *options)
        assert refused.exit_code == os.EX_DATAERR
        assert says in refused.stderr
    assert models("promote", "colours", "1.0.1", "--share", "10", "--shadow").exit_code == 2
    (weights / "colours" / "1.0.1" / "model.yaml").write_text("{")
    unreadable = models("promote", "colours", "1.0.1")
    assert "is not the manifest of a model" in unreadable.stderr
    assert pointer(weights) == {"version": "1.0.0"}


def test_a_version_that_serves_is_not_removed_and_one_to_go_back_to_is_then_forgotten(
    models: Any, weights: Path, three: None
) -> None:
    models("promote", "colours", "1.0.1")
    models("promote", "colours", "1.0.2", "--shadow")
    for version in ("1.0.1", "1.0.2"):
        refused = models("remove", "colours", "--version", version, "--yes")
        assert refused.exit_code == os.EX_DATAERR
        assert f"{version} is not deleted; `mlaas models promote colours VERSION`" in refused.stderr
        assert (weights / "colours" / version).exists()
    asked = models("remove", "colours", "--version", "1.0.0")
    assert "Delete colours 1.0.0, which rollback goes back to, from" in asked.output
    assert models("remove", "colours", "--version", "1.0.0", "--yes").exit_code == 0
    assert pointer(weights) == {"version": "1.0.1", "shadow": "1.0.2"}
    models("rollback", "colours")
    for version in ("1.0.2", "1.0.1"):
        assert models("remove", "colours", "--version", version, "--yes").exit_code == 0
    assert os.listdir(weights) == []


def test_who_adds_a_version_beside_a_pointer_is_told_how_to_have_it_answer(
    models: Any, file: Path, three: None
) -> None:
    done = models("add", "colours", file, "--labels", LABELS)
    assert "1.0.0 answers. To have it answer, and to ask it:" in done.stdout
    assert "mlaas models promote colours 1.0.3" in done.stdout


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("version: 1.5", "put it in quotes"),
        ("version: '1.0'\nfuture: '2.0'", "unknown field `future`"),
        ("version: '1.0'\nshare: {version: '1.0', percent: 5}", "answers already"),
        ("version: '1.0'\nshare: {version: '1.1', percent: 100}", "<= 99"),
        ("version: ../x", "matching regex"),
        ("[", "does not say which versions are served"),
    ],
)
def test_a_pointer_that_cannot_be_is_named(
    models: Any, weights: Path, three: None, text: str, says: str
) -> None:
    (weights / "colours" / "serving.yaml").write_text(text)
    refused = models("rollback", "colours")
    assert refused.exit_code == os.EX_DATAERR
    assert "serving.yaml does not say which versions are served" in refused.stderr
    assert says in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
