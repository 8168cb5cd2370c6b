"""Pictures of clothes that nobody had to photograph: drawn, lit and laid on a floor, each by a seed.

They are what a model folder has to show an expected answer for, and samples that carry no licence.
"""

from collections.abc import Callable, Sequence
from io import BytesIO
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

WIDTH, HEIGHT = 360, 480
FINER = 3
"""Outlines are drawn so many times larger, which smooths their edges."""

Point = tuple[float, float]
Colour = tuple[int, int, int]
Floats = NDArray[np.floating[Any]]


class Garment(NamedTuple):
    """Half an outline, from the top of the middle down to its end, mirrored for the other half; and details.

    Coordinates go from 0 at the middle to 1 at the edge across, and from 0 to 1 downwards. Details are lines
    that are drawn on both halves.
    """

    outline: Sequence[Point]
    details: Sequence[Sequence[Point]]


GARMENTS = {
    "t-shirt": Garment(
        (
            (0, 0.20), (0.10, 0.19), (0.20, 0.15), (0.42, 0.19), (0.80, 0.36), (0.66, 0.47), (0.47, 0.39),
            (0.48, 0.60), (0.49, 0.85), (0, 0.86),
        ),
        (((0, 0.235), (0.12, 0.22), (0.22, 0.16)), ((0.42, 0.19), (0.46, 0.38)), ((0, 0.84), (0.49, 0.83))),
    ),
    "longsleeve": Garment(
        (
            (0, 0.18), (0.12, 0.17), (0.20, 0.13), (0.42, 0.17), (0.66, 0.45), (0.86, 0.78), (0.70, 0.83),
            (0.47, 0.48), (0.47, 0.70), (0.48, 0.86), (0, 0.87),
        ),
        (((0, 0.215), (0.14, 0.2), (0.22, 0.14)), ((0.42, 0.17), (0.46, 0.46)), ((0.67, 0.79), (0.83, 0.74))),
    ),
    "pants": Garment(
        (
            (0, 0.08), (0.36, 0.08), (0.40, 0.24), (0.47, 0.60), (0.50, 0.94), (0.24, 0.95), (0.14, 0.55),
            (0.03, 0.33), (0, 0.33),
        ),
        (((0, 0.13), (0.37, 0.13)), ((0.17, 0.14), (0.30, 0.20), (0.39, 0.21)), ((0, 0.13), (0.01, 0.33))),
    ),
    "shorts": Garment(
        (
            (0, 0.26), (0.46, 0.26), (0.54, 0.42), (0.66, 0.70), (0.20, 0.73), (0.04, 0.52), (0, 0.52),
        ),
        (((0, 0.31), (0.47, 0.31)), ((0.25, 0.32), (0.40, 0.40), (0.52, 0.41)), ((0, 0.31), (0.01, 0.52))),
    ),
    "dress": Garment(
        (
            (0, 0.15), (0.12, 0.14), (0.17, 0.07), (0.26, 0.07), (0.30, 0.20), (0.27, 0.36), (0.25, 0.42),
            (0.40, 0.66), (0.56, 0.92), (0.30, 0.945), (0, 0.95),
        ),
        (((0, 0.17), (0.13, 0.16), (0.18, 0.08)), ((0, 0.42), (0.25, 0.42)), ((0.10, 0.44), (0.22, 0.92))),
    ),
    "skirt": Garment(
        (
            (0, 0.22), (0.34, 0.22), (0.40, 0.40), (0.56, 0.66), (0.70, 0.82), (0.36, 0.86), (0, 0.87),
        ),
        (((0, 0.27), (0.35, 0.27)), ((0.12, 0.28), (0.24, 0.84)), ((0.24, 0.28), (0.48, 0.82))),
    ),
}  # fmt: skip

COLOURS: tuple[Colour, ...] = ((36, 52, 92), (168, 44, 52), (60, 62, 66), (44, 104, 84), (206, 196, 178))


def draw(kind: str, seed: int) -> Image.Image:
    """One of GARMENTS on a floor, RGB, as a phone would take it."""
    random = np.random.default_rng((seed, *kind.encode()))
    floor = FLOORS[int(random.integers(len(FLOORS)))](random)
    mask, details = outlines(GARMENTS[kind], random)
    cloth = np.array(COLOURS[int(random.integers(len(COLOURS)))], np.float32) * folds(random)[..., None]
    cloth *= (1 - 0.45 * details)[..., None]
    shadow = blurred(np.roll(mask, (7, 5), (0, 1)), 7)
    ground = floor * (1 - 0.45 * shadow)[..., None]
    picture = (ground * (1 - mask[..., None]) + cloth * mask[..., None]) * light(random)[..., None]
    picture += random.normal(0, 3, picture.shape)
    return Image.fromarray(picture.clip(0, 255).astype(np.uint8))


def as_png(image: Image.Image) -> bytes:
    """The picture as a file."""
    file = BytesIO()
    image.save(file, "PNG", optimize=True)
    return file.getvalue()


def as_jpeg(image: Image.Image, quality: int = 88) -> bytes:
    """The picture as the file of a phone: smaller, with losses."""
    file = BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


def outlines(garment: Garment, random: np.random.Generator) -> tuple[Floats, Floats]:
    """How much of each pixel the garment covers, and its seams: both (height, width), 0 to 1."""
    size = (WIDTH * FINER, HEIGHT * FINER)
    body, seams = Image.new("L", size), Image.new("L", size)
    angle = random.normal(0, 0.04)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])

    def placed(points: Sequence[Point], side: int) -> list[Point]:
        across = np.array([(side * x * WIDTH / 2, (y - 0.5) * HEIGHT) for x, y in curved(points)])
        across += random.normal(0, 0.5, across.shape)
        return [tuple(each) for each in ((across @ turn.T + (WIDTH / 2, HEIGHT / 2)) * FINER).tolist()]

    right, left = (placed(garment.outline, side) for side in (1, -1))
    ImageDraw.Draw(body).polygon(right + left[::-1], fill=255)
    for line in garment.details:
        for side in (1, -1):
            ImageDraw.Draw(seams).line(placed(line, side), fill=255, width=FINER + 1)
    smaller = [
        np.asarray(each.resize((WIDTH, HEIGHT), Image.Resampling.BOX), np.float32) for each in (body, seams)
    ]
    return smaller[0] / 255, smaller[1] / 255


def curved(points: Sequence[Point]) -> list[Point]:
    """The same line with its corners cut twice (Chaikin), its ends where they were."""
    line = [np.array(point, float) for point in points]
    for _ in range(2):
        inner = [
            before * (1 - share) + after * share for before, after in pairwise(line) for share in (0.15, 0.85)
        ]
        line = [line[0], *inner, line[-1]]
    return [(float(x), float(y)) for x, y in line]


def folds(random: np.random.Generator) -> Floats:
    """How bright the cloth is: wrinkles, mostly downwards, and a weave."""
    wide, fine = (smooth_noise(random, across, down) for across, down in ((9, 5), (40, 14)))
    weave = random.normal(0, 0.05, (HEIGHT, WIDTH))
    return np.asarray(1 + 0.28 * wide + 0.12 * fine + weave, np.float32)


def light(random: np.random.Generator) -> Floats:
    """How bright the light is: from one side, with soft patches."""
    slope = np.linspace(1.08, 0.88, WIDTH)[None, :: int(random.choice((1, -1)))]
    return np.asarray(slope + 0.1 * smooth_noise(random, 3, 3), np.float32)


def boards(random: np.random.Generator) -> Floats:
    """A floor of wooden boards: (height, width, 3)."""
    wood = np.ones((HEIGHT, WIDTH), np.float32)
    edge = int(random.integers(60, 90))
    for left in range(-int(random.integers(edge)), WIDTH, edge):
        board = slice(max(0, left), max(0, left + edge))
        wood[:, board] *= random.uniform(0.85, 1.1)
        wood[:, max(0, left) : max(0, left) + 2] *= 0.6
    wood *= 1 + 0.1 * smooth_noise(random, 70, 4) + 0.05 * smooth_noise(random, 160, 8)
    return wood[..., None] * np.array((186, 142, 98), np.float32)


def sheet(random: np.random.Generator) -> Floats:
    """A bed sheet with wrinkles: (height, width, 3)."""
    bright = 1 + 0.12 * smooth_noise(random, 6, 8) + 0.05 * smooth_noise(random, 22, 26)
    return np.asarray(bright[..., None] * np.array((214, 208, 200), np.float32), np.float32)


def carpet(random: np.random.Generator) -> Floats:
    """A carpet: (height, width, 3)."""
    pile = 1 + random.normal(0, 0.12, (HEIGHT, WIDTH)) + 0.08 * smooth_noise(random, 30, 40)
    return np.asarray(pile[..., None] * np.array((150, 146, 142), np.float32), np.float32)


FLOORS: tuple[Callable[[np.random.Generator], Floats], ...] = (boards, sheet, carpet)


def smooth_noise(random: np.random.Generator, across: int, down: int) -> Floats:
    """So many random values across and down, and soft passages between: (height, width), about -1 to 1."""
    coarse = Image.fromarray(random.uniform(-1, 1, (down, across)).astype(np.float32))
    return np.asarray(coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC))


def blurred(values: Floats, radius: int) -> Floats:
    """The values, 0 to 1, smeared by so many pixels."""
    image = Image.fromarray((values * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(radius))
    return np.asarray(image, np.float32) / 255
