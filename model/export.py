"""From a Keras network to ONNX: the same answers, batch normalisation folded into the convolutions.

Keras's own exporter needs tf2onnx; the network has so few kinds of layers that writing them down is less.
"""

from collections.abc import Callable, Iterator, Sequence
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
    """A chain of ONNX nodes, each reading what the one before it wrote."""

    def __init__(self, source: str) -> None:
        self.output = source
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []

    def add(self, operator: str, *constants: NDArray[Any], **attributes: Any) -> None:
        """Appends one operator; the constants are its inputs after the first."""
        name = f"{len(self.nodes)}_{operator}"
        inputs = [self.output, *(f"{name}_{index}" for index in range(len(constants)))]
        self.constants += [
            numpy_helper.from_array(constant, key)
            for constant, key in zip(constants, inputs[1:], strict=True)
        ]
        self.nodes.append(helper.make_node(operator, inputs, [name], name, **attributes))
        self.output = name


class FoldedConvolution:
    """A convolution without bias and the batch normalisation after it, as one convolution with bias.

    kernel is (out, in, height, width), as ONNX has it; Keras has (height, width, in, out).
    """

    def __init__(self, convolution: keras.Layer, normalization: keras.Layer) -> None:
        gamma, beta, mean, variance = (weight.astype(np.float64) for weight in normalization.get_weights())
        (kernel,) = convolution.get_weights()
        scale = gamma / np.sqrt(variance + normalization.epsilon)
        self.kernel: Floats = (kernel * scale).transpose(3, 2, 0, 1).astype(np.float32)
        self.bias: Floats = (beta - mean * scale).astype(np.float32)


def to_onnx(network: keras.Model) -> bytes:
    """The network of model.network as an ONNX file.

    Input "pixels": uint8 (n, 28, 28). Output "probabilities": float32 (n, classes).
    """
    graph = Graph("pixels")
    for layer in fold(network.layers):
        ADD[type(layer)](graph, layer)
    graph.nodes[-1].output[0] = "probabilities"
    pixels = helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", *network.input_shape[1:]])
    probabilities = helper.make_tensor_value_info(
        "probabilities", TensorProto.FLOAT, ["n", network.output_shape[1]]
    )
    body = helper.make_graph(graph.nodes, "network", [pixels], [probabilities], graph.constants)
    exported = helper.make_model(body, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(exported, full_check=True)
    serialized: bytes = exported.SerializeToString()
    return serialized


def fold(network_layers: Sequence[keras.Layer]) -> Iterator[keras.Layer | FoldedConvolution]:
    """The layers to write: a convolution and its batch normalisation are one, the input is none."""
    convolution = None
    for layer in network_layers:
        if isinstance(layer, layers.Conv2D):
            convolution = layer
        elif isinstance(layer, layers.BatchNormalization):
            yield FoldedConvolution(convolution, layer)
        elif not isinstance(layer, layers.InputLayer):
            yield layer


def add_reshape(graph: Graph, _: keras.Layer) -> None:
    graph.add("Cast", to=TensorProto.FLOAT)
    graph.add("Unsqueeze", np.array([1], np.int64))


def add_rescaling(graph: Graph, layer: keras.Layer) -> None:
    graph.add("Mul", np.array(layer.scale, np.float32))


def add_convolution(graph: Graph, layer: FoldedConvolution) -> None:
    graph.add("Conv", layer.kernel, layer.bias, pads=[1, 1, 1, 1])


def add_relu(graph: Graph, _: keras.Layer) -> None:
    graph.add("Relu")


def add_max_pooling(graph: Graph, layer: keras.Layer) -> None:
    graph.add("MaxPool", kernel_shape=list(layer.pool_size), strides=list(layer.strides))


def add_global_average(graph: Graph, _: keras.Layer) -> None:
    graph.add("GlobalAveragePool")
    graph.add("Flatten")


def add_dense_softmax(graph: Graph, layer: keras.Layer) -> None:
    graph.add("Gemm", *layer.get_weights())
    graph.add("Softmax", axis=1)


ADD: dict[type, Callable[[Graph, Any], None]] = {
    layers.Reshape: add_reshape,
    layers.Rescaling: add_rescaling,
    FoldedConvolution: add_convolution,
    layers.ReLU: add_relu,
    layers.MaxPooling2D: add_max_pooling,
    layers.GlobalAveragePooling2D: add_global_average,
    layers.Dense: add_dense_softmax,
}
