"""What the client decides: attempts, pauses, deadlines, and what answers mean. Nothing is sent."""

import hashlib
import json
from collections.abc import Callable
from typing import Any

import httpx
import numpy as np
import pytest

import mlaas_client
from mlaas_client import errors, results
from mlaas_client.calls import Calls
from tests.unit.driving import ANSWER, BUSY, REQUEST, Driven, Reaction, refused, response
from tests.unit.gateways import SANDAL


@pytest.mark.parametrize("reaction", [lambda: response(429, BUSY), lambda: response(503), refused])
def test_what_may_pass_is_tried_again_after_growing_pauses(reaction: Callable[[], Reaction]) -> None:
    driven = Driven(reaction(), reaction(), reaction(), response(200, ANSWER))
    assert driven.predict().label == "Sandal"
    assert driven.pauses == [0.1, 0.2, 0.4]


@pytest.mark.parametrize("status", [400, 401, 404, 408, 413, 415, 422, 500, 504])
def test_what_will_not_pass_is_tried_once(status: int) -> None:
    driven = Driven(response(status, {"status": status, "title": "No"}))
    with pytest.raises(errors.MlaasError, match="No"):
        driven.predict()
    assert len(driven.attempts) == 1


def test_all_attempts_of_a_call_have_one_key_and_calls_have_different_ones() -> None:
    driven = Driven(response(503), refused(), response(200, ANSWER), response(200, ANSWER))
    driven.predict()
    driven.predict()
    keys = [attempt["headers"]["Idempotency-Key"] for attempt in driven.attempts]
    assert keys[0] == keys[1] == keys[2] != keys[3]


def test_each_attempt_says_how_much_time_is_left() -> None:
    driven = Driven(response(503), response(200, ANSWER))
    driven.predict(timeout_s=20)
    assert [a["headers"]["X-Request-Timeout-Ms"] for a in driven.attempts] == ["20000", "18900"]
    assert [attempt["timeout"] for attempt in driven.attempts] == pytest.approx([21, 19.9])


@pytest.mark.parametrize("row", [[[1, 2.5], [3, 4]], np.array([[1, 2.5], [3, 4]], np.float32)])
def test_a_row_is_sent_as_json_and_a_model_without_labels_answers_with_numbers(row: Any) -> None:
    numbers = {"label": None, "confidence": None, "probabilities": {}, "outputs": [2.5], "sha256": 64 * "a"}
    driven = Driven(response(200, numbers))
    answer = driven.run(driven.calls.predict_row(row, model="level"))
    assert (answer.label, answer.outputs, answer.raw["label"]) == ("", [2.5], None)
    (attempt,) = driven.attempts
    assert json.loads(attempt["content"]) == {"inputs": [[[1, 2.5], [3, 4]]]}
    assert attempt["headers"]["Content-Type"] == "application/json"
    assert attempt["params"] == {"model": "level"}


def test_retry_after_is_waited_for() -> None:
    driven = Driven(response(503, Retry_After="7"), response(200, ANSWER))
    driven.predict()
    assert driven.pauses == [7.0]


def test_retry_after_may_be_a_date() -> None:
    assert calls_seconds("Wed, 21 Oct 2015 07:28:10 GMT", 1445412480.0) == 10
    assert calls_seconds("soon", 0) is None


def calls_seconds(text: str, now: float) -> float | None:
    from mlaas_client.calls import _seconds

    return _seconds(text, now)


def test_pauses_differ_by_chance_so_that_clients_do_not_come_back_together() -> None:
    pauses = []
    for chance in (0.0, 0.5, 1.0):
        driven = Driven(response(503, Retry_After="4"), response(200, ANSWER))
        driven.calls = Calls(30, 4, clock=lambda: 0.0, chance=lambda chance=chance: chance)
        driven.predict()
        pauses += driven.pauses
    assert pauses == [4.0, 5.0, 6.0]


def test_a_pause_beyond_the_deadline_is_not_begun() -> None:
    driven = Driven(response(503, {"title": "No worker", "detail": "none"}, Retry_After="10"))
    with pytest.raises(errors.Unavailable, match="No worker: none") as caught:
        driven.predict(timeout_s=9)
    assert (driven.pauses, caught.value.retry_after_s) == ([], 10)


def test_after_the_last_retry_the_error_is_the_callers() -> None:
    driven = Driven(*(refused() for _ in range(3)), retries=2)
    with pytest.raises(errors.Unreachable, match="http://g:1 does not answer") as caught:
        driven.predict()
    assert len(driven.attempts) == 3
    assert isinstance(caught.value.__cause__, httpx.ConnectError)


def test_an_answer_that_does_not_come_is_a_missed_deadline() -> None:
    driven = Driven(httpx.ReadTimeout("slow", request=REQUEST))
    with pytest.raises(errors.DeadlineExceeded, match="in time"):
        driven.predict()


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, errors.Unauthorized), (403, errors.Unauthorized), (404, errors.NotFound),
        (410, errors.NotFound),
        (413, errors.Refused), (415, errors.Refused), (422, errors.Refused), (429, errors.Overloaded),
        (500, errors.ServerFailed), (502, errors.ServerFailed), (503, errors.Unavailable),
        (408, errors.DeadlineExceeded), (504, errors.DeadlineExceeded), (400, errors.Refused),
        (405, errors.Refused), (431, errors.Refused), (301, errors.Refused),
    ],
)  # fmt: skip
def test_a_status_is_the_error_that_says_what_to_do(status: int, kind: type[Exception]) -> None:
    problem = {"title": "T", "detail": "D", "status": status, "request_id": "r1"}
    with pytest.raises(errors.MlaasError, match="T: D") as caught:
        Driven(response(status, problem, X_Request_ID="r1"), retries=0).predict()
    assert type(caught.value) is kind
    assert (caught.value.problem, caught.value.request_id) == (problem, "r1")


def test_every_error_is_in_the_tree_that_is_drawn() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    drawn = errors.__doc__ or ""
    named = [kind.__name__ for kind in kinds if issubclass(kind, errors.MlaasError)]
    assert len(named) == 12
    assert all(f"{name}\n" in drawn or f"{name} " in drawn for name in named)
    assert set(named) <= set(dir(mlaas_client))


@pytest.mark.parametrize("document", ["<html>", {"hello": "world"}, ["label"], None])
def test_an_answer_that_is_none_of_mlaas_is_an_error(document: object) -> None:
    with pytest.raises(errors.ServerFailed, match="not one of mlaas"):
        Driven(response(200, document)).predict()


def test_an_error_page_of_a_proxy_is_said_by_its_status() -> None:
    page = httpx.Response(502, text="<html>Bad gateway</html>", request=REQUEST)
    with pytest.raises(errors.ServerFailed, match="HTTP status 502"):
        Driven(page).predict()


def test_fields_of_a_later_server_break_nothing_and_are_kept() -> None:
    answer = Driven(response(200, {**ANSWER, "colour": "blue"})).predict()
    assert (answer.label, answer.raw["colour"]) == ("Sandal", "blue")


def test_results_cannot_be_changed() -> None:
    with pytest.raises(AttributeError):
        Driven(response(200, ANSWER)).predict().label = "Bag"  # type: ignore[misc]


def test_what_is_asked_for_goes_into_the_query() -> None:
    driven = Driven(response(200, ANSWER))
    asked = {"model": "large", "version": "1.0", "top_k": 3, "mode": "photo", "explain": "input"}
    driven.predict(**asked, timeout_s=5)
    assert driven.attempts[0]["params"] == asked


def test_an_unknown_option_is_an_error_and_not_ignored() -> None:
    with pytest.raises(TypeError, match="modle; there are model"):
        Driven().predict(modle="large")


def test_an_answer_for_the_picture_that_was_sent_is_taken() -> None:
    sha256 = hashlib.sha256(SANDAL).hexdigest()
    assert Driven(response(200, {**ANSWER, "sha256": sha256})).predict().sha256 == sha256


def test_an_answer_for_another_picture_is_an_error_of_its_own_and_not_retried() -> None:
    driven = Driven(response(200, {**ANSWER, "sha256": hashlib.sha256(b"another").hexdigest()}))
    with pytest.raises(errors.AnswerMismatch, match="for another picture") as caught:
        driven.predict()
    assert (len(driven.attempts), caught.value.request_id) == (1, "r")


def test_an_answer_that_cannot_be_decoded_is_the_servers_failure() -> None:
    with pytest.raises(errors.ServerFailed, match="cannot be decoded"):
        Driven(httpx.DecodingError("incorrect header check", request=REQUEST)).predict()


def test_a_result_needs_only_what_every_server_says() -> None:
    assert results.read(mlaas_client.Model, {"name": "m", "version": "1"}).accuracy is None
