from worker.cancelled import Cancelled


def test_the_oldest_are_forgotten_first() -> None:
    cancelled = Cancelled(most_kept=3)
    cancelled.add(["a", "b", "c", "d"])
    assert [name in cancelled for name in "abcd"] == [False, True, True, True]
