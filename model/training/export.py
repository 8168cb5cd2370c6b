"""Exports a trained network to ONNX with Keras, and quantizes its convolutions to 8-bit integers.

docs/decisions/0005-int8.md holds the reasons and measurements.
"""

import io
import logging
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import redirect_stdout
from pathlib import Path

import keras
import numpy as np
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

from model.adding import Original
from model.manifest import ModelError
from model.product import Pictures

CALIBRATION_PICTURES = 2000
PIXELS_AT_ONCE = 40_000
"""Of calibration pictures: every activation of so many is in memory at once, half a gigabyte."""
SCALING = (keras.layers.Rescaling, keras.layers.Normalization)
QUANTIZED = ["Conv", "Relu", "Clip", "MaxPool", "Add"]


def to_onnx(network: keras.Model) -> bytes:
    """Exports a network that has a layer "features" to ONNX in float32, with that layer as a second output.

    Input: "pixels", uint8. Outputs, float32: "probabilities" (n, classes), "features" (n, d).
    """
    with tempfile.TemporaryDirectory() as folder:
        saved, exported = Path(folder, "network.keras"), Path(folder, "network.onnx")
        if keras.backend.backend() == "tensorflow":
            _export(network, exported)
        else:  # on JAX, Keras exports with another library, which does not fold batch normalization
            network.save(saved)
            command = [sys.executable, "-P", "-m", "model.training.export", str(saved), str(exported)]
            subprocess.run(command, env={**os.environ, "KERAS_BACKEND": "tensorflow"}, check=True)
        return exported.read_bytes()


def original(path: Path) -> Original:
    """A .keras or .h5 file with its export to ONNX. Raises ModelError.

    Keras loads it in safe mode, which runs no code that the file contains.
    """
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
            _to_file(network, exported)
        except Exception as error:
            raise ModelError(f"{path} cannot be exported to ONNX: {str(error).splitlines()[0]}") from error
        network.save(saved)
        return Original(
            content=path.read_bytes() if path.suffix == ".keras" else saved.read_bytes(),
            exported=exported.read_bytes(),
            scales_itself=any(isinstance(layer, SCALING) for layer in _layers(network)),
            run=lambda batch: np.asarray(network(batch, training=False)),
        )


def _layers(network: keras.Model) -> Iterator[keras.layers.Layer]:
    """Those of the networks within it, too."""
    for layer in network.layers:
        yield layer
        if isinstance(layer, keras.Model):
            yield from _layers(layer)


def _export(network: keras.Model, path: Path) -> None:
    outputs = {"probabilities": network.output, "features": network.get_layer("features").output}
    _to_file(keras.Model(network.input, outputs), path)


def _to_file(network: keras.Model, path: Path) -> None:
    network(
        np.zeros((1, *network.input_shape[1:]), network.inputs[0].dtype)
    )  # only what was called is exported
    logging.getLogger("tf2onnx").setLevel(logging.WARNING)  # it reports every step
    with warnings.catch_warnings(action="ignore", category=FutureWarning):  # Keras looks for np.object
        network.export(path, format="onnx", verbose=False)


def quantized(exported: bytes, pictures: Pictures) -> bytes:
    """Quantizes an ONNX file from to_onnx() to 8-bit integers; its inputs and outputs stay the same.

    Weights have a scale per channel. The range of each activation covers all but the outermost 0.002 % of its
    values on the first 2,000 of the pictures, uint8.
    """
    network = onnx.load_from_string(exported)
    # Otherwise it logs advice to fold batch normalization and infer shapes, which the export did.
    network.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
        path = Path(folder, "quantized.onnx")
        quantize_static(
            network,
            path,
            CalibrationPictures(pictures[:CALIBRATION_PICTURES]),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=QUANTIZED,
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

    def channels_in(node: onnx.NodeProto) -> int:
        groups = next((attribute.i for attribute in node.attribute if attribute.name == "group"), 1)
        return int(constants[node.input[1]][1] * groups)

    return [
        node.name
        for node in network.graph.node
        if (node.op_type == "Conv" and channels_in(node) <= 3)
        or (node.op_type == "Add" and not constants.keys().isdisjoint(node.input))
    ]


class CalibrationPictures(CalibrationDataReader):  # type: ignore[misc]
    """Feeds pictures to the quantizer in parts of equal size; omits a smaller remainder."""

    def __init__(self, pictures: Pictures) -> None:
        size = max(1, min(PIXELS_AT_ONCE // (pictures.shape[1] * pictures.shape[2]), len(pictures)))
        self._parts = [pictures[at : at + size] for at in range(0, len(pictures) - size + 1, size)]
        self._remaining = iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Selects the parts to feed next."""
        self._remaining = iter(self._parts[start_index:end_index])

    def get_next(self) -> dict[str, Pictures] | None:
        """The next part; None at the end."""
        part = next(self._remaining, None)
        return None if part is None else {"pixels": part}


if __name__ == "__main__":
    _export(keras.saving.load_model(sys.argv[1], compile=False), Path(sys.argv[2]))
