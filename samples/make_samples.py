"""Writes one picture of each class: the first of the test set that the model is sure of, and right."""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from model.classifier import load
from model.runtimes import Probabilities
from model.training import dataset
from model.training.dataset import Labels
from model.training.evaluate import in_batches

ROOT = Path(__file__).parents[1]
SURE = 0.98


def main() -> None:
    data = dataset.load(ROOT / "data")
    classifier = load(ROOT / "weights", "fashion-mnist", "auto", 1)
    probabilities, _ = in_batches(classifier.predict, data.test_images)
    for label, name in enumerate(dataset.LABELS):
        index = first_sure(probabilities, data.test_labels, label)
        Image.fromarray(data.test_images[index]).save(ROOT / "samples" / f"{slug(name)}.png")
        print(f"{slug(name)}.png: test picture {index}, {probabilities[index, label]:.1%} {name}")


def first_sure(probabilities: Probabilities, labels: Labels, label: int) -> int:
    """The first picture of this class that the model is sure of."""
    return int(np.flatnonzero((labels == label) & (probabilities[:, label] > SURE))[0])


def slug(name: str) -> str:
    """The label as a file name: T-shirt/top becomes t-shirt-top."""
    return name.lower().replace("/", "-").replace(" ", "-")


if __name__ == "__main__":
    main()
