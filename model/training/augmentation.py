"""Variations of training pictures: uint8 (n, 28, 28) in, the same shape out, the randomness an argument."""

import numpy as np
from numpy.typing import NDArray

from model.arrays import Labels, Pictures
from model.settings import AugmentationSettings
from model.training.photo_like import COMMON, photo_like


def augment(
    pictures: Pictures,
    labels: Labels,
    settings: AugmentationSettings,
    random: np.random.Generator,
    *,
    erase: bool,
) -> Pictures:
    """A varied copy of every picture, in the same order."""
    varied = shift(pictures, settings.shift_pixels, random)
    if settings.flip:
        varied = flip(varied, random)
    if erase:
        varied = erase_boxes(varied, settings, random)
    chosen = random.random(len(pictures)) < settings.photo_share * COMMON[labels]
    if chosen.any():
        varied[chosen] = photo_like(pictures[chosen], labels[chosen], random)
    return varied


def shift(pictures: Pictures, pixels: int, random: np.random.Generator) -> Pictures:
    """Each picture moved by up to so many pixels in both directions, black coming in."""
    count, height, width = pictures.shape
    padded = np.pad(pictures, ((0, 0), (pixels, pixels), (pixels, pixels)))
    top, left = random.integers(0, 2 * pixels + 1, (2, count))
    rows = top[:, None] + np.arange(height)
    columns = left[:, None] + np.arange(width)
    moved: Pictures = padded[np.arange(count)[:, None, None], rows[:, :, None], columns[:, None, :]]
    return moved


def flip(pictures: Pictures, random: np.random.Generator) -> Pictures:
    """Half of the pictures, mirrored left to right."""
    mirrored = random.random(len(pictures)) < 0.5
    return np.where(mirrored[:, None, None], pictures[:, :, ::-1], pictures)


def erase_boxes(pictures: Pictures, settings: AugmentationSettings, random: np.random.Generator) -> Pictures:
    """Some pictures with a box of one random grey over them (Zhong et al., Random Erasing, 2017)."""
    count, height, width = pictures.shape
    area = random.uniform(settings.erase_area_min, settings.erase_area_max, count) * height * width
    aspect = np.exp(random.uniform(np.log(0.3), np.log(1 / 0.3), count))
    rows = _span(np.sqrt(area * aspect), height, random)
    columns = _span(np.sqrt(area / aspect), width, random)
    box = rows[:, :, None] & columns[:, None, :] & (random.random((count, 1, 1)) < settings.erase_probability)
    grey = random.integers(0, 256, (count, 1, 1), dtype=np.uint8)
    return np.where(box, grey, pictures)


def _span(lengths: NDArray[np.float64], size: int, random: np.random.Generator) -> NDArray[np.bool_]:
    """For each length, which of so many places it covers: bool (n, size)."""
    covered = np.clip(lengths.round(), 1, size)
    start = np.floor(random.random(len(lengths)) * (size - covered + 1))
    places = np.arange(size)
    return (places >= start[:, None]) & (places < (start + covered)[:, None])
