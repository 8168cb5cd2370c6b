"""What follows from a job's record, without store or broker."""

import msgspec
import pytest
from starlette.requests import Request

from gateway.asked import Query, Upload
from gateway.errors import InvalidRequest, NotAPicture, TooLarge
from gateway.jobs.rendering import document, encode_refusal, events, unfinished
from gateway.jobs.routes import read_last_event_id, read_wait
from gateway.jobs.sql_store import Standing, assign
from gateway.jobs.store import (
    Added,
    Job,
    JobRequest,
    Result,
    State,
    Status,
    correlation_id,
    is_id,
    picture_of,
    status_of,
)
from gateway.jobs.submitting import check_total, digest_each, fingerprint, judge
from messaging.contract import sha256_of
from tests.unit.gateways import SANDAL

ID = "0123456789abcdef" * 2
OPEN = Standing(total=3, completed=1, state=State.OPEN, deadline_ms=1_000)


def job(**changes: object) -> Job:
    fresh = Job(
        id=ID,
        owner="",
        created_ms=0,
        deadline_ms=1_000,
        expires_ms=2_000,
        total=3,
        size_bytes=0,
        request=JobRequest(filenames=["a", "b", "c"], request_id="r"),
    )
    return msgspec.structs.replace(fresh, **changes)


def refusal(index: int) -> Result:
    return Result(ID, index, encode_refusal(NotAPicture("empty"), "r"))


@pytest.mark.parametrize(
    ("state", "completed", "status"),
    [
        (State.OPEN, 0, Status.ACCEPTED),
        (State.OPEN, 1, Status.RUNNING),
        (State.OPEN, 3, Status.DONE),
        (State.CANCELED, 1, Status.CANCELED),
        (State.EXPIRED, 2, Status.EXPIRED),
    ],
)
def test_the_status_follows_from_state_and_results(state: State, completed: int, status: Status) -> None:
    found = job(state=state, completed=completed)
    assert status_of(found) is status
    assert found.is_over == (status not in (Status.ACCEPTED, Status.RUNNING))


def test_a_correlation_id_says_which_picture_of_which_job() -> None:
    assert picture_of(correlation_id(ID, 12)) == (ID, 12)
    strange = ("", ID, f"{ID}.", f"{ID}.x", f"{ID}.-1", f"{ID}.1234567", f"x{ID}.1", f"{ID}.1 ", f"{ID}.٣")
    assert [picture_of(each) for each in strange] == [None] * len(strange)
    assert is_id(ID)
    assert not is_id(ID.upper())


def test_results_are_placed_behind_those_that_are_there() -> None:
    new = [Result(ID, index, b"") for index in (2, 0)]
    placed, completed, added = assign(new, {ID: OPEN}, set(), now_ms=0)
    assert [(result.index, place) for result, place in placed] == [(2, 2), (0, 3)]
    assert completed == {ID: 3}
    assert added == Added(2, 0, 0)


@pytest.mark.parametrize(
    ("standing", "index", "now_ms", "added"),
    [
        (OPEN, 1, 0, Added(0, 1, 0)),
        (OPEN, 3, 0, Added(0, 0, 1)),
        (OPEN, 0, 1_000, Added(0, 0, 1)),
        (OPEN._replace(state=State.CANCELED), 0, 0, Added(0, 0, 1)),
        (OPEN._replace(state=State.EXPIRED), 0, 0, Added(0, 0, 1)),
        (None, 0, 0, Added(0, 0, 1)),
    ],
)
def test_a_result_that_nobody_waits_for_is_not_placed(
    standing: Standing | None, index: int, now_ms: int, added: Added
) -> None:
    jobs = {} if standing is None else {ID: standing}
    assert assign([Result(ID, index, b"")], jobs, {(ID, 1)}, now_ms) == ([], {}, added)


def test_a_document_has_results_in_the_order_of_the_pictures() -> None:
    found = document(job(completed=2), [refusal(2), refusal(0)])
    assert (found.status, found.completed, found.total) == ("running", 2, 3)
    assert [entry.filename for entry in found.results] == ["a", "c"]
    assert found.created_at == "1970-01-01T00:00:00.000Z"
    assert found.expires_at == "1970-01-01T00:00:02.000Z"


def test_events_are_numbered_as_results_came_and_go_on_where_they_were() -> None:
    results = [refusal(2), refusal(0)]
    assert [(each.number, each.entry.index) for each in events(job(), results)] == [(1, 2), (2, 0)]
    assert events(job(), results[1:], after=1) == events(job(), results)[1:]


def test_an_expired_job_has_a_problem_for_each_picture_without_a_result() -> None:
    expired = job(state=State.EXPIRED, completed=1)
    assert unfinished(expired, [refusal(1)]) == [0, 2]
    found = document(expired, [refusal(1)])
    kinds = [entry.problem.type for entry in found.results if entry.problem]
    assert [kind.rpartition(":")[2] for kind in kinds] == ["job-expired", "not-a-picture", "job-expired"]
    assert (found.status, found.completed) == ("expired", 3)


def request(query: str = "", **headers: str) -> Request:
    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "query_string": query.encode(), "headers": named})


@pytest.mark.parametrize(
    ("query", "seconds"),
    [("", 0), ("wait=20s", 20), ("wait=500ms", 0.5), ("wait=1.5s", 1.5), ("wait=3600s", 60), ("wait=0s", 0)],
)
def test_a_wait_is_seconds_up_to_the_most(query: str, seconds: float) -> None:
    assert read_wait(request(query), most_ms=60_000) == seconds


def test_a_parameter_that_there_is_not_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="unknown parameter 'wiat'; known: wait"):
        read_wait(request("wiat=20s"), most_ms=60_000)


def test_the_last_event_id_says_how_many_were_seen() -> None:
    assert read_last_event_id(request()) == 0
    assert read_last_event_id(request(last_event_id="12")) == 12
    assert read_last_event_id(request(last_event_id="done")) is None
    with pytest.raises(InvalidRequest):
        read_last_event_id(request(last_event_id="-1"))


def test_pictures_are_judged_one_by_one_and_together() -> None:
    uploads = [Upload(SANDAL, "image/png", "a" * 300), Upload(b"", "image/png", "b")]
    limits = {"max_bytes": 10_000, "max_pixels": 10_000}
    good, bad = judged = judge(uploads, **limits)
    check_total(judged, len(SANDAL))
    assert (good.media_type, good.filename, good.refusal) == ("image/png", "a" * 255, None)
    assert isinstance(bad.refusal, NotAPicture)
    with pytest.raises(
        TooLarge,
        match=rf"the job has {len(SANDAL)} bytes of pictures; at most {len(SANDAL) - 1} .*jobs\.max_bytes",
    ):
        check_total(judged, len(SANDAL) - 1)


@pytest.mark.parametrize(("count", "index"), [(1, None), (2, 0)])
def test_a_job_of_which_every_picture_is_refused_is_refused(count: int, index: int | None) -> None:
    uploads = [Upload(b"", "", "a"), Upload(SANDAL, "text/html", "b")][:count]
    with pytest.raises(NotAPicture) as refused:
        judge(uploads, max_bytes=10_000, max_pixels=10_000)
    assert refused.value.index == index


def test_a_picture_of_a_job_is_known_by_its_digest() -> None:
    known = JobRequest(
        filenames=["a", "b"], digests=b"".join(digest_each([Upload(SANDAL, "", ""), Upload(b"", "", "")]))
    )
    assert [known.sha256_of(index) for index in range(3)] == [sha256_of(SANDAL), sha256_of(b""), None]
    assert JobRequest(filenames=["a"]).sha256_of(0) is None


def test_a_fingerprint_is_what_it_was_in_the_release_before() -> None:
    """A key may be repeated across an upgrade. Written by release 0.2.0."""
    uploads = [Upload(b"picture", "image/png", "a.png")]
    its = fingerprint(uploads, digest_each(uploads), Query(model="fashion-mnist", top_k=3))
    assert its == "a9c595ab054bb192b265191232d62cb3a3604a3a1927c58faa82c1006a12913a"


def test_a_fingerprint_changes_with_all_that_is_asked() -> None:
    upload = Upload(SANDAL, "image/png", "a.png")

    def its(uploads: list[Upload], asked: Query) -> str:
        return fingerprint(uploads, digest_each(uploads), asked)

    first = its([upload], Query())
    assert its([Upload(*upload)], Query()) == first
    others = [
        its([upload, upload], Query()),
        its([], Query()),
        its([upload], Query(top_k=1)),
        its([upload], Query(version="1.4.0")),
        its([upload._replace(content=SANDAL + b"x")], Query()),
        its([upload._replace(filename="b.png")], Query()),
    ]
    assert len({first, *others}) == 7
