"""Out-of-distribution sets, and how well a model's detector separates them from clothing.

Each set has a fixed seed, and comes from formulas or from data that scikit-image and scikit-learn contain;
nothing is downloaded. The detector learns from none of them.
"""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from model.classifier import Classifier
from model.ood import Scores
from model.preprocessing import PictureError, bright_on_black, prepare
from model.product import Pictures
from model.training.augmentation import SHOES, SIDE
from model.training.evaluate import auroc, in_batches
from model.training.figures import OodFigures

EACH = 250
TEXTURES = ("brick", "grass", "gravel")
PHOTOS = (
    "astronaut", "camera", "cat", "cell", "clock", "coffee", "coins", "hubble_deep_field",
    "immunohistochemistry", "moon", "page", "retina", "rocket", "text",
)  # fmt: skip

Random = np.random.Generator
Floats = NDArray[np.float64]


def measure(classifier: Classifier, clothing: Pictures) -> dict[str, OodFigures]:
    """The figures of each set, by name, against test pictures of clothing."""
    probabilities, scores = in_batches(classifier.predict, clothing)
    is_shoe = np.isin(probabilities.argmax(axis=1), SHOES)
    sets = far_from_clothing() | turned(clothing, is_shoe)
    return {
        name: figures(in_batches(classifier.predict, pictures)[1], scores) for name, pictures in sets.items()
    }


def figures(others: Scores, clothing: Scores) -> OodFigures:
    """The figures of a set with scores others. Neither argument may be empty."""
    return OodFigures(
        auroc=auroc(others, clothing),
        false_positive_rate=float((others <= 1).mean()),
        count=len(others),
    )


def far_from_clothing() -> dict[str, Pictures]:
    """The sets of other things, as the service would prepare them."""
    return {"digits": digits(), "noise": noise(), "textures": textures(), "photos": photos()}


def turned(pictures: Pictures, is_shoe: NDArray[np.bool_]) -> dict[str, Pictures]:
    """Every tenth picture, turned by 90, 180 and 270 degrees; shoes separately, as training turns them."""
    parts = {"turned clothes": pictures[~is_shoe][::10], "turned shoes": pictures[is_shoe][::10]}
    return {
        name: np.concatenate([np.rot90(part, quarters, (1, 2)) for quarters in (1, 2, 3)])
        for name, part in parts.items()
        if len(part)
    }


def digits() -> Pictures:
    """The 1,797 handwritten digits of scikit-learn, scaled to fill 28x28 as clothing does."""
    from sklearn.datasets import load_digits

    images = [Image.fromarray((image * (255 / 16)).astype(np.uint8)) for image in load_digits().images]
    cuts = [image.crop(image.getbbox()) for image in images]
    return np.stack([np.asarray(ImageOps.pad(cut, (SIDE, SIDE), Image.Resampling.BICUBIC)) for cut in cuts])


def noise() -> Pictures:
    """Uniform, Gaussian, salt-and-pepper and smooth noise, in equal numbers."""
    random = np.random.default_rng(2001)
    uniform = random.uniform(0, 256, (EACH, SIDE, SIDE))
    gaussian = random.normal(128, random.uniform(10, 80, (EACH, 1, 1)), (EACH, SIDE, SIDE))
    share = random.uniform(0.05, 0.5, (EACH, 1, 1))
    salt_and_pepper = (random.random((EACH, SIDE, SIDE)) < share) * 255
    smooth = np.stack([clouds(random) for _ in range(EACH)])
    return as_seen(np.concatenate((uniform, gaussian, salt_and_pepper, smooth)))


def clouds(random: Random) -> Floats:
    """Smooth noise over all greys: (28, 28)."""
    cells = int(random.integers(3, 12))
    coarse = Image.fromarray(random.random((cells, cells)).astype(np.float32))
    return 255 * stretched(np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC), float))


def textures() -> Pictures:
    """Stripes, checks and gradients, and pieces of scikit-image's brick, grass and gravel."""
    random = np.random.default_rng(2002)
    drawn = [draw(random) for draw in (stripes, checks, gradient) for _ in range(EACH)]
    pieces = (piece.convert("L").resize((SIDE, SIDE)) for piece in crops(TEXTURES, random, 28, 200))
    return as_seen(np.stack([*drawn, *(np.asarray(piece) for piece in pieces)]))


def stripes(random: Random) -> Floats:
    """A sine wave in any direction, with a period of 3 to 14 pixels: (28, 28)."""
    waves = ramp(random) * SIDE / random.uniform(3, 14) + random.random()
    return np.asarray(127.5 + random.uniform(30, 127) * np.sin(2 * np.pi * waves))


def checks(random: Random) -> Floats:
    """A checkerboard in two greys, with squares 2 to 9 pixels wide: (28, 28)."""
    width, shift = random.integers(2, 10), random.integers(0, 10)
    fields = (np.arange(SIDE) + shift) // width
    return np.asarray(random.uniform(0, 255, 2)[(fields[:, None] + fields) % 2])


def gradient(random: Random) -> Floats:
    """A gradient from one grey to another, in any direction: (28, 28)."""
    return stretched(ramp(random)) * random.uniform(60, 135) + random.uniform(0, 120)


def ramp(random: Random) -> Floats:
    """The position of each pixel along a random direction, in widths of the picture: (28, 28)."""
    angle = random.uniform(0, 2 * np.pi)
    rows, columns = np.mgrid[:SIDE, :SIDE] / SIDE
    return np.asarray(rows * np.sin(angle) + columns * np.cos(angle))


def stretched(values: Floats) -> Floats:
    """The values scaled to 0 to 1."""
    return np.asarray((values - values.min()) / np.ptp(values))


def photos() -> Pictures:
    """Crops of scikit-image's photos, prepared like uploads; those that would be refused are omitted."""
    return np.stack(list(prepared(crops(PHOTOS, np.random.default_rng(2003), 120, 300))))


def prepared(images: Iterable[Image.Image]) -> Iterator[Pictures]:
    """Prepares each usable picture."""
    for image in images:
        file = BytesIO()
        image.save(file, "PNG")
        with suppress(PictureError):
            yield prepare(file.getvalue(), max_pixels=image.width * image.height).pixels


def crops(names: tuple[str, ...], random: Random, smallest: int, largest: int) -> Iterator[Image.Image]:
    """Square crops of these pictures in skimage.data, with edges of smallest to largest pixels."""
    import skimage.data

    images = [Image.fromarray(getattr(skimage.data, name)()).convert("RGB") for name in names]
    for index in range(EACH * 2):
        image = images[index % len(images)]
        side = int(random.integers(smallest, min(largest, *image.size) + 1))
        left, top = (int(random.integers(0, edge - side + 1)) for edge in image.size)
        yield image.crop((left, top, left + side, top + side))


def as_seen(pictures: Floats) -> Pictures:
    """Clips values to 0 to 255, and inverts pictures with a bright border as the service does."""
    clipped = np.clip(pictures, 0, 255).astype(np.uint8)
    return np.stack([bright_on_black(picture) for picture in clipped])
