import pytest

from gateway.pending import WaitEstimate


def learned(*answers: tuple[int, float, float]) -> WaitEstimate:
    estimate = WaitEstimate()
    for answer in answers:
        estimate.answered(*answer)
    return estimate


def several(place: int, waited_s: float, now: float) -> list[tuple[int, float, float]]:
    """So many that something follows from them."""
    return [(place, waited_s, now + number * waited_s / place) for number in range(12)]


def test_before_anything_is_known_nobody_waits_too_long() -> None:
    assert WaitEstimate().wait_s(1000) == 0
    assert not WaitEstimate().is_too_long(1000, 0.001)
    assert learned((1, 5.0, 0.0), (2, 5.0, 0.0)).wait_s(1000) == 0


def test_each_place_costs_what_it_cost_lately() -> None:
    estimate = learned(*several(100, 1.0, 0.0), *several(200, 2.0, 0.1))
    assert estimate.wait_s(50) == pytest.approx(0.5)


def test_old_answers_are_forgotten() -> None:
    estimate = learned(*several(100, 10.0, 0.0), *several(100, 1.0, 60.0))
    assert estimate.wait_s(100) == pytest.approx(1.0, rel=1e-3)


def test_of_the_first_few_nobody_knows_since_a_worker_takes_many_at_once() -> None:
    estimate = learned(*several(1, 1.0, 0.0))
    assert not estimate.is_too_long(32, 0.5)
    assert estimate.is_too_long(33, 0.5)


def test_come_back_when_the_excess_is_gone_or_all_are_answered() -> None:
    estimate = learned(*several(100, 10.0, 0.0))
    assert estimate.retry_after_s(100, 4.0) == 8
    assert estimate.retry_after_s(25, 30.0) == 3
    assert estimate.retry_after_s(1, 30.0) == 1


def test_the_first_answers_after_a_standstill_are_not_what_a_place_costs() -> None:
    """Fifty a second, each at once; then nothing for seven seconds, in which 350 come; then all of them."""
    estimate = learned(*[(1, 0.02, number / 50) for number in range(100)])
    for number in range(350):
        estimate.answered(1 + number, 7.0 - number / 50, 9.0 + number / 1000)
        assert not estimate.is_too_long(350, 30.0)


def test_a_queue_that_moves_slowly_is_not_a_standstill() -> None:
    """One answer a second, and a hundred always wait."""
    estimate = learned(*[(100, 100.0, float(number)) for number in range(20)])
    assert estimate.wait_s(100) == pytest.approx(100, rel=0.1)


def test_some_of_the_callers_time_is_kept_for_hiccups() -> None:
    estimate = learned(*several(100, 1.0, 0.0))
    assert not estimate.is_too_long(69, 1.0)
    assert estimate.is_too_long(71, 1.0)
