import math

import pytest

from messaging.broker import Delivery, LogPosition, Message
from messaging.contract import PING, ErrorCode, ServedModel
from worker.answering import checked, most_probable
from worker.batching import Queued
from worker.pipe import LoadedVersion, Outcome
from worker.roster import Roster
from worker.triage import Triage, triage

NOW_MS = 1_000_000.0
MODELS = [ServedModel(name=name, version="1.0.0") for name in ("fashion-mnist", "large")]
ROSTER = Roster.of([LoadedVersion(model, None) for model in MODELS])


def sort(refusal: str = "", **changes: str) -> Triage:
    headers = {"correlation_id": "1", "reply_to": "predict.replies/3", **changes}
    message = Message(b"x", {name: value for name, value in headers.items() if value})
    return triage(
        [Queued(Delivery(message, "t", LogPosition(0, 0), 0), 0.0, 0.0, refusal)],
        now_ms=NOW_MS,
        roster=ROSTER,
        reply_topics=["predict.replies"],
        cancelled={"cancelled"},
    )


def test_a_picture_is_work() -> None:
    found = sort(deadline_ms=str(int(NOW_MS)))
    assert [task.request.body for task in found.work] == [b"x"]


def test_work_is_for_the_model_that_is_named_or_the_first() -> None:
    for asked, served in (("", "fashion-mnist"), ("fashion-mnist", "fashion-mnist"), ("large", "large")):
        assert [task.model.name for task in sort(model=asked).work] == [served]


def test_a_ping_is_answered_without_the_model() -> None:
    found = sort(content_type=PING)
    assert len(found.pings) == 1
    assert not found.work


def test_what_is_past_its_deadline_is_dropped_ping_or_picture() -> None:
    for content_type in ("image/png", PING):
        found = sort(deadline_ms=str(int(NOW_MS) - 1), content_type=content_type)
        assert len(found.expired) == 1
        assert not found.work
        assert not found.pings


def test_what_nobody_waits_for_any_more_is_dropped() -> None:
    found = sort(correlation_id="cancelled")
    assert (len(found.cancelled), len(found.work)) == (1, 0)


def test_nobody_can_be_answered_without_id_or_address() -> None:
    assert sort(correlation_id="").unusable[0][1] == "no correlation_id"
    assert sort(reply_to="").unusable[0][1] == "no reply_to"


def test_replies_go_to_allowed_topics_only() -> None:
    for stranger in ("orders", "orders/1", "predict.repliesx/1", "predict.requests/0", "/predict.replies"):
        assert "not allowed" in sort(reply_to=stranger).unusable[0][1]


def test_what_can_be_answered_but_not_served_is_refused_with_a_code() -> None:
    assert sort(schema="99").refused[0][2].code is ErrorCode.UNSUPPORTED_SCHEMA
    assert sort(model="other").refused[0][2].code is ErrorCode.UNKNOWN_MODEL
    assert sort(deadline_ms="soon").refused[0][2].code is ErrorCode.INVALID_REQUEST
    assert sort(mode="sketch").refused[0][2].code is ErrorCode.INVALID_REQUEST


def test_a_picture_that_is_not_to_be_decoded_is_refused_with_the_reason() -> None:
    ((_, _, failure),) = sort(refusal="too many scans").refused
    assert (failure.code, failure.detail) == (ErrorCode.INVALID_PICTURE, "too many scans")
    assert sort(refusal="too many scans", content_type=PING).pings


def test_who_asks_for_an_unknown_model_is_told_the_known_ones() -> None:
    detail = "no model 'other'; served: fashion-mnist 1.0.0, large 1.0.0"
    assert sort(model="other").refused[0][2].detail == detail


def test_who_asks_for_a_version_gets_it_or_is_told_the_known_ones() -> None:
    (task,) = sort(model="large", version="1.0.0").work
    assert (task.model.name, task.model.version) == ("large", "1.0.0")
    for model, name in (("large", "large"), ("", "fashion-mnist")):
        ((_, _, failure),) = sort(model=model, version="9").refused
        assert failure.code is ErrorCode.UNKNOWN_MODEL
        assert failure.detail == (
            f"no model '{name}' of version '9'; served: fashion-mnist 1.0.0, large 1.0.0"
        )


def test_a_reply_has_the_most_probable_labels_that_were_asked_for_highest_first() -> None:
    probabilities = [0.1, 0.40000004, 0.2, 0.3]
    assert list(most_probable("abcd", probabilities, 2).items()) == [("b", 0.4), ("d", 0.3)]
    assert most_probable("ab", [0.5, 0.5], 1) == {"a": 0.5}


@pytest.mark.parametrize("most", [0, 4, 10])
def test_a_reply_has_all_labels_in_the_models_order_where_all_are_asked_for(most: int) -> None:
    assert [*most_probable("abcd", [0.1, 0.4, 0.2, 0.3], most)] == [*"abcd"]


@pytest.mark.parametrize(
    ("probabilities", "is_sound"),
    [([0.25, 0.75], True), ([1.0000001, -1e-8], True), ([1.1, 0.1], False), ([0.5, -0.1], False),
     ([0.5, math.nan], False), ([math.nan, 0.5], False), ([math.inf, 0.0], False), ([], True)],
)  # fmt: skip
def test_what_is_no_probability_is_not_answered(probabilities: list[float], is_sound: bool) -> None:
    assert (checked(Outcome(probabilities=probabilities)).error is None) is is_sound
