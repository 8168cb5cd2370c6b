"""A network on ONNX Runtime. The only place that runs it."""

from pathlib import Path
from typing import Self

import onnxruntime

from model.arrays import Features, Pictures, Probabilities
from model.manifest import Manifest, ModelError, verify


class OnnxRuntime:
    """The .onnx export of a model."""

    name = "onnx"

    def __init__(self, content: bytes, threads: int, file: str) -> None:
        """file is what to call it in an error. Raises ModelError."""
        self._session = _open(content, threads, file)

    @classmethod
    def of_model(cls, weights_dir: Path, manifest: Manifest, threads: int) -> Self:
        """Its file, once the digest is right. Raises ModelError."""
        content = verify(weights_dir / manifest.onnx_file, manifest.onnx_sha256)
        return cls(content, threads, manifest.onnx_file)

    def run(self, pictures: Pictures) -> tuple[Probabilities, Features]:
        """See classifier.Runtime."""
        probabilities, features = self._session.run(("probabilities", "features"), {"pixels": pictures})
        return probabilities, features


def _open(content: bytes, threads: int, name: str) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ModelError(f"ONNX Runtime cannot open {name}: {error}") from error
