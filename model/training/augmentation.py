"""Augments training pictures, uint8 (n, 28, 28). The random generator determines the result.

Besides shifts, mirror images and erased boxes, it makes pictures that look like cut-outs from phone photos,
with what the data set lacks: pairs of shoes in any direction and from above; clothes laid down askew,
stretched, slanted and unevenly lit; prints; leftover background; missing pieces.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from model import AugmentationSettings
from model.garment import Pictures
from model.training.dataset import Labels

SIDE = 28
LARGE = 64
SHOES = (5, 7, 9)
WIDEST = {1: 1.25, 3: 1.9}
"""How much wider trousers and dresses can be when laid down than on a model, by label."""
COMMON = np.array([1.6, 0.8, 0.8, 1.2, 0.9, 1.2, 0.6, 1.3, 0.4, 1.2])
"""How often people photograph each class, relative to the mean: it favours the likelier of two lookalikes."""

Random = np.random.Generator
Floats = NDArray[np.float64]


def augment(
    pictures: Pictures, labels: Labels, settings: AugmentationSettings, random: Random, *, erase: bool
) -> Pictures:
    """An augmented copy of each picture, in the same order; erase enables erased boxes."""
    varied = shift(pictures, settings.shift_pixels, random)
    if settings.flip:
        varied = flip(varied, random)
    if erase:
        varied = erase_boxes(varied, settings, random)
    chosen = random.random(len(pictures)) < settings.photo_share * COMMON[labels]
    if chosen.any():
        varied[chosen] = photo_like(pictures[chosen], labels[chosen], random)
    return varied


def shift(pictures: Pictures, pixels: int, random: Random) -> Pictures:
    """Shifts each picture by up to this many pixels in both directions; the gap is black."""
    count, height, width = pictures.shape
    padded = np.pad(pictures, ((0, 0), (pixels, pixels), (pixels, pixels)))
    top, left = random.integers(0, 2 * pixels + 1, (2, count))
    rows = top[:, None] + np.arange(height)
    columns = left[:, None] + np.arange(width)
    moved: Pictures = padded[np.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return moved


def flip(pictures: Pictures, random: Random) -> Pictures:
    """Mirrors about half of the pictures left to right."""
    mirrored = random.random(len(pictures)) < 0.5
    return np.where(mirrored[:, None, None], pictures[:, :, ::-1], pictures)


def erase_boxes(pictures: Pictures, settings: AugmentationSettings, random: Random) -> Pictures:
    """Covers a box of some pictures with a random grey (Zhong et al., Random Erasing, 2017)."""
    count, height, width = pictures.shape
    area = random.uniform(settings.erase_area_min, settings.erase_area_max, count) * height * width
    aspect = np.exp(random.uniform(np.log(0.3), np.log(1 / 0.3), count))
    rows = _span(np.sqrt(area * aspect), height, random)
    columns = _span(np.sqrt(area / aspect), width, random)
    box = rows[:, :, None] & columns[:, None, :] & (random.random((count, 1, 1)) < settings.erase_probability)
    grey = random.integers(0, 256, (count, 1, 1), dtype=np.uint8)
    return np.where(box, grey, pictures)


def _span(lengths: NDArray[np.float64], size: int, random: Random) -> NDArray[np.bool_]:
    """A mask of a range of each length at a random start: bool (n, size)."""
    covered = np.clip(lengths.round(), 1, size)
    start = np.floor(random.random(len(lengths)) * (size - covered + 1))
    places = np.arange(size)
    return (places >= start[:, None]) & (places < (start + covered)[:, None])


def photo_like(pictures: Pictures, labels: Labels, random: Random) -> Pictures:
    """Each picture as a cut-out from a photo might look."""
    pairs = zip(pictures, labels, strict=True)
    return np.stack([in_a_photo(picture, int(label), random) for picture, label in pairs])


def in_a_photo(picture: Pictures, label: int, random: Random) -> Pictures:
    """One picture as a cut-out from a photo might look: uint8 (28, 28)."""
    large = Image.fromarray(picture).resize((LARGE, LARGE), Image.Resampling.BICUBIC)
    shown = shoes(large, random) if label in SHOES else garment(large, label, random)
    values = np.asarray(fit(shown, random), dtype=np.float64)
    inside = values > 12
    values = relight(values, inside, random)
    values = damage(values, inside, random)
    soft = Image.fromarray(np.clip(values, 0, 255).astype(np.uint8))
    if random.random() < 0.15:
        soft = soft.filter(ImageFilter.GaussianBlur(random.uniform(0.2, 0.7)))
    elif random.random() < 0.7:
        soft = soft.filter(ImageFilter.UnsharpMask(1, int(random.integers(60, 250)), 0))
    return np.asarray(soft)


def shoes(shoe: Image.Image, random: Random) -> Image.Image:
    """One shoe or a pair, from the side or from above, in any direction but most often up or down."""
    side = shoe.crop(shoe.getbbox() or (0, 0, LARGE, LARGE))
    one = from_above(side, random) if random.random() < 0.55 else side
    one = stretch(one, random.uniform(0.7, 1.1), random.uniform(0.8, 1.35))
    shown = one if random.random() < 0.25 else pair(one, random)
    angle = random.choice((0, 90, 90, 90, 270, 270)) + random.normal(0, 15)
    return turn(shown, random.uniform(0, 360) if random.random() < 0.4 else angle)


def from_above(shoe: Image.Image, random: Random) -> Image.Image:
    """The side of a shoe and its mirror image, which have about the outline of a shoe from above."""
    width = max(2, round(shoe.width * random.uniform(0.36, 0.62) / 2))
    half = shoe.resize((shoe.width, width), Image.Resampling.BOX)
    both = Image.new("L", (shoe.width, 2 * width))
    both.paste(half, (0, 0))
    both.paste(half.transpose(Image.Transpose.FLIP_TOP_BOTTOM), (0, width))
    return both


def pair(shoe: Image.Image, random: Random) -> Image.Image:
    """The shoe twice, side by side: apart, touching or overlapping."""
    other = shoe.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if random.random() < 0.2 else shoe
    one, other = turn(shoe, random.normal(0, 5)), turn(other, random.normal(0, 8))
    along = round(random.normal(0, shoe.width * 0.08))
    apart = round(shoe.height * random.uniform(0.7, 1.3))
    lower, upper = (Image.new("L", (LARGE * 4, LARGE * 4)) for _ in range(2))
    lower.paste(other, (LARGE + along, LARGE + apart))
    upper.paste(one, (LARGE, LARGE))
    over, under = np.asarray(upper), np.asarray(lower)
    both = Image.fromarray(np.where(over > 12, over, under))
    return both.crop(both.getbbox() or (0, 0, LARGE, LARGE))


def garment(cloth: Image.Image, label: int, random: Random) -> Image.Image:
    """A garment laid down askew, wider or longer than on a model."""
    wider = random.uniform(0.85, WIDEST.get(label, 1.4))
    stretched = stretch(cloth, wider, random.uniform(0.85, 1.15))
    slanted = slant(stretched, random.normal(0, 0.08), random.normal(0, 0.08))
    angle = random.normal(0, 9)
    if random.random() < 0.1:
        angle += random.choice((90, 180, 270))
    return turn(slanted, angle)


def stretch(image: Image.Image, horizontally: float, vertically: float) -> Image.Image:
    size = max(1, round(image.width * horizontally)), max(1, round(image.height * vertically))
    return image.resize(size, Image.Resampling.BILINEAR)


def slant(image: Image.Image, across: float, along: float) -> Image.Image:
    width, height = image.size
    coefficients = (1, across, -across * height / 2, along, 1, -along * width / 2)
    return image.transform(image.size, Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR)


def turn(image: Image.Image, degrees: float) -> Image.Image:
    """Rotates a picture about its centre, without cutting anything off."""
    return image.rotate(degrees, Image.Resampling.BILINEAR, expand=True)


def fit(image: Image.Image, random: Random) -> Image.Image:
    """Centres what is not black in 28x28, with a longest edge of 22 to 28."""
    cut = image.crop(image.getbbox() or (0, 0, image.width, image.height))
    longest = SIDE if random.random() < 0.7 else int(random.integers(22, SIDE + 1))
    scale = longest / max(cut.size)
    width, height = max(1, round(cut.width * scale)), max(1, round(cut.height * scale))
    canvas = Image.new("L", (SIDE, SIDE))
    left, top = (int(random.integers((SIDE - e) // 2, (SIDE - e + 1) // 2 + 1)) for e in (width, height))
    canvas.paste(cut.resize((width, height), Image.Resampling.BOX), (left, top))
    return canvas


def relight(values: Floats, inside: NDArray[np.bool_], random: Random) -> Floats:
    """Changes fabric and light: brightness, contrast, folds, a print, grain."""
    if not inside.any():
        return values
    mean = values[inside].mean()
    contrast = random.uniform(0.2, 1.4)
    target = random.uniform(90, 245)
    values = np.where(inside, target + (values - mean) * contrast, 0)
    folds = smooth_noise(int(random.integers(2, 8)), random)
    values += inside * folds * random.uniform(0, 35)
    if random.random() < 0.3:
        values = np.where(inside & blob(random, 0.1, 0.4), random.uniform(20, 240), values)
    values += inside * random.normal(0, random.uniform(0, 14), values.shape)
    return np.where(inside, np.clip(values, 1, 255), 0)


def damage(values: Floats, inside: NDArray[np.bool_], random: Random) -> Floats:
    """Adds the errors of masks: missing pieces, a shadow taken for fabric, leftover background."""
    if random.random() < 0.15:
        values = np.where(smooth_noise(4, random) > random.uniform(1.0, 2.0), 0, values)
    if random.random() < 0.25:
        shade = ~inside & shadow(inside, random)
        values = np.where(shade, random.uniform(20, 130), values)
    if random.random() < 0.2:
        rest = ~inside & (smooth_noise(int(random.integers(3, 7)), random) > random.uniform(0.8, 1.8))
        values = np.where(rest, random.uniform(15, 200), values)
    return values


def shadow(inside: NDArray[np.bool_], random: Random) -> NDArray[np.bool_]:
    """The shape, widened by a blur and shifted a little: bool (28, 28)."""
    shape = Image.fromarray(inside.astype(np.uint8) * 255)
    right, down = random.normal(0, 1.5, 2).round()
    moved = shape.rotate(0, translate=(int(right), int(down)))
    wide = moved.filter(ImageFilter.GaussianBlur(random.uniform(1, 3)))
    covered: NDArray[np.bool_] = np.asarray(wide) > random.uniform(40, 120)
    return covered


def smooth_noise(cells: int, random: Random) -> Floats:
    """Smooth noise of about unit variance, with this many cells along each edge: (28, 28)."""
    coarse = Image.fromarray(random.normal(0, 1.3, (cells, cells)).astype(np.float32))
    return np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC), dtype=np.float64)


def blob(random: Random, smallest: float, largest: float) -> NDArray[np.bool_]:
    """A rectangle near the middle; smallest and largest are fractions of the edge: bool (28, 28)."""
    height, width = (random.uniform(smallest, largest, 2) * SIDE).round()
    middle_y, middle_x = random.normal(SIDE / 2, 3, 2)
    rows, columns = np.ogrid[:SIDE, :SIDE]
    covered: NDArray[np.bool_] = (abs(rows - middle_y) <= height / 2) & (abs(columns - middle_x) <= width / 2)
    return covered
