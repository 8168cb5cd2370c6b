"""The libraries that run a network: ONNX Runtime for an export, or Keras, the reference for exports.

Each is imported where it is used, since a serving worker has no TensorFlow.
"""

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from model.manifest import Manifest, ModelError, verify

if TYPE_CHECKING:
    import keras
    import onnxruntime

Probabilities = NDArray[np.float32]
"""(n, classes): the probability of each label."""

Output = NDArray[np.float32]
"""(n, numbers): the output of the network; Manifest.output says what it means. Of another type than float32
only if that is numbers."""

OUTPUT, FEATURES = "probabilities", "features"
"""Outputs of an ONNX file; without them its first one counts. FEATURES is also a layer of a Keras network."""

Features = NDArray[np.float32]
"""(n, d): the inputs of the network's last layer."""


class CannotRun(Exception):
    """The network cannot compute this batch, because of an index out of range for example."""


class Runtime(Protocol):
    """Runs a network on a batch."""

    name: str

    def run(self, batch: NDArray[Any]) -> tuple[Output, Features | None]:
        """Output and features of a batch in the shape and type of the model's input. Raises CannotRun."""


class OnnxRuntime:
    """Runs an ONNX file.

    input_shape has a name, or None, for an axis of any size; input_type is such as tensor(float).
    """

    name = "onnx"

    def __init__(self, content: bytes, threads: int, file: str) -> None:
        """content is an ONNX file, which error messages call file. Raises ModelError."""
        self._session = _onnx_session(content, threads, file)
        its, *more = self._session.get_inputs()
        if more:
            raise ModelError(f"{file} has {1 + len(more)} inputs; a model with one can be served")
        self._input, self.input_shape, self.input_type = its.name, tuple(its.shape), str(its.type)
        self._one_at_a_time = self.input_shape[:1] == (1,)
        if isinstance(self.input_shape[0], int) and not self._one_at_a_time:
            raise ModelError(f"{file} takes exactly {self.input_shape[0]} inputs; export it for any number")
        outputs = self._session.get_outputs()
        if any(each.type.startswith("seq(") for each in outputs):
            raise ModelError(f"{file} answers with maps, not arrays: export it with the option zipmap=False")
        names = [each.name for each in outputs]
        self._outputs = [OUTPUT if OUTPUT in names else names[0], *({FEATURES} & set(names))]

    @classmethod
    def of_model(cls, folder: Path, manifest: Manifest, threads: int) -> Self:
        """Opens the ONNX file of a model and verifies its digest. Raises ModelError."""
        if manifest.onnx is None:
            raise ModelError(f"{folder} has no ONNX file")
        path = folder / manifest.onnx.file
        return cls(verify(path, manifest.onnx.sha256), threads, str(path))

    def run(self, batch: NDArray[Any]) -> tuple[Output, Features | None]:
        try:
            if self._one_at_a_time and len(batch) > 1:
                rows = [self._session.run(self._outputs, {self._input: each[None]}) for each in batch]
                output, *features = (np.concatenate(each) for each in zip(*rows, strict=True))
            else:
                output, *features = self._session.run(self._outputs, {self._input: batch})
        except Exception as error:
            raise CannotRun(str(error).partition("\n")[0].rpartition("Status Message: ")[2]) from error
        return output, features[0] if features else None


class KerasRuntime:
    """Runs the .keras file of a model on TensorFlow."""

    name = "keras"

    def __init__(self, folder: Path, manifest: Manifest, threads: int) -> None:
        """Opens the file and verifies its digest. Raises ModelError."""
        if manifest.keras is None:
            raise ModelError(f"{folder} has no .keras file")
        path = folder / manifest.keras.file
        verify(path, manifest.keras.sha256)
        _limit_tensorflow(threads)
        self._forward = _as_graph(_keras_model(path), manifest)

    def run(self, batch: NDArray[Any]) -> tuple[Output, Features | None]:
        try:
            found = self._forward(batch)
        except Exception as error:
            raise CannotRun(str(error).partition("\n")[0]) from error
        output, *features = found if isinstance(found, (list, tuple)) else [found]
        return output.numpy(), features[0].numpy() if features else None


def _onnx_session(content: bytes, threads: int, name: str) -> "onnxruntime.InferenceSession":
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        if "INVALID_PROTOBUF" in str(error) or "No graph was found" in str(error):
            raise ModelError(f"{name} is damaged, or not an ONNX file: export or copy it again") from error
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

    signature = tf.TensorSpec([None, *manifest.input.shape], manifest.input.dtype)
    outputs = [network.outputs[0], *(layer.output for layer in network.layers if layer.name == FEATURES)]
    both = keras.Model(network.inputs[0], outputs)
    return tf.function(lambda batch: both(batch, training=False), input_signature=[signature])
