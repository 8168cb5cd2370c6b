"""Exports a trained network to ONNX with Keras, and quantizes a network to 8-bit integers.

docs/decisions/0005-int8.md holds the reasons and measurements. Keras is imported where it is used: quantizing
does without.
"""

import io
import logging
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

from model.adding import Original, Say
from model.classifier import BATCH, GOLDEN_PIXELS, Classifier, fastest_ms, prepare_for
from model.garment import Pictures
from model.inputs import as_input
from model.manifest import ModelError
from model.preprocessing import PictureError
from model.runtimes import OnnxRuntime

if TYPE_CHECKING:
    import keras

CALIBRATION_PICTURES = 2000
FEW_PICTURES = 100
LEAST_AGREEMENT = 0.95
PIXELS_AT_ONCE = 40_000
"""Of calibration pictures: every activation of so many is in memory at once, half a gigabyte."""
SCALING = ("Rescaling", "Normalization")
QUANTIZED = ["Conv", "Relu", "Clip", "MaxPool", "Add"]
ALSO_QUANTIZED = ["Gemm", "MatMul"]
"""In networks of others, whose most weights may be in dense layers."""


def to_onnx(network: "keras.Model") -> bytes:
    """Exports a network that has a layer "features" to ONNX in float32, with that layer as a second output.

    Input: "pixels", uint8. Outputs, float32: "probabilities" (n, classes), "features" (n, d).
    """
    import keras

    with tempfile.TemporaryDirectory() as folder:
        saved, exported = Path(folder, "network.keras"), Path(folder, "network.onnx")
        if keras.backend.backend() == "tensorflow":
            _export(network, exported)
        else:  # on JAX, Keras exports with another library, which does not fold batch normalization
            network.save(saved)
            command = [sys.executable, "-P", "-m", "model.training.export", str(saved), str(exported)]
            subprocess.run(command, env={**os.environ, "KERAS_BACKEND": "tensorflow"}, check=True)
        return exported.read_bytes()


def original(path: Path, size: tuple[int, int] | None = None) -> Original:
    """A .keras or .h5 file with its export to ONNX. Raises ModelError.

    Keras loads it in safe mode, which runs no code that the file contains. size: height and width to try a
    network with that takes any.
    """
    import keras

    try:
        network = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:
        raise ModelError(f"Keras cannot open {path}: {str(error).splitlines()[0]}") from error
    if len(network.inputs) != 1 or len(network.outputs) != 1:
        raise ModelError(
            f"{path} has {len(network.inputs)} inputs and {len(network.outputs)} outputs, not one"
        )
    with tempfile.TemporaryDirectory() as folder:
        exported, saved = Path(folder, "network.onnx"), Path(folder, "network.keras")
        try:
            _to_file(network, exported, size)
        except Exception as error:
            raise ModelError(f"{path} cannot be exported to ONNX: {str(error).splitlines()[0]}") from error
        network.save(saved)
        return Original(
            content=path.read_bytes() if path.suffix == ".keras" else saved.read_bytes(),
            exported=exported.read_bytes(),
            scales_itself=any(type(layer).__name__ in SCALING for layer in _layers(network)),
            run=partial(_run, network),
        )


def _run(network: "keras.Model", batch: NDArray[Any]) -> NDArray[Any]:
    with warnings.catch_warnings(action="ignore", category=UserWarning):  # that the input may be in a list
        return np.asarray(network(batch, training=False))


def _layers(network: "keras.Model") -> "Iterator[keras.layers.Layer]":
    """Those of the networks within it, too."""
    import keras

    for layer in network.layers:
        yield layer
        if isinstance(layer, keras.Model):
            yield from _layers(layer)


def _export(network: "keras.Model", path: Path) -> None:
    import keras

    outputs = {"probabilities": network.output, "features": network.get_layer("features").output}
    _to_file(keras.Model(network.input, outputs), path)


def _to_file(network: "keras.Model", path: Path, size: tuple[int, int] | None = None) -> None:
    free = iter(size or ())
    shape = [next(free, 1) if axis is None else axis for axis in network.input_shape[1:]]
    _run(network, np.zeros((1, *shape), network.inputs[0].dtype))  # only what was called is exported
    logging.getLogger("tf2onnx").setLevel(
        logging.ERROR
    )  # it reports every step, and what it does not optimize
    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # Keras looks for np.object
        network.export(path, format="onnx", verbose=False)


def quantized(exported: bytes, pictures: Pictures) -> bytes:
    """Quantizes an ONNX file from to_onnx() to 8-bit integers; its inputs and outputs stay the same.

    Weights have a scale per channel. The range of each activation covers all but the outermost 0.002 % of its
    values on the first 2,000 of the pictures, uint8.
    """
    network = onnx.load_from_string(exported)
    return _quantized(network, CalibrationPictures(pictures[:CALIBRATION_PICTURES]), QUANTIZED)


def quantized_model(content: bytes, classifier: Classifier, pictures: Pictures) -> bytes:
    """Quantizes the ONNX file of any model of pictures, as quantized() does. Raises ModelError.

    pictures: prepared for the classifier, which is of this file.
    """
    declared, into = classifier.manifest.preparation
    try:
        with tempfile.TemporaryDirectory() as folder:
            given, simpler = Path(folder, "given.onnx"), Path(folder, "simpler.onnx")
            given.write_bytes(content)
            # Folds batch normalization and infers shapes.
            quant_pre_process(str(given), str(simpler), skip_symbolic_shape=True)
            network = onnx.load(simpler)
        for number, node in enumerate(network.graph.node):
            node.name = node.name or f"node-{number}"  # the quantizer excludes by name
        calibration = CalibrationPictures(
            pictures[:CALIBRATION_PICTURES],
            network.graph.input[0].name,
            lambda part: as_input(part, declared, into),
            one_at_a_time=network.graph.input[0].type.tensor_type.shape.dim[0].dim_value == 1,
        )
        return _quantized(network, calibration, [*QUANTIZED, *ALSO_QUANTIZED])
    except Exception as error:
        raise ModelError(f"the model cannot be quantized: {str(error).splitlines()[0]}") from error


def in_8_bit(content: bytes, classifier: Classifier, folder: Path, *, force: bool, say: Say) -> bytes:
    """Quantizes the ONNX file of a classifier, and says what that saves and costs. Raises ModelError.

    folder: of pictures like those to classify. force: keep it even if too many answers change.
    """
    pictures = prepared(folder, classifier, say)
    content_8_bit = quantized_model(content, classifier, pictures)
    quantized_one = Classifier(
        classifier.manifest, OnnxRuntime(content_8_bit, 1, "the quantized model"), None
    )
    same = agreement(classifier, quantized_one, pictures)
    times = [fastest_ms(each, 1) for each in (classifier, quantized_one)]
    say(
        f"int8: the same answer for {same:.1%} of {len(pictures)} pictures; "
        f"{len(content) / 1e6:.2f} MB became {len(content_8_bit) / 1e6:.2f} MB, "
        f"and {times[0]:.2f} ms for a picture {times[1]:.2f} ms"
    )
    if same < LEAST_AGREEMENT and not force:
        raise ModelError(
            f"8-bit integers change {1 - same:.1%} of the answers, and may change {1 - LEAST_AGREEMENT:.0%}: "
            "calibrate with more pictures like those it will classify, or add --force"
        )
    return content_8_bit


def prepared(folder: Path, classifier: Classifier, say: Say) -> Pictures:
    """The pictures in a folder and those below it, as the model sees them. Raises ModelError."""
    its = classifier.manifest
    found: list[Pictures] = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if len(found) == CALIBRATION_PICTURES:
            break
        try:
            found.append(prepare_for(its, path.read_bytes(), mode="auto", max_pixels=GOLDEN_PIXELS).pixels)
        except (OSError, PictureError):
            say(f"{path} is left out: it is no picture that can be read")
    if not found:
        raise ModelError(f"{folder} has no pictures to calibrate with")
    if len(found) < FEW_PICTURES:
        say(f"int8: calibrated with {len(found)} pictures; {FEW_PICTURES} or more are better")
    return np.stack(found)


def agreement(one: Classifier, other: Classifier, pictures: Pictures) -> float:
    """The share of pictures to which both give the same label or, with sigmoids, the same labels."""

    def answers(classifier: Classifier) -> Any:
        parts = [pictures[at : at + BATCH] for at in range(0, len(pictures), BATCH)]
        rows = np.concatenate([classifier.predict(part).answers for part in parts])
        return rows > 0.5 if one.manifest.output == "sigmoids" else rows.argmax(axis=1)[:, None]

    return float((answers(one) == answers(other)).all(axis=1).mean())


def _quantized(
    network: onnx.ModelProto, calibration: CalibrationDataReader, operators: Sequence[str]
) -> bytes:
    # Otherwise it logs advice to fold batch normalization and infer shapes, which is done.
    network.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
        path = Path(folder, "quantized.onnx")
        quantize_static(
            network,
            path,
            calibration,
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=list(operators),
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=left_in_float32(network),
            calibrate_method=CalibrationMethod.Percentile,
            extra_options={"CalibStridedMinMax": 1},
        )
        return path.read_bytes()


def left_in_float32(network: onnx.ModelProto) -> list[str]:
    """The names of the nodes not to quantize.

    These are the convolutions of the picture itself, whose rounding would affect all layers for little gain,
    and the additions of a constant: the last layer's bias, and the mean of the pixels.
    """
    constants = {constant.name: constant.dims for constant in network.graph.initializer}

    def takes_a_picture(node: onnx.NodeProto) -> bool:
        groups = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
        weights = constants.get(node.input[1])
        return weights is not None and int(weights[1] * groups) <= 3

    return [
        node.name
        for node in network.graph.node
        if (node.op_type == "Conv" and takes_a_picture(node))
        or (node.op_type == "Add" and not constants.keys().isdisjoint(node.input))
    ]


class CalibrationPictures(CalibrationDataReader):  # type: ignore[misc]
    """Feeds pictures to the quantizer in parts of equal size; omits a smaller remainder."""

    def __init__(
        self,
        pictures: Pictures,
        name: str = "pixels",
        as_input: Callable[[Pictures], Any] = lambda part: part,
        one_at_a_time: bool = False,
    ) -> None:
        """name: of the network's input. as_input: makes pictures what the network takes."""
        most = 1 if one_at_a_time else PIXELS_AT_ONCE // (pictures.shape[1] * pictures.shape[2])
        size = max(1, min(most, len(pictures)))
        self._parts = [pictures[at : at + size] for at in range(0, len(pictures) - size + 1, size)]
        self._remaining = iter(self._parts)
        self._name = name
        self._as_input = as_input

    def __len__(self) -> int:
        return len(self._parts)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Selects the parts to feed next."""
        self._remaining = iter(self._parts[start_index:end_index])

    def get_next(self) -> dict[str, Any] | None:
        """The next part; None at the end."""
        part = next(self._remaining, None)
        return None if part is None else {self._name: self._as_input(part)}


if __name__ == "__main__":
    import keras

    _export(keras.saving.load_model(sys.argv[1], compile=False), Path(sys.argv[2]))
