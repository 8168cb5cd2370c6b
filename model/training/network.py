"""The network: its layers, the merging of its members for serving, and the loss."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

import keras
import numpy as np
from keras import layers, ops
from numpy.typing import NDArray

from model import NetworkSettings
from model.runtimes import Probabilities
from model.training.dataset import Labels

Tensor = Any
Normalize = Callable[[], keras.Layer]
Targets = NDArray[np.float32]
"""(n, 2, classes): for each picture the one-hot label and the probabilities of the teacher."""


def to_train(
    settings: NetworkSettings, classes: int, normalize: Normalize = layers.BatchNormalization
) -> keras.Model:
    """One member, for training.

    Input: uint8 (n, 28, 28), grey, bright clothing on black. Output: logits, float32 (n, classes).
    """
    pixels = keras.Input((28, 28), dtype="uint8", name="pixels")
    return keras.Model(pixels, layers.Dense(classes, dtype="float32")(member(pixels, settings, normalize)))


def to_serve(
    settings: NetworkSettings, classes: int, trained: Sequence[keras.Model], temperature: float
) -> keras.Model:
    """Merges trained members: the softmax of their mean logits, divided by the temperature.

    The weights of the last layer include both divisions.
    """
    network = serving(settings, classes)
    # Keras sorts layers by depth, and layers of the same depth by creation: member by member.
    in_turn = chain.from_iterable(zip(*map(_trunk, trained), strict=True))
    for new, old in zip(_trunk(network), in_turn, strict=True):
        new.set_weights(old.get_weights())
    kernels, biases = zip(*(one.layers[-1].get_weights() for one in trained), strict=True)
    scale = 1 / (len(trained) * temperature)
    network.get_layer("probabilities").set_weights([np.concatenate(kernels) * scale, sum(biases) * scale])
    return network


def serving(
    settings: NetworkSettings, classes: int, normalize: Normalize = layers.BatchNormalization
) -> keras.Model:
    """The members side by side, with their concatenated features under one softmax.

    If mirrored, features are means over the picture and its mirror image. Input: as in to_train(). Output:
    probabilities, float32 (n, classes). The layer "features" outputs float32 (n, features).
    """
    pixels = keras.Input((28, 28), dtype="uint8", name="pixels")
    seen = ops.concatenate([pixels, ops.flip(pixels, axis=2)], axis=0) if settings.mirrored else pixels
    side_by_side = [member(seen, settings, normalize) for _ in range(settings.members)]
    if settings.mirrored:
        side_by_side = [ops.mean(ops.reshape(x, (2, -1, x.shape[1])), axis=0) for x in side_by_side]
    features = layers.Concatenate(name="features")(side_by_side)
    dense = layers.Dense(classes, "softmax", dtype="float32", name="probabilities")
    return keras.Model(pixels, dense(features))


def member(pixels: Tensor, settings: NetworkSettings, normalize: Normalize) -> Tensor:
    """The features of one member: (n, last width)."""
    x = layers.Reshape((28, 28, 1))(pixels)
    x = layers.Rescaling(1 / 255)(x)
    body = {"vgg": vgg, "resnet": resnet}[settings.kind]
    return layers.GlobalAveragePooling2D()(body(x, settings.widths, normalize))


def vgg(x: Tensor, widths: tuple[int, ...], normalize: Normalize) -> Tensor:
    """Two convolutions per width; pooling between widths halves the edges."""
    for stage, width in enumerate(widths):
        if stage:
            x = layers.MaxPooling2D()(x)
        x = convolution(convolution(x, width, normalize), width, normalize)
    return x


def resnet(x: Tensor, widths: tuple[int, ...], normalize: Normalize) -> Tensor:
    """A convolution; then per further width a convolution, pooling, and a residual block of two."""
    x = convolution(x, widths[0], normalize)
    for width in widths[1:]:
        x = layers.MaxPooling2D()(convolution(x, width, normalize))
        x = layers.Add()([x, convolution(convolution(x, width, normalize), width, normalize)])
    return x


def convolution(x: Tensor, width: int, normalize: Normalize) -> Tensor:
    """A 3x3 convolution, batch normalization, ReLU."""
    x = layers.Conv2D(width, 3, padding="same", use_bias=False)(x)
    return layers.ReLU()(normalize()(x))


def multiply_adds(network: keras.Model, settings: NetworkSettings) -> int:
    """The multiply-adds per picture in convolutions and dense layers."""
    views = {layers.Conv2D: 2 if settings.mirrored else 1, layers.Dense: 1}
    return sum(
        views[type(layer)]
        * int(np.prod(layer.kernel.shape))
        * int(np.prod(layer.output.shape[1:-1], dtype=int))
        for layer in network.layers
        if type(layer) in views
    )


def _trunk(network: keras.Model) -> Iterator[keras.Layer]:
    return (x for x in network.layers if isinstance(x, layers.Conv2D | layers.BatchNormalization))


class FusedBatchNormalization(layers.BatchNormalization):  # type: ignore[misc]
    """Batch normalization with TensorFlow's fused kernel, for training: same weights, same results.

    Keras 3 composes batch normalization from simple operations; the fused kernel halves the time of a step.
    On JAX, which fuses operations itself, this is Keras's layer.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        """Normalizes (n, height, width, channels)."""
        if keras.backend.backend() != "tensorflow":
            return super().call(inputs, training, mask)
        import tensorflow as tf

        gamma, beta = tf.cast(self.gamma, tf.float32), tf.cast(self.beta, tf.float32)
        if not training:
            mean, variance = tf.cast(self.moving_mean, tf.float32), tf.cast(self.moving_variance, tf.float32)
            return tf.compat.v1.nn.fused_batch_norm(
                inputs, gamma, beta, mean, variance, epsilon=self.epsilon, is_training=False
            )[0]
        normalized, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            inputs, gamma, beta, epsilon=self.epsilon, is_training=True
        )
        for moving, now in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + now * (1 - self.momentum))
        return normalized


@contextmanager
def precision(policy: str) -> Iterator[None]:
    """Sets the precision of layers created in the block; mixed_bfloat16 keeps weights in float32."""
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


class Objective(keras.losses.Loss):  # type: ignore[misc]
    """Hinton et al., arXiv 1503.02531: (1 - w) CE(truth, p) + w T^2 KL(teacher at T, p at T).

    y_true: Targets. y_pred: logits (n, classes).
    """

    def __init__(self, weight: float, temperature: float) -> None:
        super().__init__(name="objective")
        self._weight = weight
        self._temperature = temperature

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """The loss of each picture: (n,)."""
        truth, teacher = y_true[:, 0], y_true[:, 1]
        loss = (1 - self._weight) * _cross_entropy(truth, y_pred)
        if self._weight:
            t = self._temperature
            softened = ops.softmax(ops.log(teacher + 1e-8) / t)
            entropy = -ops.sum(softened * ops.log(softened + 1e-8), axis=-1)
            loss = loss + self._weight * t * t * (_cross_entropy(softened, y_pred / t) - entropy)
        return loss


def accuracy(y_true: Tensor, y_pred: Tensor) -> Tensor:
    """Whether each prediction is right: bool (n,). Takes the arguments of Objective.call()."""
    return ops.equal(ops.argmax(y_true[:, 0], axis=-1), ops.argmax(y_pred, axis=-1))


def targets(labels: Labels, classes: int, teacher: Probabilities | None) -> Targets:
    """The targets of pictures with these labels; without a teacher, the labels take its place."""
    truth = np.eye(classes, dtype=np.float32)[labels]
    return np.stack((truth, truth if teacher is None else teacher), axis=1)


def _cross_entropy(truth: Tensor, logits: Tensor) -> Tensor:
    return -ops.sum(truth * ops.log_softmax(logits, axis=-1), axis=-1)
