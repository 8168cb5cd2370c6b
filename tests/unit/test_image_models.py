"""Image classifiers of other sizes, layouts and outputs: loaded from their folders, and served."""

from io import BytesIO
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from messaging.contract import ErrorCode
from model import manifest as manifests
from model.classifier import load, predict_picture
from model.manifest import ImagePreprocessing, ModelError, PictureInput
from tests import image_models, second_model
from tests.image_models import COLOURS, brightest, write_colours
from tests.unit.workers import SETTINGS, Running, label, worker


def png(colour: tuple[int, ...] | int, size: tuple[int, int] = (40, 30)) -> bytes:
    file = BytesIO()
    Image.new("L" if isinstance(colour, int) else "RGB", size, colour).save(file, "PNG")
    return file.getvalue()


RED, BLUE = (250, 20, 30), (20, 30, 250)
ANY = {"mode": "auto", "max_pixels": 10**7}


def classified(weights_dir: Path, name: str, picture: bytes) -> dict[str, float]:
    return predict_picture(picture, load(weights_dir, name, "auto", 1), **ANY).probabilities  # type: ignore[arg-type]


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize(("scale", "dtype"), [("0..1", "float32"), ("-1..1", "float32"), ("0..255", "uint8")])
def test_the_softmax_of_logits_is_the_answer(tmp_path: Path, layout: str, scale: str, dtype: str) -> None:
    into = msgspec.convert(
        {"height": 24, "width": 32, "channels": 3, "dtype": dtype, "layout": layout}, PictureInput
    )
    declared = msgspec.convert({"kind": "image", "resize": "fit", "scale": scale}, ImagePreprocessing)
    image_models.write(tmp_path, "any", COLOURS, into, declared, output="logits", content=brightest(into))
    found = classified(tmp_path, "any", png(BLUE))
    assert next(iter(found)) == "blue"
    assert found["blue"] > 0.99
    assert sum(found.values()) == pytest.approx(1, abs=1e-5)


def test_logits_are_turned_into_the_probabilities_worked_out_here(tmp_path: Path) -> None:
    write_colours(tmp_path)
    found = classified(tmp_path, "colours", png((100, 110, 120)))
    powers = np.exp(20 * np.array([100, 110, 120]) / 255)
    for name, expected in zip(COLOURS, powers / powers.sum(), strict=True):
        assert found[name] == pytest.approx(expected, abs=1e-4)


GREY = PictureInput(height=8, width=8, channels=1, dtype="float32", layout="NHWC")
PLAIN = ImagePreprocessing(resize="stretch", scale="-1..1")


def test_a_single_sigmoid_is_the_probability_of_the_second_label(tmp_path: Path) -> None:
    one = brightest(GREY, "Sigmoid")
    network = image_models.onnx.load_from_string(one)
    network.graph.initializer[1].CopyFrom(
        image_models.numpy_helper.from_array(np.array([[2.0]], np.float32), "weights")
    )
    content = network.SerializeToString()
    image_models.write(tmp_path, "light", ("dark", "bright"), GREY, PLAIN, output="sigmoid", content=content)
    found = classified(tmp_path, "light", png(255))
    assert found == pytest.approx({"bright": 1 / (1 + np.exp(-2)), "dark": 1 / (1 + np.exp(2))}, abs=1e-5)
    assert next(iter(classified(tmp_path, "light", png(0)))) == "dark"


def test_independent_sigmoids_need_not_sum_to_one(tmp_path: Path) -> None:
    content = brightest(GREY, "Sigmoid")
    image_models.write(tmp_path, "both", ("bright", "dark"), GREY, PLAIN, output="sigmoids", content=content)
    found = classified(tmp_path, "both", png(128))
    assert found["bright"] == pytest.approx(0.52, abs=0.03)
    assert found["dark"] == pytest.approx(0.48, abs=0.03)


@pytest.mark.parametrize("output", ["probabilities", "sigmoids"])
def test_a_model_whose_softmax_is_missing_is_refused(tmp_path: Path, output: str) -> None:
    """On black all logits are 0 here, but not in the scale from -1 to 1."""
    content = brightest(GREY)
    image_models.write(tmp_path, "bare", ("bright", "dark"), GREY, PLAIN, output=output, content=content)
    with pytest.raises(ModelError, match=f"model.onnx does not give {output}, or its weights are damaged"):
        load(tmp_path, "bare", "auto", 1)


def test_a_network_of_another_shape_than_its_manifest_says_is_refused(tmp_path: Path) -> None:
    folder = write_colours(tmp_path)
    second_model.change(folder, input=msgspec.structs.replace(manifests.read(folder).input, layout="NHWC"))
    with pytest.raises(
        ModelError, match=r"cannot run on an input of 96 x 96 x 3 float32; it takes .*3, 96, 96\] tensor"
    ):
        load(tmp_path, "colours", "auto", 1)


def test_a_file_that_the_manifest_names_and_that_is_not_there_is_named(tmp_path: Path) -> None:
    (write_colours(tmp_path) / "model.onnx").unlink()
    with pytest.raises(ModelError, match=r"model\.onnx cannot be read \(No such file"):
        load(tmp_path, "colours", "auto", 1)


def test_a_worker_serves_it_beside_the_shipped_model(tmp_path: Path) -> None:
    second_model.copy_shipped(tmp_path)
    write_colours(tmp_path)
    settings = msgspec.structs.replace(
        SETTINGS.model, names=("fashion-mnist", "colours"), weights_dir=str(tmp_path)
    )
    large = png(BLUE, (3000, 2000))

    def send(running: Running) -> None:
        running.send("small", png(RED), model="colours", explain="input")
        running.send("large", large, model="colours")
        running.send("garment", png(RED), model="fashion-mnist")
        running.send("mode", png(RED), model="colours", mode="photo")
        running.send("text", b"not a picture", model="colours")

    with worker(before=send, model=settings) as running:
        replies = running.replies(5)
    small, big = replies["small"], replies["large"]
    assert (small.model, small.version, label(small)) == ("colours", "1.0.0", "red")
    assert (small.in_distribution, small.ood_score, small.mode) == (None, None, "image")
    assert small.input is not None
    shown = Image.open(BytesIO(small.input))
    assert (shown.format, shown.size, shown.getpixel((5, 5))) == ("PNG", (96, 96), RED)
    assert label(big) == "blue"
    assert replies["garment"].ood_score is not None
    refused = replies["mode"].error
    assert refused is not None
    assert refused.code is ErrorCode.INVALID_REQUEST
    assert refused.detail == "mode is for models of clothing; colours prepares every picture alike"
    assert replies["text"].error is not None
    assert replies["text"].error.code is ErrorCode.INVALID_PICTURE
