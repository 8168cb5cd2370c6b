"""Writes fashion-mnist-test-500.npz: 50 test pictures of each class, so that tests need no data set."""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[2]))

from model.training import dataset

SEED = 2017
PER_CLASS = 50


def main() -> None:
    data = dataset.load(Path("data"))
    chosen = dataset.held_out(data.test_labels, PER_CLASS * len(dataset.LABELS), SEED)
    np.savez_compressed(
        Path(__file__).with_name("fashion-mnist-test-500.npz"),
        images=data.test_images[chosen],
        labels=data.test_labels[chosen],
        allow_pickle=False,
    )


if __name__ == "__main__":
    main()
