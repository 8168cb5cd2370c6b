"""Phone photos in one folder per kind, to measure the whole way from photo to label.

The folders are those of clothing-dataset-small, a public data set (Alexey Grigorev and others, CC0 1.0).
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from model.arrays import Pictures
from model.decoding import open_upright
from model.preprocessing import prepare
from model.product import SIDE

ACCEPTED: dict[str, frozenset[str]] = {
    "t-shirt": frozenset({"T-shirt/top"}),
    "pants": frozenset({"Trouser"}),
    "dress": frozenset({"Dress"}),
    "outwear": frozenset({"Coat"}),
    "shirt": frozenset({"Shirt"}),
    "longsleeve": frozenset({"Pullover", "Shirt", "T-shirt/top"}),
    "shoes": frozenset({"Sandal", "Sneaker", "Ankle boot"}),
}
"""The labels that count as right for each kind of clothes."""

UNKNOWN_TO_THE_MODEL = frozenset({"hat", "shorts", "skirt"})
"""Kinds that the data set has not: no label is right."""

PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})


class PhotoSetError(ValueError):
    """The folder is not laid out as expected; the message says what to change."""


class Photo(NamedTuple):
    """One photo file."""

    kind: str
    path: Path


class PhotoScore(NamedTuple):
    """How many photos were labelled rightly; those of kinds unknown to the model are left out."""

    accuracy: float
    right_of: dict[str, tuple[int, int]]
    """For every kind, how many were right, of how many."""


def read_photo_set(folder: Path) -> list[Photo]:
    """All photos of a folder with one folder per kind, sorted. Raises PhotoSetError."""
    if not folder.is_dir():
        raise PhotoSetError(f"There is no folder {folder}.")
    kinds = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if not kinds:
        raise PhotoSetError(f"{folder} has no folders of photos; expected some of: {known_kinds()}.")
    return [photo for kind in kinds for photo in photos_of_a_kind(kind)]


def photos_of_a_kind(folder: Path) -> list[Photo]:
    """The photos in a folder named after their kind, sorted. Raises PhotoSetError."""
    if folder.name not in ACCEPTED and folder.name not in UNKNOWN_TO_THE_MODEL:
        raise PhotoSetError(f"{folder} is not a known kind; expected one of: {known_kinds()}.")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in PICTURE_SUFFIXES)
    if not paths:
        raise PhotoSetError(f"{folder} has no PNG, JPEG or WebP files.")
    return [Photo(folder.name, path) for path in paths]


def known_kinds() -> str:
    """The names that a folder may have."""
    return ", ".join(sorted(ACCEPTED) + sorted(UNKNOWN_TO_THE_MODEL))


def score(kinds: Sequence[str], predicted: Sequence[str]) -> PhotoScore:
    """The score of one predicted label for every photo, given its kind. Raises ValueError if none counts."""
    right_of = {kind: (0, 0) for kind in kinds if kind in ACCEPTED}
    if not right_of:
        raise ValueError("No photo is of a kind that the model knows.")
    for kind, label in zip(kinds, predicted, strict=True):
        if kind in ACCEPTED:
            right, total = right_of[kind]
            right_of[kind] = right + (label in ACCEPTED[kind]), total + 1
    rights, totals = zip(*right_of.values(), strict=True)
    return PhotoScore(sum(rights) / sum(totals), right_of)


def plain_inverted_resize(picture: bytes, max_pixels: int) -> Pictures:
    """What most tutorials do: the whole photo squeezed into 28x28, negated. Raises as open_upright does."""
    image = open_upright(picture, max_pixels=max_pixels, longest_edge=256).image.convert("L")
    return 255 - np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX))


def authors_steps(picture: bytes, max_pixels: int) -> Pictures:
    """The way of the data set's authors, on any photo. Raises PictureError."""
    return prepare(picture, mode="product", max_pixels=max_pixels).pixels


SIMPLER_WAYS: dict[str, Callable[[bytes, int], Pictures]] = {
    "plain inverted resize": plain_inverted_resize,
    "authors' steps": authors_steps,
}
"""What prepare() is compared with: from its bytes and the most pixels allowed to uint8 (28, 28)."""
