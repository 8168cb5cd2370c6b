"""Photos to learn from: read once into memory, then varied anew for every epoch."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from math import cos, exp, log, radians, sin, sqrt
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec
import numpy as np
from PIL import Image, ImageEnhance

from model import Fraction
from model.decoding import PictureError
from model.garment import Pictures
from model.inputs import prepare_image
from model.manifest import ImagePreprocessing, PictureInput
from model.training.dataset import DatasetError, Labels
from model.training.network import Targets
from model.training.photos import read_folder

MAX_PIXELS = 50_000_000
KEPT_SIDE = 256
"""The edge of the pictures in memory: a little more than a network sees, since variations enlarge a part."""
PREPROCESSING = ImagePreprocessing(resize="stretch", interpolation="bilinear", scale="0..255")
"""Values stay as they are: the network itself subtracts ImageNet's mean."""
THREADS = 2


class VariationSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How photos are varied.

    area_min: the smallest part of the photo that is shown. aspect: how many times wider or narrower at most.
    turn_degrees: the deviation of the angle. light, contrast, saturation: how much more or less at most.
    mixup, cutmix: the share of pictures that are mixed with another one, or have a rectangle of another one
    (Zhang et al., arXiv 1710.09412; Yun et al., arXiv 1905.04899).
    """

    area_min: Annotated[float, msgspec.Meta(gt=0, le=1)]
    aspect: Annotated[float, msgspec.Meta(ge=1)]
    turn_degrees: Annotated[float, msgspec.Meta(ge=0)]
    flip: bool
    light: Fraction
    contrast: Fraction
    saturation: Fraction
    mixup: Fraction
    cutmix: Fraction


class Photos(NamedTuple):
    """Photos of known kinds."""

    images: Pictures
    """uint8 (n, side, side, 3)."""
    labels: Labels


def read(folder: Path, kinds: Sequence[str], side: int) -> Photos:
    """The photos in the subfolders, which are named after the kinds. Raises DatasetError."""
    paths = read_folder(folder)
    if strange := {path.parent.name for path in paths} - set(kinds):
        raise DatasetError(f"{folder} has a folder {min(strange)}, but the model's labels have no such kind")

    def one(path: Path) -> Pictures:
        try:
            return seen(path.read_bytes(), side)
        except PictureError as error:
            raise DatasetError(f"{path}: {error}") from error

    with ThreadPoolExecutor(THREADS) as pool:
        images = np.stack(list(pool.map(one, paths)))
    return Photos(images, np.array([kinds.index(path.parent.name) for path in paths], np.uint8))


def seen(picture: bytes, side: int) -> Pictures:
    """What the network sees of a picture file: uint8 (side, side, 3), stretched. Raises PictureError."""
    return prepare_image(picture, PREPROCESSING, input_of(side), max_pixels=MAX_PIXELS).pixels


def input_of(side: int) -> PictureInput:
    """The input of a network for pictures of this size."""
    return PictureInput(height=side, width=side, channels=3, dtype="uint8", layout="NHWC")


def varied(photos: Photos, side: int, rule: VariationSettings, seed: tuple[int, ...]) -> Pictures:
    """Every photo in a variation that the seed determines: uint8 (n, side, side, 3)."""
    out = np.empty((len(photos.images), side, side, 3), np.uint8)

    def vary(index: int) -> None:
        out[index] = variation(photos.images[index], side, rule, np.random.default_rng((*seed, index)))

    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(vary, range(len(out))))
    return out


def variation(picture: Pictures, side: int, rule: VariationSettings, random: np.random.Generator) -> Pictures:
    """A part of the picture, turned, mirrored and in other light: uint8 (side, side, 3)."""
    image = Image.fromarray(picture)
    grey = tuple(int(value) for value in picture.mean(axis=(0, 1)))
    shown = image.transform(
        (side, side),
        Image.Transform.AFFINE,
        place(picture.shape[0], side, rule, random),
        Image.Resampling.BILINEAR,
        fillcolor=grey,
    )
    for enhance, most in (
        (ImageEnhance.Brightness, rule.light),
        (ImageEnhance.Contrast, rule.contrast),
        (ImageEnhance.Color, rule.saturation),
    ):
        shown = enhance(shown).enhance(1 + random.uniform(-most, most))
    return np.asarray(shown)


def place(
    edge: int, side: int, rule: VariationSettings, random: np.random.Generator
) -> tuple[float, float, float, float, float, float]:
    """Where each pixel (x, y) of the variation comes from: (ax + by + c, dx + ey + f), as Pillow takes it."""
    share = sqrt(random.uniform(rule.area_min, 1))
    wider = exp(random.uniform(-1, 1) * log(rule.aspect) / 2)
    width, height = (min(1.0, each) * edge for each in (share * wider, share / wider))
    left, top = random.uniform(0, edge - width), random.uniform(0, edge - height)
    angle = radians(random.normal(0, rule.turn_degrees))
    mirror = -1 if rule.flip and random.random() < 0.5 else 1
    across, down = width / side, height / side
    a, b = mirror * across * cos(angle), -down * sin(angle)
    d, e = mirror * across * sin(angle), down * cos(angle)
    middle = side / 2
    x, y = left + width / 2, top + height / 2
    return a, b, x - (a + b) * middle, d, e, y - (d + e) * middle


def mix(
    images: Pictures, targets: Targets, rule: VariationSettings, random: np.random.Generator
) -> tuple[Pictures, Targets]:
    """Some of the pictures mixed with others; their targets have as much of both labels. Changes neither."""
    images, mixed = images.copy(), targets.copy()
    partners, kinds = random.permutation(len(images)), random.random(len(images))
    originals = images.copy()
    for index in np.flatnonzero(kinds < rule.mixup + rule.cutmix):
        own, other = originals[index], originals[partners[index]]
        if kinds[index] < rule.mixup:
            share = max(blend := float(random.beta(0.4, 0.4)), 1 - blend)
            images[index] = (own * np.float32(share) + other * np.float32(1 - share)).round()
        else:
            box = rectangle(own.shape[0], random)
            images[index][box] = other[box]
            share = 1 - other[box].size / own.size
        mixed[index] = share * targets[index] + (1 - share) * targets[partners[index]]
    return images, mixed


def rectangle(side: int, random: np.random.Generator) -> tuple[slice, slice]:
    """Rows and columns of a rectangle of up to half of the picture, anywhere in it."""
    edge = sqrt(random.uniform(0.02, 0.5)) * side
    wider = exp(random.uniform(-0.5, 0.5))
    height, width = (min(side, max(1, round(each))) for each in (edge / wider, edge * wider))
    top, left = (int(random.integers(0, side - each + 1)) for each in (height, width))
    return slice(top, top + height), slice(left, left + width)
