"""8-bit integers in the convolutions of an export: see docs/decisions/0005-int8.md."""

import io
import tempfile
from contextlib import redirect_stdout
from pathlib import Path

import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)

from model.arrays import Pictures

PICTURES, AT_ONCE = 2000, 50
QUANTIZED = ["Conv", "Relu", "MaxPool", "Add"]


class Calibration(CalibrationDataReader):  # type: ignore[misc]
    """Shows the network pictures, so that the range of what it computes is known.

    Parts must be of one size: what is left over is left out.
    """

    def __init__(self, pictures: Pictures) -> None:
        size = min(AT_ONCE, len(pictures))
        starts = range(0, len(pictures) - size + 1, size)
        self._parts = [pictures[at : at + size] for at in starts]
        self._shown = iter(self._parts)

    def __len__(self) -> int:
        """How many parts there are."""
        return len(self._parts)

    def set_range(self, start_index: int, end_index: int) -> None:
        """Shows these parts next."""
        self._shown = iter(self._parts[start_index:end_index])

    def get_next(self) -> dict[str, Pictures] | None:
        """The next part, None at the end."""
        part = next(self._shown, None)
        return None if part is None else {"pixels": part}


def quantized(exported: bytes, pictures: Pictures) -> bytes:
    """The ONNX file of model.training.export with the same inputs and outputs, computed in 8-bit integers.

    Weights have a scale for each channel; activations one that holds all but the outermost 0.002 % of what
    the first of the pictures, uint8 (n, 28, 28), give. Convolutions of the picture itself stay in float32:
    they are few, and all that follows stands on them.
    """
    network = onnx.load_from_string(exported)
    # Else it logs the advice to fold batch normalisation and to infer shapes, which is done.
    network.metadata_props.add(key="onnx.quant.pre_process", value="onnxruntime.quant")
    with tempfile.TemporaryDirectory() as folder, redirect_stdout(io.StringIO()):
        path = Path(folder, "quantized.onnx")
        quantize_static(
            network,
            path,
            Calibration(pictures[:PICTURES]),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=QUANTIZED,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            nodes_to_exclude=first_convolutions(network),
            calibrate_method=CalibrationMethod.Percentile,
            # All that the network computes of these parts is in memory at once: of one, half a gigabyte.
            extra_options={"CalibStridedMinMax": 1},
        )
        return path.read_bytes()


def first_convolutions(network: onnx.ModelProto) -> list[str]:
    """The names of those with one channel in."""
    of_kernel = {kernel.name: kernel.dims for kernel in network.graph.initializer}
    convolutions = [node for node in network.graph.node if node.op_type == "Conv"]
    return [node.name for node in convolutions if of_kernel[node.input[1]][1] == 1]
