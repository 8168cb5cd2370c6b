import numpy as np
import pytest

from model.training.calibration import fit_temperature, nll, softmax, with_temperature

RANDOM = np.random.default_rng(1)
LOGITS = RANDOM.normal(0, 2, (5000, 10)).astype(np.float32)
LABELS = np.array([RANDOM.choice(10, p=row / row.sum()) for row in softmax(LOGITS).astype(float)], np.uint8)


@pytest.mark.parametrize("overconfidence", [0.5, 1.0, 2.5])
def test_the_temperature_takes_back_what_the_logits_are_too_large_by(overconfidence):
    assert fit_temperature(LOGITS * overconfidence, LABELS) == pytest.approx(overconfidence, rel=0.06)


def test_no_other_temperature_makes_the_labels_likelier():
    best = fit_temperature(LOGITS * 2, LABELS)
    others = [nll(LOGITS * 2 / (best * factor), LABELS) for factor in (0.8, 0.95, 1.05, 1.25)]
    assert nll(LOGITS * 2 / best, LABELS) < min(others)


def test_a_temperature_is_taken_back_by_its_inverse():
    warm = softmax(LOGITS / 1.7)
    np.testing.assert_allclose(with_temperature(warm, 1 / 1.7), softmax(LOGITS), atol=1e-5)


def test_a_probability_of_zero_stays_finite():
    assert np.isfinite(with_temperature(np.array([[1.0, 0.0]], np.float32), 2.0)).all()
