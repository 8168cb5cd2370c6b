"""From a Keras network to ONNX: the same answers, batch normalisation folded into the convolutions.

Keras's own exporter needs tf2onnx; the network has so few kinds of layers that writing them down is less.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import onnx
from keras import layers
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
IR_VERSION = 8

Floats = NDArray[np.float32]


class Graph:
    """ONNX nodes, written in the order of the network's layers and operations."""

    def __init__(self, network: keras.Model) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self._names = {id(network.input): "pixels"}
        self._unfolded: dict[int, keras.Layer] = {}

    def add(self, layer: Any) -> None:
        """Writes one layer; a convolution waits for its normalisation. Raises KeyError for a kind unknown."""
        if isinstance(layer, layers.Conv2D):
            self._unfolded[id(layer.output)] = layer
        elif isinstance(layer, layers.BatchNormalization):
            convolution = self._unfolded[id(layer.input)]
            kernel, bias = folded(convolution, layer)
            name = self.write("Conv", [convolution.input], kernel, bias, pads=[1, 1, 1, 1])
            self._names[id(layer.output)] = name
        else:
            inputs = layer.input if isinstance(layer.input, list) else [layer.input]
            self._names[id(layer.output)] = ADD[kind(layer)](self, layer, inputs)

    def write(self, operator: str, inputs: list[Any], *constants: NDArray[Any], **attributes: Any) -> str:
        """Appends one operator over Keras tensors, or names, and constants; returns its output's name."""
        name = f"{len(self.nodes)}_{operator}"
        names = [x if isinstance(x, str) else self._names[id(x)] for x in inputs]
        keys = [f"{name}_{index}" for index in range(len(constants))]
        self.constants += map(numpy_helper.from_array, constants, keys)
        self.nodes.append(helper.make_node(operator, names + keys, [name], name, **attributes))
        return name

    def rename(self, tensor: Any, new: str) -> None:
        """Gives the output that holds this Keras tensor a name of its own."""
        old = self._names[id(tensor)]
        for node in self.nodes:
            for names in (node.input, node.output):
                names[:] = [new if name == old else name for name in names]
        self._names[id(tensor)] = new


def folded(convolution: keras.Layer, normalization: keras.Layer) -> tuple[Floats, Floats]:
    """A convolution without bias and the normalisation after it, as the kernel and bias of one convolution.

    The kernel is (out, in, height, width), as ONNX has it; Keras has (height, width, in, out).
    """
    gamma, beta, mean, variance = (weight.astype(np.float64) for weight in normalization.get_weights())
    (kernel,) = convolution.get_weights()
    scale = gamma / np.sqrt(variance + normalization.epsilon)
    return (kernel * scale).transpose(3, 2, 0, 1).astype(np.float32), (beta - mean * scale).astype(np.float32)


def to_onnx(network: keras.Model) -> bytes:
    """The network of model.training.network.to_serve as an ONNX file.

    Input "pixels": uint8 (n, 28, 28). Outputs, float32: "probabilities" (n, classes), "features" (n, d).
    """
    graph = Graph(network)
    for layer in network.operations:
        if not isinstance(layer, layers.InputLayer):
            graph.add(layer)
    outputs = {"probabilities": network.output, "features": network.get_layer("features").output}
    for name, tensor in outputs.items():
        graph.rename(tensor, name)
    pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", *network.input_shape[1:]])
    described = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", tensor.shape[1]])
        for name, tensor in outputs.items()
    ]
    body = helper.make_graph(graph.nodes, "network", [pixels], described, graph.constants)
    exported = helper.make_model(body, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(exported, full_check=True)
    serialized: bytes = exported.SerializeToString()
    return serialized


def add_reshape(graph: Graph, _: keras.Layer, inputs: list[Any]) -> str:
    return graph.write("Unsqueeze", [graph.write("Cast", inputs, to=TensorProto.FLOAT)], np.array([1]))


def add_rescaling(graph: Graph, layer: keras.Layer, inputs: list[Any]) -> str:
    return graph.write("Mul", inputs, np.array(layer.scale, np.float32))


def add_relu(graph: Graph, _: keras.Layer, inputs: list[Any]) -> str:
    return graph.write("Relu", inputs)


def add_sum(graph: Graph, _: keras.Layer, inputs: list[Any]) -> str:
    return graph.write("Add", inputs)


def add_max_pooling(graph: Graph, layer: keras.Layer, inputs: list[Any]) -> str:
    return graph.write("MaxPool", inputs, kernel_shape=[*layer.pool_size], strides=[*layer.strides])


def add_global_average(graph: Graph, _: keras.Layer, inputs: list[Any]) -> str:
    return graph.write("Flatten", [graph.write("GlobalAveragePool", inputs)])


def add_concatenation(graph: Graph, layer: keras.Layer, inputs: list[Any]) -> str:
    return graph.write("Concat", inputs, axis=layer.axis)


def add_mirroring(graph: Graph, operation: Any, inputs: list[Any]) -> str:
    starts, ends, axes, steps = (np.array([x]) for x in (-1, np.iinfo(np.int64).min, operation.axis, -1))
    return graph.write("Slice", inputs, starts, ends, axes, steps)


def add_division(graph: Graph, operation: Any, inputs: list[Any]) -> str:
    return graph.write("Reshape", inputs, np.array(operation.newshape))


def add_mean(graph: Graph, operation: Any, inputs: list[Any]) -> str:
    return graph.write("ReduceMean", inputs, axes=[*operation.axis], keepdims=0)


def add_dense_softmax(graph: Graph, layer: keras.Layer, inputs: list[Any]) -> str:
    return graph.write("Softmax", [graph.write("Gemm", inputs, *layer.get_weights())], axis=1)


def kind(layer: Any) -> str:
    """The name of its class; those of keras.ops are not public."""
    name = type(layer).__name__
    return name if isinstance(layer, keras.Layer) else f"ops.{name}"


ADD: dict[str, Callable[[Graph, Any, list[Any]], str]] = {
    "Reshape": add_reshape,
    "Rescaling": add_rescaling,
    "ReLU": add_relu,
    "Add": add_sum,
    "MaxPooling2D": add_max_pooling,
    "GlobalAveragePooling2D": add_global_average,
    "Concatenate": add_concatenation,
    "Dense": add_dense_softmax,
    "ops.Flip": add_mirroring,
    "ops.Concatenate": add_concatenation,
    "ops.Reshape": add_division,
    "ops.Mean": add_mean,
}
