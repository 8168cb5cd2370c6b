"""Models whose input is no picture: a classifier of four numbers, a regression on a window, an embedding."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from model.manifest import DType, Output, TensorInput, TensorPreprocessing
from tests import image_models

LABELS = ("setosa", "versicolor", "virginica")
SETOSA, VIRGINICA = [5.1, 3.5, 1.4, 0.2], [6.3, 3.3, 6.0, 2.5]

WEIGHTS = np.array([[0.4, 0.4, -1.5], [1.4, -0.3, -1.5], [-2.2, 0.6, 1.9], [-1.0, -1.3, 3.0]], np.float32)


def _saved(
    nodes: Sequence[onnx.NodeProto],
    into: onnx.ValueInfoProto,
    gives: Sequence[object],
    **constants: np.ndarray,
) -> bytes:
    """The last node gives the output, of this shape."""
    answer = helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, gives)
    values = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "tensor", [into], [answer], values)
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(made)
    return made.SerializeToString()


def iris() -> bytes:
    """Four numbers to three logits: float32 (n, 4)."""
    into = helper.make_tensor_value_info("row", TensorProto.FLOAT, ["n", 4])
    return _saved(
        [helper.make_node("MatMul", ["row", "weights"], ["logits"])], into, ["n", 3], weights=WEIGHTS
    )


def level() -> bytes:
    """The square root of the mean of a window: float32 (n, 24, 3) to (n,). NaN if that is negative."""
    into = helper.make_tensor_value_info("window", TensorProto.FLOAT, ["n", 24, 3])
    nodes = [
        helper.make_node("ReduceMean", ["window", "axes"], ["mean"], keepdims=0),
        helper.make_node("Sqrt", ["mean"], ["level"]),
    ]
    return _saved(nodes, into, ["n"], axes=np.array([1, 2], np.int64))


def words() -> bytes:
    """The sum of the vectors of three words: int64 (n, 3) to (n, 2). There are the words 0 to 4."""
    into = helper.make_tensor_value_info("words", TensorProto.INT64, ["n", 3])
    nodes = [
        helper.make_node("Gather", ["vectors", "words"], ["each"]),
        helper.make_node("ReduceSum", ["each", "axes"], ["sum"], keepdims=0),
    ]
    vectors = np.array([[0.125 * word, 10 * word] for word in range(5)], np.float32)
    return _saved(nodes, into, ["n", 2], vectors=vectors, axes=np.array([1], np.int64))


def row_of(numbers: object) -> bytes:
    """A golden file, which is also a body of POST /predict."""
    return json.dumps({"inputs": [numbers]}).encode()


def write(
    weights_dir: Path,
    name: str,
    content: bytes,
    shape: tuple[int, ...],
    *,
    labels: Sequence[str] = (),
    output: Output = "numbers",
    dtype: DType = "float32",
) -> Path:
    """Returns the folder of the model."""
    into = TensorInput(shape=shape, dtype=dtype)
    declared = TensorPreprocessing()
    return image_models.write(weights_dir, name, labels, into, declared, output=output, content=content)


def write_iris(weights_dir: Path) -> Path:
    return write(weights_dir, "iris", iris(), (4,), labels=LABELS, output="logits")


def write_level(weights_dir: Path) -> Path:
    return write(weights_dir, "level", level(), (24, 3))


def write_words(weights_dir: Path) -> Path:
    return write(weights_dir, "words", words(), (3,), dtype="int64")
