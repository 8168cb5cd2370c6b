"""Pictures of clothing become like those of Fashion-MNIST: 28 x 28, grey, bright on black.

A product picture on a plain, bright background is prepared as the authors of the data set did: trim, scale
the longest edge to 28, sharpen, centre, invert, convert to grey (arXiv 1708.07747, section 2). From a photo
on any other background, the garment is cut out first.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

SIDE = 28
TRIM_DISTANCE = 0.05 * 255 * 3**0.5
BRIGHT = 180
PLAIN_SHARE = 0.97
# ImageMagick's -adaptive-sharpen 1x1, as a 3x3 kernel.
SHARPEN = ImageFilter.Kernel(
    (3, 3), (-0.062, -0.103, -0.062, -0.103, 1.662, -0.103, -0.062, -0.103, -0.062), scale=1.002
)

Pictures = NDArray[np.uint8]
"""(n, 28, 28) or (28, 28): grey, bright clothing on black. Before preparation: (h, w), or RGB (h, w, 3)."""

Box = tuple[int, int, int, int]
"""Left, top, right, bottom."""


def as_the_authors_did(image: Image.Image, box: Box | None) -> Pictures:
    """Prepares an RGB picture, trimmed to box if there is one: uint8 (28, 28)."""
    small = fit(image.crop(box) if box else image, "white")
    return 255 - np.asarray(small.filter(SHARPEN).convert("L"))


def trim_box(colours: Pictures) -> Box | None:
    """The bounding box of the pixels that differ from the corners of an RGB picture; None if none does."""
    return box_around(distance(colours, corner_colour(colours)) > TRIM_DISTANCE)


def box_around(mask: NDArray[np.bool_]) -> Box | None:
    """The bounding box of a mask, bool (h, w); None if it is empty."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return None
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def distance(colours: Pictures, reference: NDArray[np.float32]) -> NDArray[np.float32]:
    """The Euclidean distances of RGB colours (..., 3) from a reference (3,): (...), from 0 to 442."""
    difference = colours - reference
    return np.asarray(np.sqrt((difference * difference).sum(axis=-1)))


def corner_colour(colours: Pictures) -> NDArray[np.float32]:
    """The median colour of the four corners: float32 (3,)."""
    corners = colours[[0, 0, -1, -1], [0, -1, 0, -1]]
    return np.asarray(np.median(corners, axis=0), dtype=np.float32)


def on_plain_ground(colours: Pictures) -> bool:
    """Whether the border of an RGB picture (h, w, 3) is bright and uniform, so that trimming works."""
    ground = corner_colour(colours)
    alike = distance(border(colours), ground) <= TRIM_DISTANCE
    return bool(ground.min() >= BRIGHT and alike.mean() >= PLAIN_SHARE)


def border(values: NDArray[Any]) -> NDArray[Any]:
    """The outermost pixels of an array (h, w, ...): (2h + 2w - 4, ...)."""
    return np.concatenate((values[0], values[-1], values[1:-1, 0], values[1:-1, -1]))


def fit(image: Image.Image, ground: str) -> Image.Image:
    """The picture scaled to a longest edge of 28, centred on 28x28 pixels of the colour ground."""
    scale = SIDE / max(image.size)
    width, height = (max(1, round(edge * scale)) for edge in image.size)
    canvas = Image.new(image.mode, (SIDE, SIDE), ground)
    small = image.resize((width, height), Image.Resampling.BOX)
    canvas.paste(small, ((SIDE - width) // 2, (SIDE - height) // 2))
    return canvas


Mask = NDArray[np.bool_]

Floats = NDArray[np.float32]
"""(h, w), unless stated otherwise."""

COLOURS = 64
LIGHTNESS_WEIGHT = 0.4  # shadows mostly change lightness
ALIKE = 8.0  # about the distance in Lab at which the likeness of two colours is one half
COLOUR_WEIGHT = 2.0
PLACE_WEIGHTS = (1.0, 0.3)  # in the first round and in the last
ROUNDS = (3, 5)
LIMIT = 4.0
REACH = 0.35
REACH_PENALTY = 2.8
STEP_LIMIT = 10.0
LOST = 0.45  # if the second pass keeps less than this, it removed the garment rather than the background

# From linear sRGB to XYZ (IEC 61966-2-1), relative to the white point D65.
XYZ = np.array(
    [[0.43395, 0.37622, 0.18983], [0.21267, 0.71515, 0.07217], [0.01776, 0.10947, 0.87277]], np.float32
)

MASK_SIDE = 128
SMALLEST_REGION = 0.15  # relative to the largest; keeps the second shoe of a pair
SMALLEST_SHARE, LARGEST_SHARE = 0.02, 0.95
LARGEST_BORDER_SHARE = 0.75
DOUBTFUL_OVERLAP, HOPELESS_OVERLAP = 0.4, 0.8
LEAST_EDGE = 8
OPAQUE = 128
SHAPE_OVERLAP = 0.97  # garments of the data set overlap their mirror images by 0.94 at most
LIFTED_MEDIAN = 125  # makes white clothes, which the data set lacks, as bright as its grey ones


def label(mask: Mask) -> NDArray[np.intp]:
    """Labels the 4-connected regions of a mask with numbers above 0; 0 outside: (h, w).

    Numbers the runs in each row; runs that touch take the smaller number, until nothing changes.
    """
    starts = mask.copy()
    starts[:, 1:] &= ~mask[:, :-1]
    runs = np.where(mask, starts.cumsum().reshape(mask.shape), 0)
    touching = mask[:-1] & mask[1:]
    above, below = runs[:-1][touching], runs[1:][touching]
    number = np.arange(runs.max() + 1)
    while not np.array_equal(number[above], number[below]):
        one, other = number[above], number[below]
        np.minimum.at(number, np.maximum(one, other), np.minimum(one, other))
        number = number[number]
    return number[runs]


def without_small_regions(mask: Mask, share: float) -> Mask:
    """The mask without regions that have less than this share of the pixels of the largest."""
    numbers = label(mask)
    sizes = np.bincount(numbers.ravel())
    sizes[0] = 0
    kept: Mask = ((sizes >= share * sizes.max()) & (sizes > 0))[numbers]
    return kept


def without_holes(mask: Mask) -> Mask:
    """The mask with its holes filled."""
    outside = label(np.pad(~mask, 1, constant_values=True))
    filled: Mask = outside[1:-1, 1:-1] != outside[0, 0]
    return filled


def smooth(mask: Mask) -> Mask:
    """The mask without specks (3x3 opening), then without cracks (5x5 closing)."""
    return shrunk(grown(grown(shrunk(mask, 1), 1), 2), 2)


def grown(mask: Mask, radius: int) -> Mask:
    """The mask dilated by a square of 2 * radius + 1 pixels."""
    return np.asarray(box_mean(mask, radius) > 0)


def shrunk(mask: Mask, radius: int) -> Mask:
    """The mask eroded by a square of 2 * radius + 1 pixels."""
    return np.asarray(box_mean(mask, radius) == 255)


def box_mean(mask: Mask, radius: int) -> NDArray[np.uint8]:
    """The mean of the mask, as 0 or 255, over the square around each pixel."""
    image = Image.fromarray(mask.astype(np.uint8) * 255)
    return np.asarray(image.filter(ImageFilter.BoxBlur(radius)))


class Palette(NamedTuple):
    """The k colours of a quantized picture."""

    indices: NDArray[np.uint8]
    """(h, w): the index of each pixel's colour."""
    likeness: NDArray[np.float64]
    """(k, k): how alike two colours are, from 0 to 1."""


def garment_probability(image: Image.Image) -> Floats:
    """The probability that each pixel of an RGB picture is garment, from colour, place and edges: (h, w).

    Starts from a guess by place (the middle is garment, the border is background), then alternately estimates
    the colours of garment and background from the guess and the guess from the colours: GrabCut (Rother,
    Kolmogorov, Blake 2004) with a blur instead of the graph cut. A second pass adds how much the colour
    changes on the way from the border (geodesic distance: Criminisi, Sharp, Blake 2008), which removes
    background that is lit differently near the garment. Evidence is in log-odds: positive for garment.
    """
    calm = image.filter(ImageFilter.GaussianBlur(1))
    palette = palette_of(calm)
    place = place_evidence(image.height, image.width)
    guess = refine(palette, place, np.zeros_like(place), ROUNDS[0])
    refined = refine(palette, place, edge_evidence(lab(np.asarray(calm)), guess), ROUNDS[1])
    lost = np.count_nonzero(refined > 0.5) < LOST * np.count_nonzero(guess > 0.5)
    return guess if lost else refined


def refine(palette: Palette, place: Floats, edges: Floats, rounds: int) -> Floats:
    """The probability after this many rounds, each of which gives less weight to place."""
    guess = logistic(place + edges)
    for weight in np.linspace(*PLACE_WEIGHTS, rounds, dtype=np.float32):
        colour = blur(colour_evidence(palette, guess)[palette.indices])
        guess = logistic(COLOUR_WEIGHT * colour + weight * place + edges)
    return guess


def logistic(evidence: Floats) -> Floats:
    """Converts log-odds to probabilities."""
    return np.asarray(1 / (1 + np.exp(-evidence)))


def palette_of(image: Image.Image) -> Palette:
    """Quantizes an RGB picture."""
    indexed = image.quantize(COLOURS, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    colours = lab(np.array(indexed.getpalette("RGB"), np.uint8).reshape(1, -1, 3))[0]
    distance = ((colours[:, None] - colours) ** 2).sum(axis=2, dtype=np.float64)
    return Palette(np.asarray(indexed), np.exp(-distance / (2 * ALIKE**2)))


def lab(rgb: Pictures) -> Floats:
    """Converts sRGB bytes (h, w, 3) to CIE L*a*b* with a weighted L*: float32 (h, w, 3)."""
    value = np.arange(256, dtype=np.float32) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    xyz = linear[rgb] @ XYZ.T
    x, y, z = np.moveaxis(np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116), 2, 0)
    return np.stack(
        (LIGHTNESS_WEIGHT * (116 * y - 16), 500 * (x - y), 200 * (y - z)), axis=2, dtype=np.float32
    )


def place_evidence(height: int, width: int) -> Floats:
    """Evidence by place: positive inside a rounded rectangle of 72 % of each edge, negative outside."""
    row, column = (np.abs((np.arange(edge) + 0.5) / edge * 2 - 1) for edge in (height, width))
    outwards = (row[:, None] ** 4 + column**4) ** 0.25
    return np.asarray(np.clip(8 * (0.72 - outwards), -LIMIT, LIMIT), dtype=np.float32)


def colour_evidence(palette: Palette, guess: Floats) -> Floats:
    """How much more frequent each colour, with similar ones, is in the garment than outside: (k,)."""
    indices, colours = palette.indices.ravel(), len(palette.likeness)
    inside = np.bincount(indices, guess.ravel(), colours)
    outside = np.bincount(indices, minlength=colours) - inside
    garment, ground = (
        counts / counts.sum() for counts in (palette.likeness @ inside, palette.likeness @ outside)
    )
    evidence = np.log((garment + 1e-3) / (ground + 1e-3))
    return np.asarray(np.clip(evidence, -LIMIT, LIMIT), dtype=np.float32)


def blur(values: Floats) -> Floats:
    """The mean over the 5x5 pixels around each pixel."""
    height, width = values.shape
    padded = np.pad(values, 2, mode="edge")
    rows = np.add.reduce([padded[start : start + height] for start in range(5)])
    return np.asarray(np.add.reduce([rows[:, start : start + width] for start in range(5)]) / np.float32(25))


def edge_evidence(colours: Floats, guess: Floats) -> Floats:
    """Evidence by edges: negative where Lab colours (h, w, 3) hardly change on the way from the border."""
    seeds = np.ones(guess.shape, bool)
    seeds[1:-1, 1:-1] = False
    distance = geodesic_distance(colours, seeds & (guess < 0.5))
    typical = (distance * guess).sum() / guess.sum()
    return np.asarray(
        REACH_PENALTY * np.clip(distance / (REACH * typical + 1e-6) - 1, -1, 0), dtype=np.float32
    )


def geodesic_distance(colours: Floats, seeds: NDArray[np.bool_]) -> Floats:
    """The smallest sum of colour steps on a path from a seed to each pixel, by sweeps over rows and columns.

    Steps as small as those of the texture count as 0. Two sweeps in each direction find nearly all shortest
    paths.
    """
    down, across = (np.sqrt((np.diff(colours, axis=axis) ** 2).sum(axis=2)) for axis in (0, 1))
    texture = 1.5 * np.median(np.concatenate((down.ravel(), across.ravel())))
    down, across = (np.clip(steps - texture, 0, STEP_LIMIT) for steps in (down, across))
    distance = np.where(seeds, 0, 1e4).astype(np.float32)
    for _ in range(2):
        sweep(distance, down)
        turned = np.ascontiguousarray(distance.T)
        sweep(turned, np.ascontiguousarray(across.T))
        distance = np.ascontiguousarray(turned.T)
    return distance


def sweep(distance: Floats, steps: Floats) -> None:
    """Shortens the distances (h, w) in place, down and up the columns, over these steps (h - 1, w)."""
    for row in range(1, len(distance)):
        np.minimum(distance[row], distance[row - 1] + steps[row - 1], out=distance[row])
    for row in range(len(distance) - 2, -1, -1):
        np.minimum(distance[row], distance[row + 1] + steps[row], out=distance[row])


def cut_out(image: Image.Image) -> tuple[Pictures, bool]:
    """Cuts the garment out of an RGB photo: uint8 (28, 28), and whether the background is separable.

    If the garment cannot be found at all, the middle of the photo takes its place.
    """
    small = image.copy()
    small.thumbnail((MASK_SIDE, MASK_SIDE), Image.Resampling.BOX)
    mask = garment_mask(small)
    alike = colour_overlap(small, mask) if plausible(mask) else 1.0
    if alike > HOPELESS_OVERLAP:
        mask = place_evidence(small.height, small.width) > 0
    return cut_out_by(mask, small), alike <= DOUBTFUL_OVERLAP


def garment_mask(image: Image.Image) -> Mask:
    """The garment in an RGB photo: bool (h, w); empty if the photo is too small to tell."""
    if min(image.size) < LEAST_EDGE:
        return np.zeros((image.height, image.width), bool)
    likely = garment_probability(image) > 0.5
    return without_holes(without_small_regions(smooth(likely), SMALLEST_REGION))


def plausible(mask: Mask) -> bool:
    """Whether a mask may be a garment: neither empty nor full, and not on most of the border."""
    share, border_share = mask.mean(), border(mask).mean()
    return bool(SMALLEST_SHARE <= share <= LARGEST_SHARE and border_share <= LARGEST_BORDER_SHARE)


def is_cut_out(opacity: Pictures) -> bool:
    """Whether the opaque pixels of uint8 (h, w), 0 to 255, may be a garment without its background.

    They are not if they are nearly none, nearly all, or a symmetric shape such as a circle or a card.
    """
    mask = opacity >= OPAQUE
    if not SMALLEST_SHARE <= mask.mean() <= LARGEST_SHARE:
        return False
    left, top, right, bottom = box_around(mask) or (0, 0, 0, 0)
    shape = mask[top:bottom, left:right]
    overlaps = (
        np.count_nonzero(shape & mirrored) / np.count_nonzero(shape | mirrored)
        for mirrored in (shape[::-1], shape[:, ::-1])
    )
    return bool(min(overlaps) < SHAPE_OVERLAP)


def colour_overlap(image: Image.Image, mask: Mask) -> float:
    """The overlap of the colour histograms inside and outside the mask, from 0 to 1."""
    colours = np.asarray(image.quantize(64, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE))
    inside, outside = (np.bincount(colours[part], minlength=64) for part in (mask, ~mask))
    return float(np.minimum(inside / inside.sum(), outside / outside.sum()).sum())


def cut_out_by(mask: Mask, image: Image.Image) -> Pictures:
    """The pixels of a mask that is not empty, inverted, brightened and fitted into 28x28: uint8 (28, 28)."""
    darkness = 255 - np.asarray(image.convert("L")).astype(np.float32)
    visible = np.maximum(lifted(darkness, darkness[mask]), 1)
    garment = Image.fromarray(np.where(mask, visible, 0).astype(np.uint8))
    return np.asarray(fit(garment.crop(box_around(mask)), "black").filter(SHARPEN))


def lifted(values: NDArray[np.float32], garment: NDArray[np.float32]) -> NDArray[np.float32]:
    """Brightens values from 0 to 255 if the median of the garment is low; 255 stays 255."""
    median = float(np.median(garment))
    if median >= LIFTED_MEDIAN:
        return values
    return 255 - (255 - values) * np.float32((255 - LIFTED_MEDIAN) / (255 - median))
