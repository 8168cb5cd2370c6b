"""What the peers share: mlaas's preprocessing, its exported model on one thread, and their arguments."""

import argparse
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from model.classifier import is_in_distribution, load, warnings_of
from model.preprocessing import prepare

WEIGHTS = Path(__file__).parents[2] / "weights"
MAX_PIXELS = 25_000_000


class Answering:
    """Loads the model. Create it in the process that uses it."""

    def __init__(self) -> None:
        self._classifier = load(WEIGHTS, "fashion-mnist", "onnx", 1)

    def __call__(self, pictures: Sequence[bytes]) -> list[dict[str, Any]]:
        """Answers like those of POST /predict, without model names and timings."""
        prepared = [prepare(picture, max_pixels=MAX_PIXELS) for picture in pictures]
        predicted = self._classifier.predict(np.stack([one.pixels for one in prepared]))
        probabilities, scores = predicted.answers.tolist(), predicted.ood_scores.tolist()
        return [self._answer(*one) for one in zip(pictures, prepared, probabilities, scores, strict=True)]

    def _answer(self, picture: bytes, prepared: Any, row: list[float], ood_score: float) -> dict[str, Any]:
        best = max(range(len(row)), key=row.__getitem__)
        labels = self._classifier.manifest.labels
        return {
            "label": labels[best],
            "confidence": round(row[best], 6),
            "probabilities": {label: round(value, 6) for label, value in zip(labels, row, strict=True)},
            "in_distribution": is_in_distribution(ood_score),
            "ood_score": round(ood_score, 6),
            "mode": prepared.mode,
            "warnings": warnings_of(prepared, ood_score),
            "sha256": hashlib.sha256(picture).hexdigest(),
        }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--workers", type=int, default=1)
    return parser.parse_args()
