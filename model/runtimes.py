"""The libraries that run a network: ONNX Runtime for an export, or Keras, the reference for exports.

Each is imported where it is used, since a serving worker has no TensorFlow.
"""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from model.manifest import Manifest, ModelError, verify
from model.product import Pictures

if TYPE_CHECKING:
    import keras
    import onnxruntime

Probabilities = NDArray[np.float32]
"""(n, classes): each row is a probability distribution over the labels."""

Features = NDArray[np.float32]
"""(n, d): the inputs of the network's last layer."""


class Runtime(Protocol):
    """Runs a network on a batch."""

    name: str

    def run(self, pictures: Pictures) -> tuple[Probabilities, Features]:
        """Probabilities and features of uint8 pictures (n, 28, 28)."""


class OnnxRuntime:
    """Runs the .onnx export of a model."""

    name = "onnx"

    def __init__(self, content: bytes, threads: int, file: str) -> None:
        """content is an ONNX file, which error messages call file. Raises ModelError."""
        self._session = _onnx_session(content, threads, file)

    @classmethod
    def of_model(cls, weights_dir: Path, manifest: Manifest, threads: int) -> Self:
        """Opens the export of a model and verifies its digest. Raises ModelError."""
        content = verify(weights_dir / manifest.onnx_file, manifest.onnx_sha256)
        return cls(content, threads, manifest.onnx_file)

    def run(self, pictures: Pictures) -> tuple[Probabilities, Features]:
        probabilities, features = self._session.run(("probabilities", "features"), {"pixels": pictures})
        return probabilities, features


class KerasRuntime:
    """Runs the .keras file of a model on TensorFlow."""

    name = "keras"

    def __init__(self, weights_dir: Path, manifest: Manifest, threads: int) -> None:
        """Opens the file and verifies its digest. Raises ModelError."""
        path = weights_dir / manifest.keras_file
        verify(path, manifest.keras_sha256)
        _limit_tensorflow(threads)
        self._forward = _as_graph(_keras_model(path), manifest)

    def run(self, pictures: Pictures) -> tuple[Probabilities, Features]:
        probabilities, features = self._forward(pictures)
        return probabilities.numpy(), features.numpy()


def _onnx_session(content: bytes, threads: int, name: str) -> "onnxruntime.InferenceSession":
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ModelError(f"ONNX Runtime cannot open {name}: {error}") from error


def _keras_model(path: Path) -> "keras.Model":
    import keras

    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:
        raise ModelError(f"Keras cannot open {path}: {error}") from error


def _limit_tensorflow(threads: int) -> None:
    """Sets the number of threads, which TensorFlow accepts only before its first computation."""
    import tensorflow as tf

    with suppress(RuntimeError):
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)


def _as_graph(network: "keras.Model", manifest: Manifest) -> Any:
    """The network as a graph. The signature keeps TensorFlow from tracing it anew for each batch size."""
    import keras
    import tensorflow as tf

    signature = tf.TensorSpec([None, *manifest.input_shape], tf.uint8)
    both = keras.Model(network.input, [network.output, network.get_layer("features").output])
    return tf.function(lambda pictures: both(pictures, training=False), input_signature=[signature])
