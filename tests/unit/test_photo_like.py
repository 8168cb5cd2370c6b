from pathlib import Path

import numpy as np
import pytest

from model.training.photo_like import SHOES, photo_like, shadow, smooth_noise

RANDOM = np.random.default_rng


@pytest.fixture(scope="module")
def some():
    with np.load(Path(__file__).parents[1] / "data" / "fashion-mnist-test-500.npz") as arrays:
        return arrays["images"], arrays["labels"]


def test_pictures_stay_pictures_and_are_none_as_they_were(some):
    varied = photo_like(*some, RANDOM(1))
    assert (varied.shape, varied.dtype) == (some[0].shape, np.uint8)
    assert (varied != some[0]).any(axis=(1, 2)).all()


def test_they_follow_from_the_seed(some):
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
