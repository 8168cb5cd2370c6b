"""Pictures a second that training takes, by precision and normalisation: `python -m bench.training_speed`."""

import time

import keras
import numpy as np

from model.network import to_train
from model.normalization import FusedBatchNormalization
from model.objective import Objective, targets
from model.precision import precision
from model.settings import NetworkSettings

BATCH = 128
STEPS = 20
NETWORKS = {
    "vgg 16-48-128": NetworkSettings(kind="vgg", widths=(16, 48, 128), members=1),
    "resnet 48-96-192": NetworkSettings(kind="resnet", widths=(48, 96, 192), members=1),
}
NORMALIZATIONS = {"Keras's": keras.layers.BatchNormalization, "fused": FusedBatchNormalization}


def main() -> None:
    print("network | normalisation | precision | pictures/s\n--- | --- | --- | ---")
    for name, settings in NETWORKS.items():
        for kind, normalize in NORMALIZATIONS.items():
            for policy in ("float32", "mixed_bfloat16"):
                with precision(policy):
                    network = to_train(settings, 10, normalize)
                print(f"{name} | {kind} | {policy} | {speed(network):.0f}", flush=True)


def speed(network: keras.Model) -> float:
    """Pictures a second over some steps, after as many to warm up."""
    random = np.random.default_rng(1)
    images = random.integers(0, 256, (BATCH * STEPS, 28, 28), dtype=np.uint8)
    taught = targets(random.integers(0, 10, len(images)).astype(np.uint8), 10, None)
    network.compile(keras.optimizers.SGD(0.01, 0.9, nesterov=True), Objective(0.0, 1.0), jit_compile=False)
    network.fit(images, taught, batch_size=BATCH, verbose=0)
    started = time.perf_counter()
    network.fit(images, taught, batch_size=BATCH, verbose=0)
    return len(images) / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
