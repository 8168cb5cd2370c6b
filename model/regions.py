"""Connected regions of a mask. Masks are bool (h, w); regions are connected along rows and columns."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Mask = NDArray[np.bool_]


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
