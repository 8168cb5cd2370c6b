"""Writes digits.keras, a small model to add, and two pictures for it, digit-3.png and digit-8.png.

They are made from the digits of scikit-learn (8 x 8 grey; E. Alpaydin and C. Kaynak, 1998, CC BY 4.0).
"""

from pathlib import Path

import keras
import numpy as np
from keras import layers
from PIL import Image
from sklearn.datasets import load_digits

HELD_OUT = 297
SHOWN = (3, 8)
EPOCHS = 40


def main() -> None:
    keras.utils.set_random_seed(1)
    digits = load_digits()
    pictures = (digits.images * (255 / 16)).round().astype(np.uint8)
    known, known_labels = pictures[:-HELD_OUT, ..., None], digits.target[:-HELD_OUT]
    others, others_labels = pictures[-HELD_OUT:, ..., None], digits.target[-HELD_OUT:]
    network = keras.Sequential(
        [
            layers.Input((8, 8, 1)),
            layers.Rescaling(1 / 255),
            layers.Conv2D(16, 3, activation="relu", padding="same"),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dropout(0.3),
            layers.Dense(10, activation="softmax"),
        ]
    )
    network.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    network.fit(known, known_labels, batch_size=32, epochs=EPOCHS, verbose=0)
    _, accuracy = network.evaluate(others, others_labels, verbose=0)
    print(f"{accuracy:.1%} of {HELD_OUT} pictures that it was not trained on")
    network = keras.Model(network.inputs, network.outputs)  # without the optimizer
    network.save(Path(__file__).with_name("digits.keras"))
    for digit in SHOWN:
        which = np.flatnonzero(others_labels == digit)
        surest = which[network.predict(others[which], verbose=0)[:, digit].argmax()]
        Image.fromarray(others[surest, ..., 0]).save(Path(__file__).with_name(f"digit-{digit}.png"))


if __name__ == "__main__":
    main()
