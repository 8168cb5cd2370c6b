"""What mlaas doctor concludes."""

import pytest
from msgspec.structs import replace

from gateway.presence import Liveness
from messaging.broker import Planned
from mlaas.commands.doctor import Finding, Seen, findings, lines

SOUND = Seen(
    models=["fashion-mnist 1.0.0"],
    model_error=None,
    broker_url="kafka://k:9092",
    broker_error=None,
    topics=[Planned("topic requests", "ready", "12 partitions"), Planned("topic replies", "ready")],
    queues={"shared": ()},
    url="http://g:8000",
    gateway_error=None,
    is_mlaas=True,
    live_error=None,
    not_ready=None,
    answer="answered",
    answer_error=None,
)
MISSING = Planned("topic replies", "missing")
AWAY = {"broker_error": "refused", "topics": None}
NO_WORKER = "no worker has answered yet"


def states(**changes: object) -> dict[str, str]:
    return {its.check: its.status for its in findings(replace(SOUND, **changes))}


def broken(**changes: object) -> list[str]:
    return [check for check, status in states(**changes).items() if status == "failed"]


def found(check: str, **changes: object) -> Finding:
    return next(its for its in findings(replace(SOUND, **changes)) if its.check == check)


def test_where_all_is_sound_all_is_ok() -> None:
    assert set(states().values()) == {"ok"}
    assert found("topics").detail == "requests, replies"


def test_what_is_unfit_has_its_cure() -> None:
    unfit = Planned("topic requests", "unfit", "messages over 1 byte are refused", "`change it`")
    its = found("topics", topics=[unfit])
    assert its.status == "failed"
    assert its.detail == "topic requests: messages over 1 byte are refused"
    assert its.fix == "for each, `change it`"


@pytest.mark.parametrize(
    ("changes", "first"),
    [
        ({"model_error": "x.onnx is not the file"}, "model"),
        ({**AWAY, "not_ready": "broker away"}, "broker"),
        ({"topics": [MISSING], "not_ready": NO_WORKER}, "topics"),
        ({"workers": {"shared": False}, "not_ready": NO_WORKER}, "worker"),
        ({"gateway_error": "refused", "is_mlaas": False, "workers": {"shared": True}}, "port"),
        ({"is_mlaas": False, "workers": {"shared": True}}, "port"),
        (
            {
                "live_error": "the thread has ended",
                "not_ready": "the thread has ended",
                "workers": {"shared": True},
            },
            "live",
        ),
        ({"answer_error": "no answer in time"}, "round trip"),
    ],
)
def test_the_broken_link_is_the_first_that_failed_and_has_its_cure(
    changes: dict[str, object], first: str
) -> None:
    assert broken(**changes)[0] == first
    assert all(its.fix for its in findings(replace(SOUND, **changes)) if its.status == "failed")


def test_a_broker_inside_mlaas_up_is_no_failure() -> None:
    assert broken(**AWAY) == []
    assert "inside `mlaas up`" in found("broker", **AWAY).detail


def test_a_broker_on_which_no_worker_of_the_gateway_answers_is_not_called_sound() -> None:
    assert broken(is_other=True) == []
    assert "another" in found("broker", is_other=True).detail
    assert "gateway's own broker" in found("topics", is_other=True).detail


def test_a_dead_worker_is_not_blamed_on_a_broker_that_is_inside_mlaas_up() -> None:
    assert broken(**AWAY, not_ready=NO_WORKER) == ["worker", "ready"]


def test_the_gateways_own_reasons_tell_a_silent_worker_from_a_lost_broker() -> None:
    """What it says when it reached a broker, and when it did not."""
    liveness = Liveness(worker_silence_s=5)
    assert "broker" in broken(**AWAY, not_ready=liveness.why_not_ready(0))
    liveness.opened()
    assert "broker" not in broken(**AWAY, not_ready=liveness.why_not_ready(0))
    liveness.heard(0)
    assert "broker" not in broken(**AWAY, not_ready=liveness.why_not_ready(9))
    liveness.lost("all brokers are down")
    assert "broker" in broken(**AWAY, not_ready=liveness.why_not_ready(9))


def test_what_needs_a_broken_link_is_not_looked_at() -> None:
    its = states(**AWAY, gateway_error="refused", is_mlaas=False)
    later = ("topics", "worker", "live", "ready", "round trip")
    assert {check: its[check] for check in later} == dict.fromkeys(later, "unknown")


def test_a_worker_can_be_sound_without_a_gateway() -> None:
    assert states(gateway_error="refused", is_mlaas=False, workers={"shared": True})["worker"] == "ok"


def test_what_differs_is_said_and_what_is_missing_fails() -> None:
    fewer = Planned("topic requests", "differs", "4 partitions instead of 12")
    assert found("topics", topics=[fewer]).status == "ok"
    assert "topic requests: 4 partitions instead of 12" in found("topics", topics=[fewer]).detail
    missing = found("topics", topics=[fewer, MISSING, Planned("subscription a.b", "missing")])
    assert "has no topic replies, subscription a.b" in missing.detail
    assert missing.fix.startswith("`mlaas topics create` creates them")


def test_each_finding_is_one_line() -> None:
    shown = list(lines(findings(replace(SOUND, workers={"shared": False}, not_ready=NO_WORKER))))
    assert [line.split()[0] for line in shown] == ["ok", "ok", "ok", "FAILED", "ok", "ok", "FAILED", "--"]
    assert all("\n" not in line for line in shown)


def test_each_queue_of_models_needs_a_worker() -> None:
    queues = {"shared": (), "photos": ("clothing-photo", "portraits")}
    assert broken(queues=queues, workers={"shared": True, "photos": True}) == []
    silent = {"queues": queues, "workers": {"shared": True, "photos": False}}
    assert broken(**silent) == ["worker photos"]
    assert "`mlaas worker --models clothing-photo,portraits`" in found("worker photos", **silent).fix
    assert found("worker photos", queues=queues).detail == "the gateway has no such queue"
    unasked = {"queues": queues, "is_mlaas": False, "gateway_error": "refused"}
    assert states(**unasked)["worker photos"] == "unknown"
