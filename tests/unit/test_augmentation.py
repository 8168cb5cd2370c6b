from pathlib import Path

import msgspec
import numpy as np
import pytest

from model.training.augmentation import augment
from tests.unit.recipes import AUGMENTATION

PICTURES = np.random.default_rng(0).integers(0, 256, (50, 28, 28), dtype=np.uint8)


def varied(pictures, settings, seed, *, erase):
    labels = np.zeros(len(pictures), np.uint8)
    return augment(pictures, labels, settings, np.random.default_rng(seed), erase=erase)


def test_augmentation_follows_from_the_seed():
    one, same, other = (varied(PICTURES, AUGMENTATION, seed, erase=True) for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_augmentation_without_shift_flip_and_erasing_changes_nothing():
    plain = msgspec.structs.replace(AUGMENTATION, shift_pixels=0, flip=False)
    assert np.array_equal(varied(PICTURES, plain, 1, erase=False), PICTURES)


def test_erasing_covers_a_box_within_the_limits_in_about_half_of_the_pictures():
    black = np.zeros((2000, 28, 28), np.uint8)
    erased = varied(black, AUGMENTATION, 1, erase=True)
    share = (erased > 0).mean(axis=(1, 2))
    assert (share > 0).mean() == pytest.approx(0.5, abs=0.05)
    assert share[share > 0].min() > 0.01 and share.max() < 0.27


def test_a_picture_is_moved_by_no_more_than_the_shift():
    dots = np.zeros((500, 28, 28), np.uint8)
    dots[:, 10, 10] = 255
    only_shift = msgspec.structs.replace(AUGMENTATION, flip=False)
    _, rows, columns = np.nonzero(varied(dots, only_shift, 1, erase=False))
    assert set(rows) == set(columns) == {8, 9, 10, 11, 12}


def test_the_photo_share_becomes_photo_like_and_the_others_stay():
    settings = msgspec.structs.replace(AUGMENTATION, shift_pixels=0, flip=False, photo_share=0.3)
    with np.load(Path(__file__).parents[1] / "data" / "fashion-mnist-test-500.npz") as arrays:
        images, labels = arrays["images"], arrays["labels"]
    changed = augment(images, labels, settings, np.random.default_rng(1), erase=False) != images
    assert changed.any(axis=(1, 2)).mean() == pytest.approx(0.3, abs=0.06)
