"""A photo of clothes on any background: the garment cut out, bright on black, fitted into 28x28."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from model.product import SHARPEN, Pictures, border, box_around, fit

Mask = NDArray[np.bool_]

Floats = NDArray[np.float32]
"""(h, w), unless it says otherwise."""

COLOURS = 64
LIGHTNESS_WEIGHT = 0.4  # shadows change lightness most
ALIKE = 8.0  # the distance in Lab at which two colours are half alike, about
COLOUR_WEIGHT = 2.0
PLACE_WEIGHTS = (1.0, 0.3)  # at the first round and at the last
ROUNDS = (3, 5)
LIMIT = 4.0
REACH = 0.35
REACH_PENALTY = 2.8
STEP_LIMIT = 10.0
LOST = 0.45  # less than this left by the second pass: it took the garment away, not the ground

# XYZ of the sRGB primaries (IEC 61966-2-1), divided by the white point D65.
XYZ = np.array(
    [[0.43395, 0.37622, 0.18983], [0.21267, 0.71515, 0.07217], [0.01776, 0.10947, 0.87277]], np.float32
)

MASK_SIDE = 128
SMALLEST_REGION = 0.15  # of the largest: keeps the second shoe of a pair
SMALLEST_SHARE, LARGEST_SHARE = 0.02, 0.95
LARGEST_BORDER_SHARE = 0.75
DOUBTFUL_OVERLAP, HOPELESS_OVERLAP = 0.4, 0.8
LEAST_EDGE = 8
OPAQUE = 128
SHAPE_OVERLAP = 0.97  # of garments in the data set, with their mirror images: 0.94 at most
LIFTED_MEDIAN = 125  # white clothes, which the data set has not, become as bright as its grey ones


def label(mask: Mask) -> NDArray[np.intp]:
    """A number above 0 for every region, the same for all of its pixels; 0 outside: (h, w).

    The runs of every row are numbered; two that touch take the smaller number, until nothing changes.
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
    """Only the regions with at least this share of the largest one's pixels."""
    numbers = label(mask)
    sizes = np.bincount(numbers.ravel())
    sizes[0] = 0
    kept: Mask = ((sizes >= share * sizes.max()) & (sizes > 0))[numbers]
    return kept


def without_holes(mask: Mask) -> Mask:
    """With everything filled that the mask encloses."""
    outside = label(np.pad(~mask, 1, constant_values=True))
    filled: Mask = outside[1:-1, 1:-1] != outside[0, 0]
    return filled


def smooth(mask: Mask) -> Mask:
    """Without specks (3x3 opening), then without cracks (5x5 closing)."""
    return shrunk(grown(grown(shrunk(mask, 1), 1), 2), 2)


def grown(mask: Mask, radius: int) -> Mask:
    """With every pixel that has one of the mask's in the square around it (dilation)."""
    return np.asarray(box_mean(mask, radius) > 0)


def shrunk(mask: Mask, radius: int) -> Mask:
    """Only the pixels with nothing but the mask's in the square around them (erosion)."""
    return np.asarray(box_mean(mask, radius) == 255)


def box_mean(mask: Mask, radius: int) -> NDArray[np.uint8]:
    """The mean over the square around every pixel, 255 for the mask and 0 elsewhere."""
    image = Image.fromarray(mask.astype(np.uint8) * 255)
    return np.asarray(image.filter(ImageFilter.BoxBlur(radius)))


class Palette(NamedTuple):
    """The few colours of a picture."""

    indices: NDArray[np.uint8]
    """(h, w): which colour each pixel has."""
    likeness: NDArray[np.float64]
    """(k, k): how alike two colours are, 0 to 1."""


def garment_probability(image: Image.Image) -> Floats:
    """How likely each pixel of an RGB picture is garment, 0 to 1, from colour, place and edges: (h, w).

    Two colour models, of the garment and of the ground, are estimated from a first guess by place (the middle
    is garment, the border ground), then the guess from the models, a few times: GrabCut (Rother, Kolmogorov,
    Blake 2004) with a blur in place of the graph cut. A second pass adds how much the colour changes on the
    way in from the border (geodesic distance: Criminisi, Sharp, Blake 2008), which removes ground that is lit
    differently around the garment than at the border. Evidence is in log-odds: above 0 speaks for garment.
    """
    calm = image.filter(ImageFilter.GaussianBlur(1))
    palette = palette_of(calm)
    place = place_evidence(image.height, image.width)
    guess = refine(palette, place, np.zeros_like(place), ROUNDS[0])
    refined = refine(palette, place, edge_evidence(lab(np.asarray(calm)), guess), ROUNDS[1])
    lost = np.count_nonzero(refined > 0.5) < LOST * np.count_nonzero(guess > 0.5)
    return guess if lost else refined


def refine(palette: Palette, place: Floats, edges: Floats, rounds: int) -> Floats:
    """The probability after so many rounds; place counts for less in each."""
    guess = logistic(place + edges)
    for weight in np.linspace(*PLACE_WEIGHTS, rounds, dtype=np.float32):
        colour = blur(colour_evidence(palette, guess)[palette.indices])
        guess = logistic(COLOUR_WEIGHT * colour + weight * place + edges)
    return guess


def logistic(evidence: Floats) -> Floats:
    """From log-odds to probability."""
    return np.asarray(1 / (1 + np.exp(-evidence)))


def palette_of(image: Image.Image) -> Palette:
    """The colours of an RGB picture."""
    indexed = image.quantize(COLOURS, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    colours = lab(np.array(indexed.getpalette("RGB"), np.uint8).reshape(1, -1, 3))[0]
    distance = ((colours[:, None] - colours) ** 2).sum(axis=2, dtype=np.float64)
    return Palette(np.asarray(indexed), np.exp(-distance / (2 * ALIKE**2)))


def lab(rgb: Pictures) -> Floats:
    """sRGB bytes (h, w, 3) in CIE L*a*b*, with L* weighted: float32 (h, w, 3)."""
    value = np.arange(256, dtype=np.float32) / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    xyz = linear[rgb] @ XYZ.T
    x, y, z = np.moveaxis(np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116), 2, 0)
    return np.stack(
        (LIGHTNESS_WEIGHT * (116 * y - 16), 500 * (x - y), 200 * (y - z)), axis=2, dtype=np.float32
    )


def place_evidence(height: int, width: int) -> Floats:
    """Positive in the middle, negative at the border; zero on a rounded rectangle of 72 % of the picture."""
    row, column = (np.abs((np.arange(edge) + 0.5) / edge * 2 - 1) for edge in (height, width))
    outwards = (row[:, None] ** 4 + column**4) ** 0.25
    return np.asarray(np.clip(8 * (0.72 - outwards), -LIMIT, LIMIT), dtype=np.float32)


def colour_evidence(palette: Palette, guess: Floats) -> Floats:
    """How much more frequent every colour (and those alike) is in the garment than in the ground: (k,)."""
    indices, colours = palette.indices.ravel(), len(palette.likeness)
    inside = np.bincount(indices, guess.ravel(), colours)
    outside = np.bincount(indices, minlength=colours) - inside
    garment, ground = (
        counts / counts.sum() for counts in (palette.likeness @ inside, palette.likeness @ outside)
    )
    evidence = np.log((garment + 1e-3) / (ground + 1e-3))
    return np.asarray(np.clip(evidence, -LIMIT, LIMIT), dtype=np.float32)


def blur(values: Floats) -> Floats:
    """The mean over 5x5 pixels."""
    height, width = values.shape
    padded = np.pad(values, 2, mode="edge")
    rows = np.add.reduce([padded[start : start + height] for start in range(5)])
    return np.asarray(np.add.reduce([rows[:, start : start + width] for start in range(5)]) / np.float32(25))


def edge_evidence(colours: Floats, guess: Floats) -> Floats:
    """Negative where the colour (h, w, 3) hardly changes on the way in from the ground at the border."""
    seeds = np.ones(guess.shape, bool)
    seeds[1:-1, 1:-1] = False
    distance = geodesic_distance(colours, seeds & (guess < 0.5))
    typical = (distance * guess).sum() / guess.sum()
    return np.asarray(
        REACH_PENALTY * np.clip(distance / (REACH * typical + 1e-6) - 1, -1, 0), dtype=np.float32
    )


def geodesic_distance(colours: Floats, seeds: NDArray[np.bool_]) -> Floats:
    """The least sum of colour steps on a way from a seed to every pixel, by sweeps along rows and columns.

    Steps no larger than the texture's count as none; two sweeps each way find nearly all the shortest ways.
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
    """Shorten the distances (h, w) in place along the columns, down and up, over these steps (h - 1, w)."""
    for row in range(1, len(distance)):
        np.minimum(distance[row], distance[row - 1] + steps[row - 1], out=distance[row])
    for row in range(len(distance) - 2, -1, -1):
        np.minimum(distance[row], distance[row + 1] + steps[row], out=distance[row])


def cut_out(image: Image.Image) -> tuple[Pictures, bool]:
    """What the network sees of an RGB photo, and whether the garment could be told from the background.

    If it could not at all, the middle of the photo is taken.
    """
    small = image.copy()
    small.thumbnail((MASK_SIDE, MASK_SIDE), Image.Resampling.BOX)
    mask = garment_mask(small)
    alike = colour_overlap(small, mask) if plausible(mask) else 1.0
    if alike > HOPELESS_OVERLAP:
        mask = place_evidence(small.height, small.width) > 0
    return cut_out_by(mask, small), alike <= DOUBTFUL_OVERLAP


def garment_mask(image: Image.Image) -> Mask:
    """The pixels of an RGB photo that are garment: bool (h, w); none, if there are too few to tell."""
    if min(image.size) < LEAST_EDGE:
        return np.zeros((image.height, image.width), bool)
    likely = garment_probability(image) > 0.5
    return without_holes(without_small_regions(smooth(likely), SMALLEST_REGION))


def plausible(mask: Mask) -> bool:
    """Whether the mask may be a garment: neither nothing nor everything, and not most of the border."""
    share, border_share = mask.mean(), border(mask).mean()
    return bool(SMALLEST_SHARE <= share <= LARGEST_SHARE and border_share <= LARGEST_BORDER_SHARE)


def is_cut_out(opacity: Pictures) -> bool:
    """Whether what is opaque (uint8 (h, w), 0 to 255) may be a garment without its background.

    It is not if it is nearly nothing, nearly everything, or a plain shape such as a circle or a card.
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
    """How much of the colours inside and outside of the mask is the same, from 0 (none) to 1 (all)."""
    colours = np.asarray(image.quantize(64, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE))
    inside, outside = (np.bincount(colours[part], minlength=64) for part in (mask, ~mask))
    return float(np.minimum(inside / inside.sum(), outside / outside.sum()).sum())


def cut_out_by(mask: Mask, image: Image.Image) -> Pictures:
    """The pixels of the mask, negated, lifted and fitted into 28x28; the mask must not be empty."""
    darkness = 255 - np.asarray(image.convert("L")).astype(np.float32)
    visible = np.maximum(lifted(darkness, darkness[mask]), 1)
    garment = Image.fromarray(np.where(mask, visible, 0).astype(np.uint8))
    return np.asarray(fit(garment.crop(box_around(mask)), "black").filter(SHARPEN))


def lifted(values: NDArray[np.float32], garment: NDArray[np.float32]) -> NDArray[np.float32]:
    """The values, 0 to 255, brighter if the garment's median is low: what is 255 stays so."""
    median = float(np.median(garment))
    if median >= LIFTED_MEDIAN:
        return values
    return 255 - (255 - values) * np.float32((255 - LIFTED_MEDIAN) / (255 - median))
