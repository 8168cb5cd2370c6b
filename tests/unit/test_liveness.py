from gateway.presence import Liveness


def test_it_is_not_ready_before_the_inbox_is_open_and_a_worker_was_heard() -> None:
    liveness = Liveness(worker_silence_s=5)
    assert "inbox" in (liveness.why_not_ready(0) or "")
    liveness.opened()
    assert "no worker" in (liveness.why_not_ready(0) or "")
    liveness.heard(1)
    assert liveness.why_not_ready(1) is None


def test_silence_makes_it_unready_and_a_word_ready_again() -> None:
    liveness = Liveness(worker_silence_s=5)
    liveness.opened()
    liveness.heard(10)
    assert liveness.why_not_ready(15) is None
    assert liveness.why_not_ready(15.1) == "no worker has answered for 5 s"
    liveness.heard(16)
    assert liveness.why_not_ready(16) is None


def test_a_lost_broker_makes_it_unready_at_once() -> None:
    liveness = Liveness(worker_silence_s=5)
    liveness.opened()
    liveness.heard(10)
    liveness.lost("no broker answers")
    assert liveness.why_not_ready(10) == "no broker answers"
    liveness.heard(11)
    assert liveness.why_not_ready(11) is None
