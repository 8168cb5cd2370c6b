import numpy as np
import pytest

from model.training.corruptions import CORRUPTIONS, corrupt, warp
from tests.unit.measured_model import pictures

EVERY = [(name, level) for name, strengths in CORRUPTIONS.items() for level in range(len(strengths))]


@pytest.fixture(scope="module")
def clothes():
    return pictures().test_images


def square():
    """A bright square of 8 pixels in the middle."""
    picture = np.zeros((1, 28, 28), np.uint8)
    picture[:, 10:18, 10:18] = 200
    return picture


@pytest.mark.parametrize(("name", "level"), EVERY)
def test_pictures_stay_pictures_change_and_do_so_alike_every_time(clothes, name, level):
    kept = clothes.copy()
    changed = corrupt(clothes, name, level)
    assert (changed.shape, changed.dtype) == (clothes.shape, np.uint8)
    assert (clothes == kept).all()
    assert (changed != clothes).any()
    assert (corrupt(clothes, name, level) == changed).all()


GROWING = [name for name, strengths in CORRUPTIONS.items() if len(strengths) == 3 and name != "saturate"]
"""The levels of saturate darken, brighten, and brighten more."""


@pytest.mark.parametrize("name", GROWING)
def test_every_level_leaves_less_of_the_picture(clothes, name):
    distances = [
        np.abs(corrupt(clothes, name, level).astype(int) - clothes).mean()
        for level in range(len(CORRUPTIONS[name]))
    ]
    assert distances == sorted(distances)


def test_a_turn_to_the_left_is_undone_by_one_to_the_right(clothes):
    assert (corrupt(corrupt(clothes, "turn left", 0), "turn right", 0) == clothes).all()
    assert (corrupt(clothes, "turn left", 0)[0] == np.rot90(clothes[0])).all()


def test_the_inverse_adds_up_to_white(clothes):
    assert (corrupt(clothes, "inverse", 0).astype(int) + clothes == 255).all()


def test_scale_shrinks_the_picture_about_its_middle():
    rows = np.flatnonzero(corrupt(square(), "scale", 2)[0].max(axis=1) > 50)
    assert (rows.min(), rows.max()) == (12, 15)


def test_half_of_the_pictures_turn_the_other_way(clothes):
    turned = corrupt(np.repeat(clothes[:1], 50, axis=0), "rotate", 1)
    ways = {picture.tobytes() for picture in turned}
    assert len(ways) == 2


def test_a_shear_moves_the_top_one_way_and_the_bottom_the_other():
    upright = np.zeros((1, 28, 28), np.uint8)
    upright[:, :, 13:15] = 255
    leaning = corrupt(upright, "shear", 1)[0].astype(float)
    top, bottom = ((row * np.arange(28)).sum() / row.sum() for row in (leaning[6], leaning[21]))
    assert abs(top - bottom) == pytest.approx(0.6 * 15, abs=0.1)
    assert (top + bottom) / 2 == pytest.approx(13.5, abs=0.1)


def test_impulse_noise_hits_the_share_of_pixels_that_it_says(clothes):
    grey = np.full((50, 28, 28), 100, np.uint8)
    noisy = corrupt(grey, "impulse noise", 2)
    assert set(np.unique(noisy)) == {0, 100, 255}
    assert (noisy != 100).mean() == pytest.approx(0.27, abs=0.01)


def test_shot_noise_keeps_the_mean_of_grey():
    grey = np.full((50, 28, 28), 64, np.uint8)
    assert corrupt(grey, "shot noise", 1).mean() == pytest.approx(64, abs=1.5)


@pytest.mark.parametrize("name", ["glass blur", "motion blur"])
def test_blur_spreads_light_over_more_pixels(name):
    blurred = corrupt(square(), name, 0)
    assert (blurred > 0).sum() > (square() > 0).sum()
    assert blurred.sum() == pytest.approx(square().sum(), rel=0.15)


def test_warping_by_nothing_changes_nothing(clothes):
    values = clothes / 255
    assert warp(values, np.eye(2)[:, :, None]) == pytest.approx(values)
