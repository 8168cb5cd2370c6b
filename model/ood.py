"""Detects pictures that are out of distribution: unlike the training pictures.

Features are whitened by their covariance within classes, so that distances from class means are Mahalanobis
distances (Lee et al., arXiv 1807.03888). The score is linear in features and distances;
model.training.ood fits it.
"""

from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from model.manifest import Manifest, ModelError, verify
from model.runtimes import Features

Weights = NDArray[np.float32]

Scores = NDArray[np.float32]
"""(n,): how much each picture differs from the training pictures; above 1, it is out of distribution."""


class Detector(NamedTuple):
    """Scores pictures by their features, with d features and c classes.

    Features minus mean (d,), times whiten (d, d), have unit covariance within classes; centres (c, d) are the
    class means in that space. weights (d + c + 2,) and bias () turn measures() into a score. All float32.
    """

    mean: Weights
    whiten: Weights
    centres: Weights
    weights: Weights
    bias: Weights

    def score(self, features: Features) -> Scores:
        """The scores of features (n, d). Of the held-out training pictures, half score 0 and 5% above 1.

        Area, contrast, borders and edges of the picture were tried as further inputs and hardly helped.
        """
        scores: Scores = np.maximum(self.measures(features) @ self.weights + self.bias, np.float32(0))
        return scores

    def measures(self, features: Features) -> Weights:
        """(n, d + c + 2): features, distances from all class means, the smallest of these, its logarithm."""
        place = (features - self.mean) @ self.whiten
        squares = np.einsum("ij,ij->i", place, place)[:, None] - 2 * (place @ self.centres.T)
        squares += np.einsum("ij,ij->i", self.centres, self.centres)
        distances = np.sqrt(np.maximum(squares, np.float32(1e-6)))
        nearest = distances.min(axis=1, keepdims=True)
        return np.concatenate((features, distances, nearest, np.log(nearest)), axis=1)

    def to_bytes(self) -> bytes:
        """The content of the model's .npz file."""
        file = BytesIO()
        np.savez(file, **self._asdict())
        return file.getvalue()

    @staticmethod
    def from_bytes(content: bytes) -> "Detector":
        """The detector that to_bytes() encoded. Raises ValueError."""
        try:
            with np.load(BytesIO(content), allow_pickle=False) as arrays:
                return Detector(**arrays).checked()
        except Exception as error:
            raise ValueError(f"not a detector: {error}") from error

    def checked(self) -> "Detector":
        """This detector. Raises ValueError unless its arrays are finite float32 of matching shapes."""
        c, d = self.centres.shape
        if [array.shape for array in self] != [(d,), (d, d), (c, d), (d + c + 2,), ()]:
            raise ValueError("its arrays have shapes that do not match")
        if any(array.dtype != np.float32 or not np.isfinite(array).all() for array in self):
            raise ValueError("its arrays are not all finite float32 numbers")
        return self


def load_detector(folder: Path, manifest: Manifest) -> Detector | None:
    """Loads the detector of a model, if it has one. Raises ModelError."""
    if manifest.detector is None:
        return None
    path = folder / manifest.detector.file
    content = verify(path, manifest.detector.sha256)
    try:
        return Detector.from_bytes(content)
    except ValueError as error:
        raise ModelError(f"{path} is {error}") from error
