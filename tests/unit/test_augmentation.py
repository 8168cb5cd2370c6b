from pathlib import Path

import msgspec
import numpy as np
import pytest

from model.training.augmentation import SHOES, augment, photo_like, shadow, smooth_noise
from tests.unit.recipes import AUGMENTATION

RANDOM = np.random.default_rng
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


# Like photos.


@pytest.fixture(scope="module")
def some():
    with np.load(Path(__file__).parents[1] / "data" / "fashion-mnist-test-500.npz") as arrays:
        return arrays["images"], arrays["labels"]


def test_the_photo_share_becomes_photo_like_and_the_others_stay(some):
    settings = msgspec.structs.replace(AUGMENTATION, shift_pixels=0, flip=False, photo_share=0.3)
    changed = augment(*some, settings, RANDOM(1), erase=False) != some[0]
    assert changed.any(axis=(1, 2)).mean() == pytest.approx(0.3, abs=0.06)


def test_photo_like_pictures_are_pictures_and_all_changed(some):
    varied = photo_like(*some, RANDOM(1))
    assert (varied.shape, varied.dtype) == (some[0].shape, np.uint8)
    assert (varied != some[0]).any(axis=(1, 2)).all()


def test_photo_like_pictures_follow_from_the_seed(some):
    one, same, other = (photo_like(some[0][:50], some[1][:50], RANDOM(seed)) for seed in (1, 1, 2))
    assert np.array_equal(one, same)
    assert not np.array_equal(one, other)


def test_clothes_still_fill_the_picture(some):
    varied = photo_like(*some, RANDOM(1))
    longest = np.maximum((varied > 0).any(axis=1).sum(axis=1), (varied > 0).any(axis=2).sum(axis=1))
    assert (longest >= 20).mean() > 0.95


def test_shoes_stand_upright_as_often_as_they_lie(some):
    """In the data set they lie: all are wider than high."""
    chosen = np.isin(some[1], SHOES)
    lit = photo_like(some[0][chosen], some[1][chosen], RANDOM(1)) > 40
    higher = lit.any(axis=2).sum(axis=1) > lit.any(axis=1).sum(axis=1)
    assert 0.3 < higher.mean() < 0.7


def test_an_empty_picture_is_no_trouble():
    assert (
        photo_like(np.zeros((20, 28, 28), np.uint8), np.arange(20, dtype=np.uint8) % 10, RANDOM(1)).shape[0]
        == 20
    )


def test_noise_is_smooth_and_of_about_unit_variance():
    noise = np.stack([smooth_noise(4, RANDOM(seed)) for seed in range(200)])
    assert 0.5 < noise.std() < 1.5
    assert np.abs(np.diff(noise, axis=2)).mean() < noise.std() / 2


def test_a_shadow_covers_what_throws_it_and_more():
    inside = np.zeros((28, 28), bool)
    inside[8:20, 8:20] = True
    covered = np.mean([shadow(inside, RANDOM(seed)) for seed in range(50)], axis=0)
    assert covered[14, 14] == 1
    assert 0 < covered[~inside].mean() < 0.5
