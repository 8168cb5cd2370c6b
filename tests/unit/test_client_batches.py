"""What the client makes of batches and jobs. Nothing is sent."""

from collections.abc import Sequence
from typing import Any

import httpx
import pytest

from mlaas_client import Prediction, errors
from mlaas_client.pictures import Upload
from tests.unit.driving import ANSWER, BUSY, Driven, response
from tests.unit.gateways import SAMPLES, SANDAL

UPLOADS = {index: Upload(bytes([index]), f"{index}.png") for index in (4, 5, 6, 7)}


def batch(*entries: dict[str, object]) -> httpx.Response:
    numbered = [{"index": index, "filename": "f", **entry} for index, entry in enumerate(entries)]
    return response(200, {"results": numbered})


def sent(attempt: dict[str, Any]) -> Sequence[int]:
    return [content[0] for _, (_, content, _) in attempt["files"]]


FOUND = {"prediction": ANSWER}
BAD = {"problem": {"title": "Not a picture", "status": 422}}


def found(upload: Upload) -> dict[str, object]:
    return {"prediction": {**ANSWER, "sha256": upload.sha256}}


def test_a_bad_picture_in_a_batch_loses_no_other() -> None:
    driven = Driven(batch(FOUND, BAD, FOUND, FOUND))
    outcomes = driven.run(driven.calls.chunk(UPLOADS, {}))
    assert [type(outcomes[index]).__name__ for index in UPLOADS] == [
        "Prediction",
        "Refused",
        *2 * ["Prediction"],
    ]


def test_those_of_a_batch_that_there_was_no_room_for_are_sent_again_alone() -> None:
    busy = {"problem": BUSY}
    driven = Driven(batch(FOUND, busy, BAD, busy), batch(FOUND, busy), batch(FOUND))
    outcomes = driven.run(driven.calls.chunk(UPLOADS, {}))
    assert [sent(attempt) for attempt in driven.attempts] == [[4, 5, 6, 7], [5, 7], [7]]
    assert isinstance(outcomes[6], errors.Refused)
    assert isinstance(outcomes[7], Prediction)


@pytest.mark.parametrize("status", [400, 413])
def test_a_batch_that_is_too_large_for_the_server_is_cut(status: int) -> None:
    too_much = {"title": "Too many files", "status": status}
    driven = Driven(response(status, too_much), batch(FOUND, FOUND), response(status, too_much), batch(FOUND),
                    response(status, too_much))  # fmt: skip
    outcomes = driven.run(driven.calls.chunk(UPLOADS, {}))
    assert [sent(attempt) for attempt in driven.attempts] == [[4, 5, 6, 7], [4, 6], [5, 7], [5], [7]]
    assert [isinstance(outcomes[index], Prediction) for index in UPLOADS] == [True, True, True, False]


def test_an_answer_that_leaves_a_picture_out_is_an_error_for_it() -> None:
    driven = Driven(batch(FOUND, FOUND, FOUND))
    outcomes = driven.run(driven.calls.chunk(UPLOADS, {}))
    assert isinstance(outcomes[7], errors.ServerFailed)


@pytest.mark.parametrize("index", [4, 99, "0"])
def test_an_answer_about_a_picture_that_was_not_sent_is_an_error_for_all(index: object) -> None:
    driven = Driven(response(200, {"results": [{"index": index, "filename": "f", **FOUND}]}))
    outcomes = driven.run(driven.calls.chunk(UPLOADS, {}))
    assert {type(outcome) for outcome in outcomes.values()} == {errors.ServerFailed}


def test_an_answer_for_another_picture_is_an_error_for_that_one_alone() -> None:
    driven = Driven(batch(*(found(UPLOADS[index]) for index in (4, 6, 6, 7))))
    outcomes = driven.run(driven.calls.chunk(UPLOADS, {}))
    kinds = [type(outcomes[index]) for index in UPLOADS]
    assert kinds == [Prediction, errors.AnswerMismatch, Prediction, Prediction]


def test_the_bytes_decide_and_not_the_files_name() -> None:
    driven = Driven(batch(FOUND))
    driven.run(driven.calls.chunk({0: Upload(b"x", "picture.txt")}, {}))
    assert driven.attempts[0]["files"] == [("file", ("picture.txt", b"x", "application/octet-stream"))]


# Jobs, as docs/api.md has them.

RUNNING = {"id": "a/b", "status": "running", "total": 2, "completed": 1, "results": [{"index": 1, **BAD}]}
DONE = {**RUNNING, "status": "done", "completed": 2, "results": [{"index": 0, **FOUND}, {"index": 1, **BAD}]}


def test_a_job_is_waited_for_until_it_is_over() -> None:
    driven = Driven(response(200, RUNNING), response(200, DONE, X_Request_ID="r"))
    job = driven.run(driven.calls.result("a/b", wait_s=20))
    assert [attempt["params"]["wait"] for attempt in driven.attempts] == ["20000ms", "18900ms"]
    assert {attempt["url"] for attempt in driven.attempts} == {"/jobs/a%2Fb"}
    assert (job.is_over, job.request_id) == (True, "r")
    assert [type(item.outcome).__name__ for item in job.items] == ["Prediction", "Refused"]


def test_a_job_that_is_not_over_in_time_is_returned_as_it_is() -> None:
    driven = Driven(response(200, RUNNING))
    job = driven.run(driven.calls.result("a/b", wait_s=0.5))
    assert (job.is_over, job.completed, len(job.items)) == (False, 1, 1)


def test_a_job_is_submitted_and_cancelled_by_what_submit_gave() -> None:
    driven = Driven(
        response(202, {"id": "j", "status": "accepted"}),
        response(200, {**RUNNING, "id": "j", "status": "canceled"}),
    )
    job = driven.run(driven.calls.submit([SANDAL, SAMPLES / "bag.png"], model="m"))
    assert driven.run(driven.calls.cancel(job)).is_over
    first, second = driven.attempts
    assert [name for _, (name, _, _) in first["files"]] == ["picture", "bag.png"]
    assert (first["params"], second["method"], second["url"]) == ({"model": "m"}, "DELETE", "/jobs/j")


def test_jobs_are_listed_in_pages() -> None:
    driven = Driven(response(200, {"jobs": [{"id": "j", "status": "done", "total": 2}], "has_more": True}))
    (job,) = driven.run(driven.calls.jobs(1, before="a"))
    assert (job.id, job.is_over, job.total) == ("j", True, 2)
    (attempt,) = driven.attempts
    assert (attempt["method"], attempt["url"]) == ("GET", "/jobs")
    assert attempt["params"] == {"limit": "1", "before": "a"}


def test_the_answers_of_a_job_are_compared_with_the_pictures_that_were_submitted() -> None:
    swapped = [{"index": index, "filename": "f", **found(Upload(SANDAL))} for index in (0, 1)]
    done = {"id": "j", "status": "done", "total": 2, "completed": 2, "results": swapped}
    for given in (True, False):
        driven = Driven(response(202, {"id": "j", "status": "accepted"}), response(200, done))
        job = driven.run(driven.calls.submit([SANDAL, SAMPLES / "bag.png"]))
        result = driven.run(driven.calls.result(job if given else job.id))
        kinds = [type(item.outcome) for item in result.items]
        assert kinds == [Prediction, errors.AnswerMismatch if given else Prediction]


def test_an_answer_about_another_job_is_an_error() -> None:
    for call in ("result", "cancel"):
        driven = Driven(response(200, DONE))
        with pytest.raises(errors.AnswerMismatch, match="about job a/b, not j"):
            driven.run(getattr(driven.calls, call)("j"))
