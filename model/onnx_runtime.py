"""A classifier on ONNX Runtime. The only place that imports it."""

from pathlib import Path

import onnxruntime

from model.arrays import Pictures, Probabilities
from model.manifest import Manifest, ModelError, verify


class OnnxClassifier:
    """The .onnx export of a model."""

    runtime = "onnx"

    def __init__(self, weights_dir: Path, manifest: Manifest, threads: int) -> None:
        content = verify(weights_dir / manifest.onnx_file, manifest.onnx_sha256)
        self.manifest = manifest
        self._session = _open(content, threads, manifest.onnx_file)

    def predict(self, pictures: Pictures) -> Probabilities:
        """See Classifier."""
        probabilities: Probabilities = self._session.run(None, {"pixels": pictures})[0]
        return probabilities


def _open(content: bytes, threads: int, name: str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ModelError(f"ONNX Runtime cannot open {name}: {error}") from error
