"""A photo of clothes on any background: the garment cut out, bright on black, fitted into 28x28."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model.arrays import Pictures
from model.foreground import garment_probability, place_evidence
from model.product import SHARPEN, border, box_around, fit
from model.regions import Mask, smooth, without_holes, without_small_regions

MASK_SIDE = 128
SMALLEST_REGION = 0.15  # of the largest: keeps the second shoe of a pair
SMALLEST_SHARE, LARGEST_SHARE = 0.02, 0.95
LARGEST_BORDER_SHARE = 0.75
DOUBTFUL_OVERLAP, HOPELESS_OVERLAP = 0.4, 0.8
LEAST_EDGE = 8
OPAQUE = 128
SHAPE_OVERLAP = 0.97  # of garments in the data set, with their mirror images: 0.94 at most
LIFTED_MEDIAN = 125  # white clothes, which the data set has not, become as bright as its grey ones


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
