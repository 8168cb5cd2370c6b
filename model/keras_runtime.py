"""A network on Keras and TensorFlow: the reference that the export is compared with."""

from contextlib import suppress
from pathlib import Path

import keras
import tensorflow as tf

from model.arrays import Features, Pictures, Probabilities
from model.manifest import Manifest, ModelError, verify


class KerasRuntime:
    """The .keras file of a model."""

    name = "keras"

    def __init__(self, weights_dir: Path, manifest: Manifest, threads: int) -> None:
        path = weights_dir / manifest.keras_file
        verify(path, manifest.keras_sha256)
        _use(threads)
        self._forward = _forward(_open(path), manifest)

    def run(self, pictures: Pictures) -> tuple[Probabilities, Features]:
        """See classifier.Runtime."""
        probabilities, features = self._forward(pictures)
        return probabilities.numpy(), features.numpy()


def _use(threads: int) -> None:
    """TensorFlow takes its number of threads once in a process, before it computes anything."""
    with suppress(RuntimeError):
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)


def _open(path: Path) -> keras.Model:
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:
        raise ModelError(f"Keras cannot open {path}: {error}") from error


def _forward(network: keras.Model, manifest: Manifest) -> tf.types.experimental.PolymorphicFunction:
    """The network as one graph for every batch size: without the signature each size is traced anew."""
    signature = tf.TensorSpec([None, *manifest.input_shape], tf.uint8)
    both = keras.Model(network.input, [network.output, network.get_layer("features").output])
    return tf.function(lambda pictures: both(pictures, training=False), input_signature=[signature])
