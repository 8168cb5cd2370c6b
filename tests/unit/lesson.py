"""Two epochs with given first weights, on the backend that Keras has: `python -m tests.unit.lesson FILE`.

FILE gets what they leave, as an .npz: the weights of the learner and of the average, and loss and accuracy.
"""

import sys

import numpy as np
from msgspec.structs import replace

from mlaas.settings import load
from model import NetworkSettings
from model.training.learning import compiled, untrained
from model.training.network import targets
from model.training.passes import Shown, passes_of

PICTURES, BATCH = 96, 32


def main(path: str) -> None:
    settings = load(
        None,
        {},
        [
            ("train.precision", "float32"),
            ("train.epochs", 2),
            ("train.batch_size", BATCH),
            ("train.learning_rate", 0.01),
            ("train.skipping.easy", 0.0),
        ],
    ).train
    settings = replace(settings, network=NetworkSettings(kind="resnet", widths=(4, 8), members=1))
    random = np.random.default_rng(1)
    learner, averaged = compiled(settings, PICTURES, taught=True), untrained(settings)
    for network in (learner, averaged):
        network.set_weights(
            [
                abs(random.normal(0.3, 0.1, weight.shape)).astype(np.float32)
                for weight in learner.get_weights()
            ]
        )
    images = random.integers(0, 256, (PICTURES, 28, 28), np.uint8)
    answers = random.dirichlet(np.ones(10), PICTURES).astype(np.float32)
    taught = targets(random.integers(0, 10, PICTURES).astype(np.uint8), 10, answers)
    weights = random.uniform(0.5, 2, PICTURES).astype(np.float32)
    passes = passes_of(learner, averaged, decay=0.9)
    shown = Shown(images, taught, weights)
    figures = [passes.run(epoch, shown, BATCH, progress_bar=False) for epoch in range(2)]
    np.savez(path, *learner.get_weights(), *averaged.get_weights(), figures=np.array(figures))


if __name__ == "__main__":
    main(sys.argv[1])
