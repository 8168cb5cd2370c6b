"""The whole network, in one file."""

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
from keras import layers

from model.settings import NetworkSettings

Tensor = Any
Normalize = Callable[[], keras.Layer]


def to_train(
    settings: NetworkSettings, classes: int, normalize: Normalize = layers.BatchNormalization
) -> keras.Model:
    """The network as it learns: every member has logits of its own.

    Input: uint8 (n, 28, 28), grey, bright clothing on black. Output: float32 (n, members, classes).
    """
    pixels = keras.Input((28, 28), dtype="uint8", name="pixels")
    logits = [
        layers.Reshape((1, classes), dtype="float32")(layers.Dense(classes, dtype="float32")(x))
        for x in members(pixels, settings, normalize)
    ]
    return keras.Model(pixels, layers.Concatenate(axis=1, dtype="float32")(logits))


def to_serve(
    settings: NetworkSettings, classes: int, trained: keras.Model, temperature: float
) -> keras.Model:
    """The trained network as it answers: the softmax of the members' mean logits over the temperature.

    Both are folded into the last layer.
    """
    network = serving(settings, classes)
    for new, old in zip(_trunk(network), _trunk(trained), strict=True):
        new.set_weights(old.get_weights())
    kernels, biases = zip(*(layer.get_weights() for layer in _dense(trained)), strict=True)
    scale = 1 / (settings.members * temperature)
    network.get_layer("probabilities").set_weights([np.concatenate(kernels) * scale, sum(biases) * scale])
    return network


def serving(
    settings: NetworkSettings, classes: int, normalize: Normalize = layers.BatchNormalization
) -> keras.Model:
    """The members' features side by side, under one softmax.

    Input: as above. Output: float32 (n, classes), probabilities; the layer "features" has (n, features).
    """
    pixels = keras.Input((28, 28), dtype="uint8", name="pixels")
    features = layers.Concatenate(name="features")(members(pixels, settings, normalize))
    dense = layers.Dense(classes, "softmax", dtype="float32", name="probabilities")
    return keras.Model(pixels, dense(features))


def members(pixels: Tensor, settings: NetworkSettings, normalize: Normalize) -> list[Tensor]:
    """The features of each member, (n, last width)."""
    x = layers.Reshape((28, 28, 1))(pixels)
    x = layers.Rescaling(1 / 255)(x)
    body = {"vgg": vgg, "resnet": resnet}[settings.kind]
    return [
        layers.GlobalAveragePooling2D()(body(x, settings.widths, normalize)) for _ in range(settings.members)
    ]


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


def multiply_adds(network: keras.Model) -> int:
    """Multiplications with addition that one picture takes, in convolutions and dense layers."""
    return sum(
        int(np.prod(layer.kernel.shape)) * int(np.prod(layer.output.shape[1:-1], dtype=int))
        for layer in network.layers
        if isinstance(layer, layers.Conv2D | layers.Dense)
    )


def _trunk(network: keras.Model) -> Iterator[keras.Layer]:
    return (x for x in network.layers if isinstance(x, layers.Conv2D | layers.BatchNormalization))


def _dense(network: keras.Model) -> Iterator[keras.Layer]:
    return (layer for layer in network.layers if isinstance(layer, layers.Dense))
