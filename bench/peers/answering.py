"""What the peers share: mlaas's preprocessing, its exported model on one thread, and their arguments."""

import argparse
import hashlib
import heapq
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from model.classifier import is_in_distribution, load, prepare_for, warnings_of

WEIGHTS = Path(__file__).parents[2] / "weights"
MAX_PIXELS = 25_000_000
MOST_LABELS = 10


class Answering:
    """Loads the model: the shipped one, or BENCH_MODEL in the folder BENCH_WEIGHTS. Create it in the process
    that uses it."""

    def __init__(self) -> None:
        weights = Path(os.environ.get("BENCH_WEIGHTS", WEIGHTS))
        self._classifier = load(weights, os.environ.get("BENCH_MODEL", "fashion-mnist"), "onnx", 1)

    def __call__(self, pictures: Sequence[bytes]) -> list[dict[str, Any]]:
        """Answers like those of POST /predict, without model names and timings."""
        its = self._classifier.manifest.preparation
        prepared = [prepare_for(its, picture, mode="auto", max_pixels=MAX_PIXELS) for picture in pictures]
        predicted = self._classifier.predict(np.stack([one.pixels for one in prepared]))
        probabilities, found = predicted.answers.tolist(), predicted.ood_scores
        scores = [None] * len(pictures) if found is None else found.tolist()
        return [self._answer(*one) for one in zip(pictures, prepared, probabilities, scores, strict=True)]

    def _answer(
        self, picture: bytes, prepared: Any, row: list[float], ood_score: float | None
    ) -> dict[str, Any]:
        """With the ten most probable labels at most, as POST /predict."""
        labels = self._classifier.manifest.labels
        shown: Any = range(len(row))
        if len(row) > MOST_LABELS:
            shown = heapq.nlargest(MOST_LABELS, shown, key=row.__getitem__)
        best = max(shown, key=row.__getitem__)
        return {
            "label": labels[best],
            "confidence": round(row[best], 6),
            "probabilities": {labels[number]: round(row[number], 6) for number in shown},
            "in_distribution": is_in_distribution(ood_score),
            "ood_score": None if ood_score is None else round(ood_score, 6),
            "mode": prepared.mode,
            "warnings": warnings_of(prepared.warnings, ood_score),
            "sha256": hashlib.sha256(picture).hexdigest(),
        }


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--workers", type=int, default=1)
    return parser.parse_args()
