"""Model folders of image classifiers unlike the shipped ones, written as a person would write them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from model import manifest as manifests
from model.adding import Output
from model.manifest import Export, ImagePreprocessing, Input, Manifest, PictureInput, Preprocessing


def brightest(into: PictureInput, last: str = "") -> bytes:
    """An ONNX file whose logits are 20 times the mean of each channel, and their negative for one channel.

    last: an operator at the end, such as Softmax or Sigmoid.
    """
    channels_at = 1 if into.layout == "NCHW" else 3
    axes = [axis for axis in (1, 2, 3) if axis != channels_at]
    weights = 20 * (np.eye(3) if into.channels == 3 else np.array([[1.0, -1.0]]))
    nodes = [
        helper.make_node("Cast", ["picture"], ["values"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["values", "axes"], ["means"], keepdims=0),
        helper.make_node("MatMul", ["means", "weights"], ["logits"]),
    ]
    if last:
        nodes.append(helper.make_node(last, ["logits"], ["answer"]))
    kind = TensorProto.UINT8 if into.dtype == "uint8" else TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "brightest",
        [helper.make_tensor_value_info("picture", kind, ["n", *into.shape])],
        [helper.make_tensor_value_info("answer" if last else "logits", TensorProto.FLOAT, ["n", None])],
        [
            numpy_helper.from_array(np.array(axes, np.int64), "axes"),
            numpy_helper.from_array(weights.astype(np.float32), "weights"),
        ],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(made)
    return made.SerializeToString()


def convolutional(size: int | None = 32, channels: int = 32, outlier: float = 0.0) -> bytes:
    """An ONNX file with four convolutions, NCHW, float32: its logits are about brightest()'s.

    size: height and width; None for any. outlier: a weight that makes one channel so much larger than others,
    which leaves no precision for them in 8-bit integers.
    """
    random = np.random.default_rng(1)
    nodes, constants, at, before = [], [], "picture", 3
    for number in range(4):
        kernel = random.normal(0, 0.02, (channels, before, 3, 3))
        kernel[range(3), range(3), 1, 1] += 1  # each of the first three channels goes on
        kernel[3, 0, 1, 1] += outlier
        constants.append(numpy_helper.from_array(kernel.astype(np.float32), f"kernel-{number}"))
        nodes.append(
            helper.make_node("Conv", [at, f"kernel-{number}"], [f"conv-{number}"], pads=[1, 1, 1, 1])
        )
        nodes.append(helper.make_node("Relu", [f"conv-{number}"], [f"relu-{number}"]))
        at, before = f"relu-{number}", channels
    last = np.zeros((channels, 3), np.float32)
    last[range(3), range(3)] = 20
    constants.append(numpy_helper.from_array(last, "last"))
    nodes.append(helper.make_node("GlobalAveragePool", [at], ["means"]))
    nodes.append(helper.make_node("Flatten", ["means"], ["flat"]))
    nodes.append(helper.make_node("MatMul", ["flat", "last"], ["logits"]))
    sides = ["h", "w"] if size is None else [size, size]
    graph = helper.make_graph(
        nodes,
        "convolutional",
        [helper.make_tensor_value_info("picture", TensorProto.FLOAT, ["n", 3, *sides])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 3])],
        constants,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(made)
    return made.SerializeToString()


def write(
    weights_dir: Path,
    name: str,
    labels: Sequence[str],
    into: Input,
    declared: Preprocessing,
    *,
    output: Output,
    content: bytes,
) -> Path:
    """Returns the folder of the model, which has an ONNX file alone."""
    folder = weights_dir / name / "1.0.0"
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(content)
    manifest = Manifest(
        name=name,
        version="1.0.0",
        labels=tuple(labels),
        input=into,
        preprocessing=declared,
        output=output,
        onnx=Export(file="model.onnx", sha256=manifests.sha256(content)),
    )
    manifests.write(folder, manifest)
    return folder


COLOURS = ("red", "green", "blue")


def write_colours(weights_dir: Path, name: str = "colours") -> Path:
    """Says which colour a picture has most of: 96 x 96 RGB to three logits."""
    into = PictureInput(height=96, width=96, channels=3, dtype="float32", layout="NCHW")
    declared = ImagePreprocessing(resize="crop", scale="0..1")
    return write(weights_dir, name, COLOURS, into, declared, output="logits", content=brightest(into))
