from gateway.presence import Liveness


def test_it_is_not_ready_before_the_inbox_is_open_and_a_worker_was_heard() -> None:
    liveness = Liveness(worker_silence_s=5)
    assert "just started" in (liveness.why_not_ready(0) or "")
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


def test_frames_are_read_by_all_when_every_reply_has_said_so_for_as_long_as_a_worker_may_be_silent() -> None:
    liveness = Liveness(worker_silence_s=2)
    for now in range(10, 12):
        liveness.heard(now, reads_frames=True)
        assert not liveness.all_read_frames(now)
    liveness.heard(12, reads_frames=True)
    assert liveness.all_read_frames(12)
    liveness.heard(12.5)
    assert not liveness.all_read_frames(12.5)
    liveness.heard(13, reads_frames=True)
    assert not liveness.all_read_frames(14.9)
    assert liveness.all_read_frames(15)


def test_after_a_silence_nothing_is_known_of_who_reads_frames() -> None:
    liveness = Liveness(worker_silence_s=2)
    liveness.heard(10, reads_frames=True)
    liveness.heard(20, reads_frames=True)
    assert not liveness.all_read_frames(20)
    assert liveness.all_read_frames(22)
    liveness.lost("away")
    liveness.heard(23, reads_frames=True)
    assert not liveness.all_read_frames(23)
