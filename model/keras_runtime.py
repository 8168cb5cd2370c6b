"""A classifier on Keras and TensorFlow: the reference that the export is compared with."""

from contextlib import suppress
from pathlib import Path

import keras
import tensorflow as tf

from model.arrays import Pictures, Probabilities
from model.manifest import Manifest, ModelError, verify


class KerasClassifier:
    """The .keras file of a model."""

    runtime = "keras"

    def __init__(self, weights_dir: Path, manifest: Manifest, threads: int) -> None:
        path = weights_dir / manifest.keras_file
        verify(path, manifest.keras_sha256)
        _use(threads)
        self.manifest = manifest
        self._forward = _forward(_open(path), manifest)

    def predict(self, pictures: Pictures) -> Probabilities:
        """See Classifier."""
        probabilities: Probabilities = self._forward(pictures).numpy()
        return probabilities


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
    return tf.function(lambda pictures: network(pictures, training=False), input_signature=[signature])
