from types import SimpleNamespace

import numpy as np
import pytest

from model.classifier import Predictions
from model.training import ood
from model.training.evaluate import auroc, in_batches
from model.training.ood import figures, measure, noise, textures, turned


class ByBrightness:
    """Scores a picture by its mean grey, and calls it a shoe where its first pixel is white."""

    def __init__(self):
        self.batches = []

    def predict(self, pictures):
        self.batches.append(len(pictures))
        label = np.where(pictures[:, 0, 0] == 255, 7, 0)
        scores = pictures.mean(axis=(1, 2)).astype(np.float32)
        return Predictions(np.eye(10, dtype=np.float32)[label], scores)


def scores(*values):
    return np.array(values, np.float32)


def greys(*values):
    return np.stack([np.full((28, 28), value, np.uint8) for value in values])


def test_a_set_that_always_scores_above_clothing_has_an_auroc_of_one():
    assert auroc(scores(3, 4), scores(1, 2)) == 1
    assert auroc(scores(1, 2), scores(3, 4)) == 0


def test_the_area_is_the_share_of_pairs_in_the_right_order():
    assert auroc(scores(2, 5), scores(1, 3, 4, 6)) == pytest.approx((1 + 3) / 8)


def test_equal_scores_count_half():
    assert auroc(scores(0, 0), scores(0, 0, 0)) == 0.5


def test_a_picture_passes_up_to_a_score_of_one():
    assert figures(scores(0.5, 1, 1.5, 2), scores(0)).false_positive_rate == 0.5


def test_many_pictures_are_predicted_in_batches_and_come_back_in_order():
    classifier = ByBrightness()
    pictures = greys(*(np.arange(600) % 256))
    assert (in_batches(classifier.predict, pictures)[1] == np.arange(600) % 256).all()
    assert classifier.batches == [256, 256, 88]


def test_shoes_and_other_clothes_are_turned_apart():
    pictures = np.random.default_rng(1).integers(0, 255, (40, 28, 28), dtype=np.uint8)
    is_shoe = np.arange(40) >= 20
    sets = turned(pictures, is_shoe)
    assert sets["turned clothes"].shape == sets["turned shoes"].shape == (6, 28, 28)
    assert (sets["turned clothes"][0] == np.rot90(pictures[0])).all()
    assert (sets["turned shoes"][-1] == np.rot90(pictures[30], 3)).all()


@pytest.mark.parametrize("build", [noise, textures])
def test_a_set_is_the_same_every_time(build):
    pytest.importorskip("skimage")
    first = build()
    assert first.dtype == np.uint8 and first.shape[1:] == (28, 28)
    assert (first == build()).all()


def test_digits_fill_the_picture_as_clothing_does():
    pytest.importorskip("sklearn")
    shown = ood.digits() > 0
    assert len(shown) == 1797
    heights, widths = shown.any(axis=2).sum(axis=1), shown.any(axis=1).sum(axis=1)
    assert (np.maximum(heights, widths) >= 26).mean() > 0.99


def test_photos_are_shown_as_an_upload_is(monkeypatch):
    pytest.importorskip("skimage")
    seen = []

    def prepare(content, *, max_pixels):
        seen.append(content[:4])
        if len(seen) % 2:
            raise ood.PictureError("not this one")
        return SimpleNamespace(pixels=np.zeros((28, 28), np.uint8))

    monkeypatch.setattr(ood, "prepare", prepare)
    assert len(ood.photos()) == len(seen) / 2
    assert set(seen) == {b"\x89PNG"}


def test_every_set_is_measured_against_the_clothing(monkeypatch):
    monkeypatch.setattr(ood, "far_from_clothing", lambda: {"bright": greys(200, 255), "dark": greys(0)})
    clothing = np.concatenate((greys(*range(1, 41)), greys(*[255] * 10)))
    found = measure(ByBrightness(), clothing)
    assert set(found) == {"bright", "dark", "turned clothes", "turned shoes"}
    assert found["dark"].auroc == 0 and found["dark"].false_positive_rate == 1
    assert found["bright"].auroc == pytest.approx((0.8 + 0.9) / 2)
    assert (found["bright"].count, found["turned shoes"].count) == (2, 3)
