"""What in a photo is the garment: the probability of every pixel, from colour, place and edges.

Two colour models, one of the garment and one of the ground, are estimated from a first guess by place (the
middle is garment, the border ground), and the guess anew from the models, a few times: the idea of GrabCut
(Rother, Kolmogorov, Blake 2004) with a blur instead of a graph cut. A second pass adds how much the colour
changes on the way in from the border (geodesic distance: Criminisi, Sharp, Blake 2008), which takes away the
ground around the garment where it is lit differently than at the border.

Evidence is in log-odds: above 0 speaks for garment.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from model.arrays import Pictures

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


class Palette(NamedTuple):
    """The few colours of a picture."""

    indices: NDArray[np.uint8]
    """(h, w): which colour each pixel has."""
    likeness: NDArray[np.float64]
    """(k, k): how alike two colours are, 0 to 1."""


def garment_probability(image: Image.Image) -> Floats:
    """How likely every pixel of an RGB picture is garment, 0 to 1."""
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
