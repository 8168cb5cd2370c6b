"""What the client decides: attempts, pauses, deadlines, and what answers mean. Nothing is sent."""

import io
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

import client
from client import errors, pictures, results
from client.calls import Call, Calls
from client.pictures import Upload
from tests.unit.gateways import SAMPLES, SANDAL

ANSWER = {"label": "Sandal", "confidence": 0.9, "probabilities": {"Sandal": 0.9}, "request_id": "r"}
BUSY = {"type": "urn:mlaas:problem:too-many-in-flight", "title": "Too many", "status": 429, "detail": "busy"}
REQUEST = httpx.Request("POST", "http://g:1/predict")

Reaction = httpx.Response | httpx.TransportError


def response(status: int, document: object = None, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return httpx.Response(status, json=document, headers=named, request=REQUEST)


def refused() -> httpx.ConnectError:
    return httpx.ConnectError("refused", request=REQUEST)


class Driven:
    """A call with its clock; each attempt takes a second and gets the next reaction."""

    def __init__(self, *reactions: Reaction, retries: int = 4, timeout_s: float = 30.0) -> None:
        self.now = 100.0
        self.calls = Calls(timeout_s, retries, clock=lambda: self.now, chance=lambda: 0.0)
        self.reactions = list(reactions)
        self.attempts: list[dict[str, Any]] = []
        self.pauses: list[float] = []

    def run(self, call: Call[Any]) -> Any:
        came: Reaction | None = None
        while True:
            try:
                step = call.send(came)
            except StopIteration as end:
                return end.value
            if isinstance(step, float):
                self.pauses.append(step)
                self.now, came = self.now + step, None
            else:
                self.attempts.append({**step, "headers": dict(step["headers"])})
                self.now, came = self.now + 1, self.reactions.pop(0)

    def predict(self, **asked: Any) -> client.Prediction:
        return self.run(self.calls.predict(SANDAL, **asked))


@pytest.mark.parametrize("reaction", [lambda: response(429, BUSY), lambda: response(503), refused])
def test_what_may_pass_is_tried_again_after_growing_pauses(reaction: Callable[[], Reaction]) -> None:
    driven = Driven(reaction(), reaction(), reaction(), response(200, ANSWER))
    assert driven.predict().label == "Sandal"
    assert driven.pauses == [0.1, 0.2, 0.4]


@pytest.mark.parametrize("status", [400, 401, 404, 413, 415, 422, 500, 504])
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


def test_retry_after_is_waited_for() -> None:
    driven = Driven(response(503, Retry_After="7"), response(200, ANSWER))
    driven.predict()
    assert driven.pauses == [7.0]


def test_retry_after_may_be_a_date() -> None:
    assert calls_seconds("Wed, 21 Oct 2015 07:28:10 GMT", 1445412480.0) == 10
    assert calls_seconds("soon", 0) is None


def calls_seconds(text: str, now: float) -> float | None:
    from client.calls import _seconds

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
        (504, errors.DeadlineExceeded), (301, errors.Refused),
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
    assert len(named) == 10
    assert all(f"{name}\n" in drawn or f"{name} " in drawn for name in named)
    assert set(named) <= set(dir(client))


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
    driven.predict(model="large", top_k=3, mode="photo", explain="input", timeout_s=5)
    assert driven.attempts[0]["params"] == {"model": "large", "top_k": 3, "mode": "photo", "explain": "input"}


def test_what_cannot_be_asked_for_is_an_error_and_not_ignored() -> None:
    with pytest.raises(TypeError, match="modle; there are model"):
        Driven().predict(modle="large")


# Many in one request.

UPLOADS = {index: Upload(bytes([index]), f"{index}.png") for index in (4, 5, 6, 7)}


def batch(*entries: dict[str, object]) -> httpx.Response:
    numbered = [{"index": index, "filename": "f", **entry} for index, entry in enumerate(entries)]
    return response(200, {"results": numbered})


def sent(attempt: dict[str, Any]) -> Sequence[int]:
    return [content[0] for _, (_, content) in attempt["files"]]


FOUND = {"prediction": ANSWER}
BAD = {"problem": {"title": "Not a picture", "status": 422}}


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
    assert isinstance(outcomes[7], client.Prediction)


@pytest.mark.parametrize("status", [400, 413])
def test_a_batch_that_is_too_large_for_the_server_is_cut(status: int) -> None:
    too_much = {"title": "Too many files", "status": status}
    driven = Driven(response(status, too_much), batch(FOUND, FOUND), response(status, too_much), batch(FOUND),
                    response(status, too_much))  # fmt: skip
    outcomes = driven.run(driven.calls.chunk(UPLOADS, {}))
    assert [sent(attempt) for attempt in driven.attempts] == [[4, 5, 6, 7], [4, 6], [5, 7], [5], [7]]
    assert [isinstance(outcomes[index], client.Prediction) for index in UPLOADS] == [True, True, True, False]


def test_an_answer_that_leaves_a_picture_out_is_an_error_for_it() -> None:
    driven = Driven(batch(FOUND, FOUND, FOUND))
    outcomes = driven.run(driven.calls.chunk(UPLOADS, {}))
    assert isinstance(outcomes[7], errors.ServerFailed)


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
    job = driven.run(driven.calls.result("a", wait_s=0.5))
    assert (job.is_over, job.completed, len(job.items)) == (False, 1, 1)


def test_a_job_is_submitted_and_cancelled_by_what_submit_gave() -> None:
    driven = Driven(
        response(202, {"id": "j", "status": "accepted"}), response(200, {**RUNNING, "status": "canceled"})
    )
    job = driven.run(driven.calls.submit([SANDAL, SAMPLES / "bag.png"], model="m"))
    assert driven.run(driven.calls.cancel(job)).is_over
    first, second = driven.attempts
    assert [name for _, (name, _) in first["files"]] == ["picture", "bag.png"]
    assert (first["params"], second["method"], second["url"]) == ({"model": "m"}, "DELETE", "/jobs/j")


# Pictures.


def pixels_of(upload: Upload) -> np.ndarray:
    with Image.open(io.BytesIO(upload.content)) as picture:
        return np.asarray(picture)


@pytest.mark.parametrize("shape", [(28, 28), (5, 9), (5, 9, 3)])
def test_an_array_becomes_a_picture_with_the_same_pixels(shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(1).integers(0, 256, shape, dtype=np.uint8)
    assert np.array_equal(pixels_of(pictures.read(array)), array)
    assert np.array_equal(pixels_of(pictures.read(array[::-1])), array[::-1])


def test_an_array_may_have_its_one_channel_as_a_third_dimension() -> None:
    array = np.arange(12, dtype=np.uint8).reshape(3, 4, 1)
    assert np.array_equal(pixels_of(pictures.read(array)), array[:, :, 0])


@pytest.mark.parametrize(
    "array",
    [np.zeros((28, 28)), np.zeros((3, 4, 4), np.uint8), np.zeros(9, np.uint8), np.zeros((0, 3), np.uint8)],
)
def test_an_array_that_is_no_picture_is_told_what_one_is(array: Any) -> None:
    with pytest.raises(errors.PictureUnreadable, match="an array is uint8"):
        pictures.read(array)


def test_a_path_bytes_a_file_and_an_image_are_pictures(tmp_path: Path) -> None:
    path = SAMPLES / "sandal.png"
    for given in (path, str(path), SANDAL, bytearray(SANDAL), io.BytesIO(SANDAL)):
        assert pictures.read(given).content == SANDAL  # type: ignore[arg-type]
    with path.open("rb") as file, Image.open(path) as image:
        assert pictures.read(file) == Upload(SANDAL, "sandal.png")
        assert np.array_equal(pixels_of(pictures.read(image)), np.asarray(image))


@pytest.mark.parametrize("given", ["nothing.png", io.StringIO("text"), 7, None, "", "nul\0.png"])
def test_what_is_no_picture_is_said_and_nothing_is_sent(given: Any) -> None:
    driven = Driven()
    with pytest.raises(errors.PictureUnreadable, match="cannot be read"):
        driven.run(driven.calls.predict(given))
    assert driven.attempts == []


def test_the_bytes_of_a_png_are_checked_by_its_checksums() -> None:
    content = pictures.read(np.zeros((2, 2), np.uint8)).content
    assert content.endswith(b"IEND" + zlib.crc32(b"IEND").to_bytes(4, "big"))


def test_a_result_needs_only_what_every_server_says() -> None:
    assert results.read(client.Model, {"name": "m", "version": "1"}).accuracy is None
