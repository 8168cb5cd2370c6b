"""The whole network, in one file."""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from model.settings import NetworkSettings

Tensor = Any
Normalize = Callable[[], keras.Layer]


def to_train(
    settings: NetworkSettings, classes: int, normalize: Normalize = layers.BatchNormalization
) -> keras.Model:
    """One member as it learns.

    Input: uint8 (n, 28, 28), grey, bright clothing on black. Output: logits, float32 (n, classes).
    """
    pixels = keras.Input((28, 28), dtype="uint8", name="pixels")
    return keras.Model(pixels, layers.Dense(classes, dtype="float32")(member(pixels, settings, normalize)))


def to_serve(
    settings: NetworkSettings,
    classes: int,
    trained: Sequence[keras.Model],
    temperature: float,
    normalize: Normalize = layers.BatchNormalization,
) -> keras.Model:
    """The trained members as they answer: the softmax of their mean logits over the temperature.

    Both are folded into the last layer.
    """
    network = serving(settings, classes, normalize)
    # Keras sorts layers by depth, and those of one depth as they were made: member after member.
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
    """The members' features side by side, under one softmax; if mirrored, the means of both pictures'.

    Input: as above. Output: float32 (n, classes), probabilities; the layer "features" has (n, features).
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
    """The features of one member, (n, last width)."""
    x = layers.Reshape((28, 28, 1))(pixels)
    x = layers.Rescaling(1 / 255)(x)
    body = {"vgg": vgg, "resnet": resnet}[settings.kind]
    return layers.GlobalAveragePooling2D()(body(x, settings.widths, normalize))


def vgg(x: Tensor, widths: tuple[int, ...], normalize: Normalize) -> Tensor:
    """Two convolutions for each width, halving the picture between widths."""
    for stage, width in enumerate(widths):
        if stage:
            x = layers.MaxPooling2D()(x)
        x = convolution(convolution(x, width, normalize), width, normalize)
    return x


def resnet(x: Tensor, widths: tuple[int, ...], normalize: Normalize) -> Tensor:
    """One convolution, then for each further width one more, halving the picture, and two with a bypass."""
    x = convolution(x, widths[0], normalize)
    for width in widths[1:]:
        x = layers.MaxPooling2D()(convolution(x, width, normalize))
        x = layers.Add()([x, convolution(convolution(x, width, normalize), width, normalize)])
    return x


def convolution(x: Tensor, width: int, normalize: Normalize) -> Tensor:
    """3x3, batch normalisation, ReLU."""
    x = layers.Conv2D(width, 3, padding="same", use_bias=False)(x)
    return layers.ReLU()(normalize()(x))


def multiply_adds(network: keras.Model, settings: NetworkSettings) -> int:
    """Multiplications with addition that one picture takes, in convolutions and dense layers."""
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
