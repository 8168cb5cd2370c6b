"""Training pictures made to look like what is cut out of phone photos. uint8 (n, 28, 28) in and out.

What such photos have and the data set has not: shoes in pairs, pointing anywhere and at an angle; clothes
laid down askew, sleeves spread, folded and creased, in uneven light; prints; left-over background, pieces
missing.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from model.arrays import Labels, Pictures

SIDE = 28
LARGE = 64
SHOES = (5, 7, 9)
WIDEST = {1: 1.25, 3: 1.9}
"""How much wider than on a model trousers lie there, and dresses."""
COMMON = np.array([1.6, 0.8, 0.8, 1.2, 0.9, 1.2, 0.6, 1.3, 0.4, 1.2])
"""How often a label is photographed, 1 for the mean; what cannot be told apart is the more common one."""

Random = np.random.Generator
Floats = NDArray[np.float64]


def photo_like(pictures: Pictures, labels: Labels, random: Random) -> Pictures:
    """Each picture as a photo might have shown it."""
    pairs = zip(pictures, labels, strict=True)
    return np.stack([vary(picture, int(label), random) for picture, label in pairs])


def vary(picture: Pictures, label: int, random: Random) -> Pictures:
    """One picture, uint8 (28, 28)."""
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
    """One shoe or a pair, from the side or from above, pointing anywhere, most often up or down."""
    side = shoe.crop(shoe.getbbox() or (0, 0, LARGE, LARGE))
    one = from_above(side, random) if random.random() < 0.55 else side
    one = stretch(one, random.uniform(0.7, 1.1), random.uniform(0.8, 1.35))
    shown = one if random.random() < 0.25 else pair(one, random)
    angle = random.choice((0, 90, 90, 90, 270, 270)) + random.normal(0, 15)
    return turn(shown, random.uniform(0, 360) if random.random() < 0.4 else angle)


def from_above(shoe: Image.Image, random: Random) -> Image.Image:
    """A shoe's side and its mirror image along the sole: about as long and wide as one seen from above."""
    width = max(2, round(shoe.width * random.uniform(0.36, 0.62) / 2))
    half = shoe.resize((shoe.width, width), Image.Resampling.BOX)
    both = Image.new("L", (shoe.width, 2 * width))
    both.paste(half, (0, 0))
    both.paste(half.transpose(Image.Transpose.FLIP_TOP_BOTTOM), (0, width))
    return both


def pair(shoe: Image.Image, random: Random) -> Image.Image:
    """The shoe twice, beside each other: apart, touching, or one partly over the other."""
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
    """Laid down askew, wider or longer than on a model."""
    wider = random.uniform(0.85, WIDEST.get(label, 1.4))
    stretched = stretch(cloth, wider, random.uniform(0.85, 1.15))
    slanted = slant(stretched, random.normal(0, 0.08), random.normal(0, 0.08))
    angle = random.normal(0, 9)
    if random.random() < 0.1:
        angle += random.choice((90, 180, 270))
    return turn(slanted, angle)


def stretch(image: Image.Image, horizontally: float, vertically: float) -> Image.Image:
    """The picture, wider and higher by these factors."""
    size = max(1, round(image.width * horizontally)), max(1, round(image.height * vertically))
    return image.resize(size, Image.Resampling.BILINEAR)


def slant(image: Image.Image, across: float, along: float) -> Image.Image:
    """Sheared about the centre."""
    width, height = image.size
    coefficients = (1, across, -across * height / 2, along, 1, -along * width / 2)
    return image.transform(image.size, Image.Transform.AFFINE, coefficients, Image.Resampling.BILINEAR)


def turn(image: Image.Image, degrees: float) -> Image.Image:
    """Turned about the centre, nothing cut off."""
    return image.rotate(degrees, Image.Resampling.BILINEAR, expand=True)


def fit(image: Image.Image, random: Random) -> Image.Image:
    """What is not black, in 28x28, its longest edge 28 or a little less, about the middle."""
    cut = image.crop(image.getbbox() or (0, 0, image.width, image.height))
    longest = SIDE if random.random() < 0.7 else int(random.integers(22, SIDE + 1))
    scale = longest / max(cut.size)
    width, height = max(1, round(cut.width * scale)), max(1, round(cut.height * scale))
    canvas = Image.new("L", (SIDE, SIDE))
    canvas.paste(
        cut.resize((width, height), Image.Resampling.BOX), (_left(width, random), _left(height, random))
    )
    return canvas


def _left(edge: int, random: Random) -> int:
    """Where an edge of this length begins so that it is in the middle, give or take one pixel."""
    return int(random.integers((SIDE - edge) // 2, (SIDE - edge + 1) // 2 + 1))


def relight(values: Floats, inside: NDArray[np.bool_], random: Random) -> Floats:
    """Another cloth in another light: brightness, contrast, texture, folds, a print."""
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
    """What a mask does wrong: pieces missing, a shadow taken for cloth, pieces of background left."""
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
    """The shape, wider and moved a little: bool (28, 28)."""
    shape = Image.fromarray(inside.astype(np.uint8) * 255)
    right, down = random.normal(0, 1.5, 2).round()
    moved = shape.rotate(0, translate=(int(right), int(down)))
    wide = moved.filter(ImageFilter.GaussianBlur(random.uniform(1, 3)))
    covered: NDArray[np.bool_] = np.asarray(wide) > random.uniform(40, 120)
    return covered


def smooth_noise(cells: int, random: Random) -> Floats:
    """Noise of about unit variance, with so many hills along each edge: (28, 28)."""
    coarse = Image.fromarray(random.normal(0, 1.3, (cells, cells)).astype(np.float32))
    return np.asarray(coarse.resize((SIDE, SIDE), Image.Resampling.BICUBIC), dtype=np.float64)


def blob(random: Random, smallest: float, largest: float) -> NDArray[np.bool_]:
    """A rectangle about the middle; its edges as fractions of the picture."""
    height, width = (random.uniform(smallest, largest, 2) * SIDE).round()
    middle_y, middle_x = random.normal(SIDE / 2, 3, 2)
    rows, columns = np.ogrid[:SIDE, :SIDE]
    covered: NDArray[np.bool_] = (abs(rows - middle_y) <= height / 2) & (abs(columns - middle_x) <= width / 2)
    return covered
