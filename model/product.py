"""Prepares a product picture on a plain, bright background as the authors of the data set did.

The steps are: trim, scale the longest edge to 28, sharpen, centre, invert, convert to grey (arXiv 1708.07747,
section 2).
"""

from typing import Any

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
