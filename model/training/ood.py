"""Out-of-distribution detection: fitting a detector, and measuring it on pictures of other things."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps

from model.classifier import Classifier, Detector, Scores, Weights
from model.garment import Pictures
from model.preprocessing import PictureError, bright_on_black, prepare
from model.runtimes import Features
from model.training.augmentation import SHOES, SIDE, photo_like, smooth_noise
from model.training.augmentation import fit as fitted
from model.training.dataset import Labels
from model.training.evaluate import auroc, in_batches
from model.training.figures import OodFigures

SEED = 3001
TRAINING_PICTURES, OUTLIERS = 8000, 1500
"""The numbers of training pictures, each used as it is and as a photo, and of outliers of each kind."""
SHRINKAGE, RIDGE, STEPS = 0.01, 0.05, 12

EACH = 250
TEXTURES = ("brick", "grass", "gravel")
PHOTOS = (
    "astronaut", "camera", "cat", "cell", "clock", "coffee", "coins", "hubble_deep_field",
    "immunohistochemistry", "moon", "page", "retina", "rocket", "text",
)  # fmt: skip

Random = np.random.Generator
Floats = NDArray[np.float64]


def fit(
    features: Callable[[Pictures], Features], pictures: Pictures, labels: Labels, held_out: Pictures
) -> Detector:
    """Fits the detector for a network with these features; 95% of the held-out pictures pass it."""
    random = np.random.default_rng(SEED)
    chosen = random.permutation(len(pictures))[:TRAINING_PICTURES]
    pictures, labels = pictures[chosen], labels[chosen]
    plain = features(pictures)
    detector = space(plain, labels)
    photos = features(photo_like(pictures, labels, random))
    clothing = detector.measures(np.concatenate((plain, photos)))
    others = detector.measures(features(outliers(pictures, labels, OUTLIERS, random)))
    return calibrated(detector, separate(clothing, others), detector.measures(features(held_out)))


def space(features: Features, labels: Labels) -> Detector:
    """A detector that measures distances, with weights of 0."""
    exact, classes = features.astype(np.float64), np.unique(labels)
    means = np.stack([exact[labels == label].mean(axis=0) for label in classes])
    rest = exact - means[np.searchsorted(classes, labels)]
    variances, axes = np.linalg.eigh(rest.T @ rest / len(rest))
    whiten = axes / np.sqrt(variances + SHRINKAGE * variances.mean() + 1e-9)
    mean, weights = exact.mean(axis=0), np.zeros(exact.shape[1] + len(classes) + 2)
    arrays = mean, whiten, (means - mean) @ whiten, weights, 0
    return Detector(*(np.asarray(array, np.float32) for array in arrays))


def separate(clothing: Weights, others: Weights) -> Weights:
    """The weights (m,) of a logistic regression, fitted by Newton's method with balanced classes."""
    measures = np.concatenate((clothing, others)).astype(np.float64)
    centre, spread = measures.mean(axis=0), measures.std(axis=0) + 1e-6
    x = np.column_stack(((measures - centre) / spread, np.ones(len(measures))))
    truth = np.arange(len(x)) >= len(clothing)
    share = np.where(truth, 0.5 / len(others), 0.5 / len(clothing))
    weights = np.zeros(x.shape[1])
    for _ in range(STEPS):
        chance = 1 / (1 + np.exp(-np.clip(x @ weights, -30, 30)))
        slope = x.T @ (share * (chance - truth)) + RIDGE * weights
        curvature = (x.T * (share * chance * (1 - chance))) @ x + RIDGE * np.eye(len(weights))
        weights -= np.linalg.solve(curvature, slope)
    return np.asarray(weights[:-1] / spread, np.float32)


def calibrated(detector: Detector, weights: Weights, held_out: Weights) -> Detector:
    """Scales the weights so that half of the held-out pictures score 0 and 95% score at most 1."""
    middle, limit = np.quantile(held_out @ weights, (0.5, 0.95))
    scale = max(limit - middle, 1e-6)
    return detector._replace(
        weights=weights / np.float32(scale), bias=np.asarray(-middle / scale, np.float32)
    )


def outliers(pictures: Pictures, labels: Labels, each: int, random: Random) -> Pictures:
    """Pictures of something other than clothing, this many of each of five kinds.

    The kinds are pieces of garments, halves of two combined, and drawn shapes, every second of these as in
    photos; turned clothes; and noise.
    """
    one, other = random.integers(0, len(pictures), (2, each))
    pieces = [piece(pictures[i], random) for i in one]
    halves = [np.vstack((pictures[i][:14], pictures[j][14:])) for i, j in zip(one, other, strict=True)]
    shapes = [shape(random) for _ in range(each)]
    made = np.stack([*pieces, *halves, *shapes])
    kinds = np.concatenate((labels[one], labels[one], np.full(each, 3, labels.dtype)))
    made[::2] = photo_like(made[::2], kinds[::2], random)
    garments = pictures[~np.isin(labels, SHOES)][:each]
    turned = [np.rot90(garment, int(random.integers(1, 4))) for garment in garments]
    return np.stack([*made, *turned, *(grain(random) for _ in range(each))])


def piece(picture: Pictures, random: Random) -> Pictures:
    """A third to two thirds of a garment, enlarged to the size of a whole one."""
    height = int(random.integers(9, 19))
    top = random.choice((0, (SIDE - height) // 2, SIDE - height))
    cut = picture[:, top : top + height] if random.random() < 0.35 else picture[top : top + height]
    return np.asarray(fitted(Image.fromarray(np.ascontiguousarray(cut)), random))


def shape(random: Random) -> Pictures:
    """One to three ellipses, polygons or polylines, each in one grey."""
    canvas = Image.new("L", (3 * SIDE, 3 * SIDE))
    draw = ImageDraw.Draw(canvas)
    for _ in range(random.integers(1, 4)):
        points = [tuple(point) for point in random.uniform(8, 3 * SIDE - 8, (random.integers(3, 7), 2))]
        grey, kind = int(random.integers(60, 256)), random.integers(3)
        if kind == 0:
            draw.ellipse((*np.minimum(*points[:2]), *np.maximum(*points[:2])), fill=grey)
        elif kind == 1:
            draw.polygon(points, fill=grey)
        else:
            draw.line(points, fill=grey, width=int(random.integers(4, 13)), joint="curve")
    return np.asarray(fitted(canvas, random))


def grain(random: Random) -> Pictures:
    """Smooth noise of any scale with grain, in all greys or in two."""
    hills = smooth_noise(int(random.integers(2, SIDE)), random) * random.uniform(10, 120)
    values = 128 + hills + random.normal(0, random.uniform(0, 50), (SIDE, SIDE))
    if random.random() < 0.3:
        values = np.where(values > random.uniform(80, 180), random.uniform(150, 255), 0)
    return np.clip(values, 0, 255).astype(np.uint8)


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
