import numpy as np
import pytest
from msgspec.structs import replace

from mlaas.settings import load
from model.training import lessons
from tests.unit.recipes import SKIPPING

LOSSES = np.array([0.9, 0.0, 0.1, 0.8, 0.2, 0.7, 0.3, 0.6], np.float32)
SETTINGS = replace(load(None, {}).train, epochs=10, skipping=SKIPPING)


def chosen(seed):
    return lessons.without_some(LOSSES, SKIPPING, np.random.default_rng(seed))


def test_hard_pictures_are_always_shown_and_easy_ones_at_random():
    shown = [set(chosen(seed)[0].tolist()) for seed in range(30)]
    assert all({0, 3, 5, 7} < pictures and len(pictures) == 6 for pictures in shown)
    assert set().union(*shown) == set(range(8))


def test_the_remaining_easy_pictures_weigh_as_much_as_all_of_them():
    order, weights = chosen(1)
    by_picture = dict(zip(order.tolist(), weights.tolist(), strict=True))
    assert all(by_picture[hard] == 1 for hard in (0, 3, 5, 7))
    assert sum(by_picture.values()) == len(LOSSES)


def test_the_order_is_random_and_follows_from_the_seed():
    assert chosen(1)[0].tolist() == chosen(1)[0].tolist()
    assert chosen(1)[0].tolist() != chosen(2)[0].tolist()


def test_the_first_and_the_last_epochs_show_every_picture():
    plain = SETTINGS.augmentation.plain_epochs
    shown = [lessons.skips(SETTINGS, epoch) for epoch in range(10)]
    assert shown == [False] + [True] * (9 - plain) + [False] * plain


def test_losses_are_measured_every_few_epochs():
    assert [lessons.judged(SETTINGS, epoch) for epoch in range(1, 6)] == [1, 1, 3, 3, 5]


@pytest.mark.parametrize("nothing", [{"easy": 0.0}, {"skipped": 0.0}])
def test_a_rule_that_skips_nothing_skips_nothing(nothing):
    settings = replace(SETTINGS, skipping=replace(SKIPPING, **nothing))
    assert not any(lessons.skips(settings, epoch) for epoch in range(10))


def test_an_epoch_is_as_long_as_what_it_shows():
    settings = replace(SETTINGS, batch_size=2)
    assert [lessons.steps(settings, 8, epoch) for epoch in (0, 1)] == [4, 3]
