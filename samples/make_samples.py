"""Writes the samples: a picture of each class from the test set, and two drawn photos.

Of each class, the first picture that the model is sure of, and right. Pillow's version decides the bytes of
the photos, and the seeds what they show.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from model.classifier import load
from model.runtimes import Probabilities
from model.training import dataset, drawn_clothes
from model.training.dataset import Labels
from model.training.evaluate import in_batches

ROOT = Path(__file__).parents[1]
SAMPLES = ROOT / "samples"
SURE = 0.98
QUALITY = 80

PHOTOS = {"t-shirt": 6, "dress": 15}
"""Kinds of drawn_clothes, each with its seed. None is a golden picture of clothing-photo."""


def main() -> None:
    for kind, seed in PHOTOS.items():
        path = SAMPLES / f"photo-{kind}.jpg"
        path.write_bytes(drawn_clothes.as_jpeg(drawn_clothes.draw(kind, seed), QUALITY))
        print(f"{path.name}: drawn with seed {seed}")
    data = dataset.load(ROOT / "data")
    classifier = load(ROOT / "weights", "fashion-mnist", "auto", 1)
    probabilities, _ = in_batches(classifier.predict, data.test_images)
    for label, name in enumerate(dataset.LABELS):
        index = first_sure(probabilities, data.test_labels, label)
        Image.fromarray(data.test_images[index]).save(SAMPLES / f"{slug(name)}.png")
        print(f"{slug(name)}.png: test picture {index}, {probabilities[index, label]:.1%} {name}")


def first_sure(probabilities: Probabilities, labels: Labels, label: int) -> int:
    """The first picture of this class that the model is sure of."""
    return int(np.flatnonzero((labels == label) & (probabilities[:, label] > SURE))[0])


def slug(name: str) -> str:
    """The label as a file name: T-shirt/top becomes t-shirt-top."""
    return name.lower().replace("/", "-").replace(" ", "-")


if __name__ == "__main__":
    main()
