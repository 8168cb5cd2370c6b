"""Pictures of things that the model was never shown, and how well its detector tells them from clothing.

Every set is built with a seed of its own, from formulas and from what scikit-image and scikit-learn bring
with them; nothing is downloaded. model.training.ood_fit learns from none of them.
"""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from io import BytesIO

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from model.arrays import Pictures, Scores
from model.classifier import Classifier, in_batches
from model.preprocessing import PictureError, bright_on_black, prepare
from model.training.photo_like import SHOES, SIDE

EACH = 250
TEXTURES = ("brick", "grass", "gravel")
PHOTOS = (
    "astronaut", "camera", "cat", "cell", "clock", "coffee", "coins", "hubble_deep_field",
    "immunohistochemistry", "moon", "page", "retina", "rocket", "text",
)  # fmt: skip

Random = np.random.Generator
Floats = NDArray[np.float64]


class OodFigures(msgspec.Struct, frozen=True, kw_only=True):
    """How one set of strangers fares against the in-distribution pictures.

    auroc is the chance that a stranger scores above a picture of clothing. false_positive_rate is the share
    of strangers that pass, scoring 1 or less. count is how many strangers there are.
    """

    auroc: float
    false_positive_rate: float
    count: int


class OodSetsError(Exception):
    """The sets cannot be built; the message says what to do."""


def measure(classifier: Classifier, in_distribution: Pictures) -> dict[str, OodFigures]:
    """The figures of every set of strangers() and turned(), by its name; in_distribution: the test pictures.

    Raises OodSetsError where scikit-image or scikit-learn is missing.
    """
    found = in_batches(classifier, in_distribution)
    is_shoe = np.isin(found.probabilities.argmax(axis=1), SHOES)
    sets = strangers() | turned(in_distribution, is_shoe)
    return {
        name: figures(in_batches(classifier, pictures).ood_scores, found.ood_scores)
        for name, pictures in sets.items()
    }


def figures(strangers: Scores, clothing: Scores) -> OodFigures:
    """The figures of strangers with these scores. Neither may be empty."""
    return OodFigures(
        auroc=auroc(strangers, clothing),
        false_positive_rate=float((strangers <= 1).mean()),
        count=len(strangers),
    )


def auroc(positives: Scores, negatives: Scores) -> float:
    """The chance that a positive scores above a negative, equal scores counting half: a Mann-Whitney U."""
    ordered = np.sort(negatives)
    below = np.searchsorted(ordered, positives, "left") + np.searchsorted(ordered, positives, "right")
    return float(below.mean() / (2 * len(negatives)))


def strangers() -> dict[str, Pictures]:
    """The sets that are far from clothing, as the service would show them to the network.

    Raises OodSetsError.
    """
    try:
        return {"digits": digits(), "noise": noise(), "textures": textures(), "photos": photos()}
    except ImportError as error:
        raise OodSetsError(f"{error}. Run: pip install scikit-image scikit-learn") from error


def turned(pictures: Pictures, is_shoe: NDArray[np.bool_]) -> dict[str, Pictures]:
    """Every tenth picture, turned by 90, 180 and 270 degrees: shoes apart, as they are trained turned."""
    parts = {"turned clothes": pictures[~is_shoe][::10], "turned shoes": pictures[is_shoe][::10]}
    return {
        name: np.concatenate([np.rot90(part, quarters, (1, 2)) for quarters in (1, 2, 3)])
        for name, part in parts.items()
        if len(part)
    }


def digits() -> Pictures:
    """The 1,797 handwritten digits of scikit-learn, fitted into 28x28 as the clothing is."""
    from sklearn.datasets import load_digits

    images = [Image.fromarray((image * (255 / 16)).astype(np.uint8)) for image in load_digits().images]
    cuts = [image.crop(image.getbbox()) for image in images]
    return np.stack([np.asarray(ImageOps.pad(cut, (SIDE, SIDE), Image.Resampling.BICUBIC)) for cut in cuts])


def noise() -> Pictures:
    """Uniform, gaussian, salt and pepper, and smooth noise, as many of each."""
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


def stretched(values: Floats) -> Floats:
    """From 0 to 1."""
    return np.asarray((values - values.min()) / np.ptp(values))


def textures() -> Pictures:
    """Stripes, checks and gradients, and pieces of scikit-image's brick, grass and gravel."""
    random = np.random.default_rng(2002)
    drawn = [draw(random) for draw in (stripes, checks, gradient) for _ in range(EACH)]
    pieces = (piece.convert("L").resize((SIDE, SIDE)) for piece in crops(TEXTURES, random, 28, 200))
    return as_seen(np.stack([*drawn, *(np.asarray(piece) for piece in pieces)]))


def stripes(random: Random) -> Floats:
    """A sine wave in any direction, 3 to 14 pixels long: (28, 28)."""
    waves = ramp(random) * SIDE / random.uniform(3, 14) + random.random()
    return np.asarray(127.5 + random.uniform(30, 127) * np.sin(2 * np.pi * waves))


def checks(random: Random) -> Floats:
    """A chessboard in two greys, its fields 2 to 9 pixels wide: (28, 28)."""
    width, shift = random.integers(2, 10), random.integers(0, 10)
    fields = (np.arange(SIDE) + shift) // width
    return np.asarray(random.uniform(0, 255, 2)[(fields[:, None] + fields) % 2])


def gradient(random: Random) -> Floats:
    """From one grey to another, in any direction: (28, 28)."""
    return stretched(ramp(random)) * random.uniform(60, 135) + random.uniform(0, 120)


def ramp(random: Random) -> Floats:
    """How far each pixel lies in a random direction, in widths of the picture: (28, 28)."""
    angle = random.uniform(0, 2 * np.pi)
    rows, columns = np.mgrid[:SIDE, :SIDE] / SIDE
    return np.asarray(rows * np.sin(angle) + columns * np.cos(angle))


def photos() -> Pictures:
    """Pieces of scikit-image's photos, prepared as an upload is; those that would be refused are left out."""
    return np.stack(list(prepared(crops(PHOTOS, np.random.default_rng(2003), 120, 300))))


def prepared(images: Iterable[Image.Image]) -> Iterator[Pictures]:
    """What the network would see of each picture that can be used."""
    for image in images:
        file = BytesIO()
        image.save(file, "PNG")
        with suppress(PictureError):
            yield prepare(file.getvalue(), max_pixels=image.width * image.height).pixels


def crops(names: tuple[str, ...], random: Random, smallest: int, largest: int) -> Iterator[Image.Image]:
    """Square pieces of these pictures of skimage.data, their edges so many pixels."""
    import skimage.data

    images = [Image.fromarray(getattr(skimage.data, name)()).convert("RGB") for name in names]
    for index in range(EACH * 2):
        image = images[index % len(images)]
        side = int(random.integers(smallest, min(largest, *image.size) + 1))
        left, top = (int(random.integers(0, edge - side + 1)) for edge in image.size)
        yield image.crop((left, top, left + side, top + side))


def as_seen(pictures: Floats) -> Pictures:
    """Grey values cut to 0..255, negated where the border is bright, as happens to every 28x28 picture."""
    clipped = np.clip(pictures, 0, 255).astype(np.uint8)
    return np.stack([bright_on_black(picture) for picture in clipped])
