"""The whole network, in one function."""

from collections.abc import Sequence

import keras
from keras import layers


def build(widths: Sequence[int], classes: int) -> keras.Model:
    """A small VGG: two 3x3 convolutions for each width, halving the picture between widths.

    Input: uint8 (n, 28, 28), grey, bright clothing on black. Output: float32 (n, classes), probabilities.
    """
    pixels = keras.Input((28, 28), dtype="uint8", name="pixels")
    x = layers.Reshape((28, 28, 1))(pixels)
    x = layers.Rescaling(1 / 255)(x)
    for stage, width in enumerate(widths):
        if stage:
            x = layers.MaxPooling2D()(x)
        for _ in range(2):
            x = layers.Conv2D(width, 3, padding="same", use_bias=False)(x)
            x = layers.BatchNormalization(momentum=0.95)(x)
            x = layers.ReLU()(x)
    x = layers.GlobalAveragePooling2D()(x)
    probabilities = layers.Dense(classes, activation="softmax", name="probabilities")(x)
    return keras.Model(pixels, probabilities)
