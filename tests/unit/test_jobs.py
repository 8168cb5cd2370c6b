"""Jobs over HTTP, with a broker in memory and a store in a file."""

import asyncio
import sqlite3
import threading
from concurrent.futures import Future
from pathlib import Path

import httpx
import pytest

from gateway.jobs.store import StoreUnavailable
from messaging import codec
from messaging.broker import Message
from messaging.contract import ErrorCode, Failure, Reply, Request, ReturnAddress
from messaging.memory import MemoryBroker
from tests.unit.gateways import PNG, SANDAL, gateway, problem, sandal, silent, working
from tests.unit.jobbing import Gateway, files, job_gateway, parse, submit, until_status

pytestmark = pytest.mark.anyio


def numbered(count: int) -> list[bytes]:
    """Pictures of which no two are alike."""
    return [SANDAL + bytes([number]) for number in range(count)]


class Gate:
    """A worker that answers when it is opened, and then those that are not among the held."""

    def __init__(self, *held: bytes) -> None:
        self.opened = threading.Event()
        self._held = held

    def __call__(self, request: Request) -> Reply | None:
        self.opened.wait(20)
        return None if request.body in self._held else sandal(request)


async def test_every_picture_of_a_job_gets_its_own_result(tmp_path: Path) -> None:
    pictures = numbered(5)
    async with job_gateway(sandal, tmp_path) as http:
        document = await submit(http, *pictures)
        assert (document["total"], document["status"]) == (5, "accepted") or document["completed"]
        done = (await http.get(f"/jobs/{document['id']}", params={"wait": "20s"})).json()
        single = (await http.post("/predict", content=SANDAL, headers=PNG)).json()
    assert (done["status"], done["completed"]) == ("done", 5)
    assert [entry["index"] for entry in done["results"]] == list(range(5))
    assert [entry["filename"] for entry in done["results"]] == [f"{number}.png" for number in range(5)]
    assert all(entry["prediction"]["label"] == "Sandal" for entry in done["results"])
    assert len({entry["prediction"]["sha256"] for entry in done["results"]}) == 5
    assert done["results"][0]["prediction"].keys() == single.keys()
    assert done["created_at"] < done["expires_at"]


@pytest.mark.parametrize(
    ("given", "prefix"),
    [
        ("/ml", "/ml"), ("/ml/v1.2/", "/ml/v1.2"), ("", ""), ("/", ""), ("ml", ""),
        ("//attacker.example", ""), ("https://attacker.example", ""), ("/ml?x", ""), ("/m%0d", ""),
        ("/a,/b", ""),
    ],
)  # fmt: skip
async def test_the_location_of_a_job_begins_with_what_a_proxy_stripped(
    tmp_path: Path, given: str, prefix: str
) -> None:
    async with job_gateway(sandal, tmp_path) as http:
        headers = {**PNG, "X-Forwarded-Prefix": given, "Host": "attacker.example"}
        response = await http.post("/jobs", content=SANDAL, headers=headers)
    assert response.headers["location"] == f"{prefix}/jobs/{response.json()['id']}"


async def test_one_picture_as_the_body_itself_is_a_job_too(tmp_path: Path) -> None:
    async with job_gateway(sandal, tmp_path) as http:
        response = await http.post("/jobs", params={"top_k": 1}, content=SANDAL, headers=PNG)
        assert response.status_code == 202
        done = await until_status(http, response.json()["id"], "done")
    assert done["results"][0]["prediction"]["probabilities"] == {"Sandal": 0.8}


async def test_any_gateway_answers_for_any_job(tmp_path: Path) -> None:
    broker, store = MemoryBroker(), tmp_path / "jobs.sqlite3"
    one, other = Gateway(broker, store), Gateway(broker, store)
    with working(broker, sandal):
        async with one.running() as http_one, other.running() as http_other:
            document = await submit(http_one, *numbered(20))
            done = (await http_other.get(f"/jobs/{document['id']}?wait=20s")).json()
    assert done["completed"] == 20


async def test_a_job_outlives_its_gateway(tmp_path: Path) -> None:
    broker, store = MemoryBroker(), tmp_path / "jobs.sqlite3"
    async with Gateway(broker, store).running() as http:
        document = await submit(http, *numbered(3))
    # Its broker in memory ends with it: what was sent goes on by hand.
    sent = broker.subscribe("predict.jobs", "g").receive(10, 1)
    again = MemoryBroker()
    for delivery in sent:
        again.publish("predict.jobs", delivery.message)
    with working(again, sandal):
        async with Gateway(again, store).running() as http:
            done = (await http.get(f"/jobs/{document['id']}?wait=20s")).json()
    assert (done["status"], done["completed"]) == ("done", 3)


async def test_what_is_no_picture_has_its_problem_at_once(tmp_path: Path) -> None:
    async with job_gateway(silent, tmp_path) as http:
        document = await submit(http, SANDAL, b"no picture", b"")
        assert (document["status"], document["completed"]) == ("running", 2)
        assert [entry["problem"]["status"] for entry in document["results"]] == [422, 422]


async def test_a_job_of_which_every_picture_is_refused_leaves_nothing_behind(tmp_path: Path) -> None:
    async with job_gateway(None, tmp_path) as http:
        first = await submit(http, SANDAL)
        for count in (1, 3):
            refused = problem(await http.post("/jobs", files=files(*[b"no picture"] * count)), 422)
            assert refused["type"] == "urn:mlaas:problem:not-a-picture"
        assert str(refused["detail"]).startswith("picture 0: ")
        with sqlite3.connect(tmp_path / "jobs.sqlite3") as store:
            kept = store.execute("SELECT id FROM mlaas_jobs").fetchall()
        store.close()
    assert kept == [(first["id"],)]


async def test_what_the_worker_refuses_is_a_problem_of_that_picture(tmp_path: Path) -> None:
    def picky(request: Request) -> Reply:
        error = Failure(ErrorCode.UNKNOWN_MODEL, "no such model")
        return Reply(sha256="", error=error) if request.body == SANDAL else sandal(request)

    async with job_gateway(picky, tmp_path) as http:
        document = await submit(http, *numbered(1), SANDAL)
        done = await until_status(http, document["id"], "done")
    assert done["results"][0]["prediction"]["label"] == "Sandal"
    assert done["results"][1]["problem"]["type"] == "urn:mlaas:problem:unknown-model"


async def test_another_version_than_was_asked_for_is_a_problem(tmp_path: Path) -> None:
    """Workers from before versions could be chosen answer with their own."""
    async with job_gateway(sandal, tmp_path) as http:
        for version, outcome in (("1", "prediction"), ("2", "problem")):
            job = await http.post(f"/jobs?version={version}", files=files(SANDAL))
            done = await until_status(http, job.json()["id"], "done")
            assert outcome in done["results"][0]
    assert "of version '2'; served: fashion-mnist 1" in done["results"][0]["problem"]["detail"]


async def test_a_reply_that_comes_again_is_dropped_and_counted(tmp_path: Path) -> None:
    broker = MemoryBroker()

    def twice(request: Request) -> Reply:
        reply = sandal(request)
        address = ReturnAddress(request.reply_to, {"correlation_id": request.correlation_id})
        if not request.is_ping and "." in request.correlation_id and request.body != SANDAL:
            broker.publish(request.reply_to, codec.encode_reply(reply, address))
        return reply

    async with job_gateway(twice, tmp_path, broker) as http:
        document = await submit(http, *numbered(4))
        done = await until_status(http, document["id"], "done")
        assert len(done["results"]) == 4
        while 'dropped_total{reason="duplicate"} 4.0' not in (metrics := (await http.get("/metrics")).text):
            await asyncio.sleep(0.01)
    assert "mlaas_job_results_total 4.0" in metrics
    assert "mlaas_jobs_accepted_total 1.0" in metrics
    assert 'route="/jobs/{id}"' in metrics


async def test_garbage_among_the_replies_harms_nobody(tmp_path: Path) -> None:
    broker = MemoryBroker()
    async with job_gateway(sandal, tmp_path, broker) as http:
        for name in ("", "strange", 32 * "a" + ".0", 32 * "a" + ".x"):
            broker.publish("predict.job-replies", Message(b"garbage", {"correlation_id": name}))
        document = await submit(http, *numbered(2))
        await until_status(http, document["id"], "done")


async def test_waiting_ends_when_the_time_is_over(tmp_path: Path) -> None:
    async with job_gateway(silent, tmp_path) as http:
        document = await submit(http, SANDAL)
        waited = (await http.get(f"/jobs/{document['id']}?wait=50ms")).json()
    assert waited["status"] == "accepted"


@pytest.mark.parametrize("wait", ["20", "s", "-1s", "1m", "1e3s", "", "nan"])
async def test_a_wait_that_is_none_is_refused_with_what_would_be_right(tmp_path: Path, wait: str) -> None:
    async with job_gateway(None, tmp_path) as http:
        document = await submit(http, SANDAL)
        response = await http.get(f"/jobs/{document['id']}", params={"wait": wait})
    assert "20s" in str(problem(response, 422)["detail"])


@pytest.mark.parametrize("job_id", ["unknown", 32 * "0", 5000 * "a"])
@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("DELETE", ""), ("GET", "/events")])
async def test_an_unknown_job_is_404(tmp_path: Path, job_id: str, method: str, path: str) -> None:
    async with job_gateway(None, tmp_path) as http:
        response = await http.request(method, f"/jobs/{job_id}{path}")
    assert problem(response, 404)["type"] == "urn:mlaas:problem:unknown-job"


@pytest.mark.parametrize(("method", "path"), [("GET", ""), ("DELETE", ""), ("GET", "/events")])
async def test_another_keys_job_is_as_one_that_is_not_there(tmp_path: Path, method: str, path: str) -> None:
    broker, store = MemoryBroker(), tmp_path / "jobs.sqlite3"
    async with Gateway(broker, store).running("anna") as annas, Gateway(broker, store).running("ben") as bens:
        document = await submit(annas, SANDAL)
        problem(await bens.request(method, f"/jobs/{document['id']}{path}"), 404)
        assert (await annas.get(f"/jobs/{document['id']}")).status_code == 200


async def test_a_key_lists_its_own_jobs_newest_first(tmp_path: Path) -> None:
    broker, store = MemoryBroker(), tmp_path / "jobs.sqlite3"
    async with Gateway(broker, store).running("anna") as annas, Gateway(broker, store).running("ben") as bens:
        submitted = [(await submit(annas, *numbered(count)))["id"] for count in (1, 2, 3)]
        await submit(bens, SANDAL)
        page = (await annas.get("/jobs?limit=2")).json()
        rest = (await annas.get(f"/jobs?before={page['jobs'][-1]['id']}")).json()
    assert page["has_more"] and not rest["has_more"]
    listed = page["jobs"] + rest["jobs"]
    assert {job["id"] for job in listed} == {*submitted}
    assert [job["created_at"] for job in listed] == sorted(
        (job["created_at"] for job in listed), reverse=True
    )
    assert {(job["total"], job["status"]) for job in listed} == {(count, "accepted") for count in (1, 2, 3)}


async def test_without_keys_no_job_is_listed(tmp_path: Path) -> None:
    async with job_gateway(None, tmp_path) as http:
        await submit(http, SANDAL)
        assert "keep what submitting returns" in str(problem(await http.get("/jobs"), 403)["detail"])


@pytest.mark.parametrize("query", ["limit=0", "limit=101", "limit=x", "before=x", "wait=2s"])
async def test_a_page_that_is_none_is_refused(tmp_path: Path, query: str) -> None:
    async with Gateway(MemoryBroker(), tmp_path / "jobs.sqlite3").running("anna") as http:
        problem(await http.get(f"/jobs?{query}"), 422)


async def test_the_same_key_finds_the_same_job_at_another_gateway(tmp_path: Path) -> None:
    broker, store = MemoryBroker(), tmp_path / "jobs.sqlite3"
    async with Gateway(broker, store).running() as one, Gateway(broker, store).running() as other:
        first = await submit(one, SANDAL, **{"Idempotency-Key": "k"})
        again = await other.post("/jobs", files=files(SANDAL), headers={"Idempotency-Key": "k"})
        assert (again.status_code, again.json()["id"]) == (202, first["id"])
        assert again.headers["idempotent-replayed"] == "true"
        changed = await other.post("/jobs", files=files(SANDAL, SANDAL), headers={"Idempotency-Key": "k"})
        assert problem(changed, 422)["type"] == "urn:mlaas:problem:idempotency-key-reused"
        odd = await one.post("/jobs", files=files(SANDAL), headers={"Idempotency-Key": "a b"})
        assert "visible ASCII" in str(problem(odd, 422)["detail"])
        assert len(broker.subscribe("predict.jobs", "g").receive(10, 0.1)) == 1


async def test_many_with_the_same_key_at_once_are_one_job(tmp_path: Path) -> None:
    broker = MemoryBroker()
    async with job_gateway(None, tmp_path, broker) as http:
        documents = await asyncio.gather(
            *(submit(http, SANDAL, **{"Idempotency-Key": "k"}) for _ in range(8))
        )
        assert len({document["id"] for document in documents}) == 1
        assert len(broker.subscribe("predict.jobs", "g").receive(10, 0.1)) == 1


async def test_cancelling_tells_the_workers_and_keeps_what_is_finished(tmp_path: Path) -> None:
    pictures = numbered(3)
    broker, worker = MemoryBroker(), Gate(*pictures[1:])
    heard = broker.listen("predict.cancellations")
    worker.opened.set()
    async with job_gateway(worker, tmp_path, broker) as http:
        document = await submit(http, *pictures)
        await until_status(http, document["id"], "running")
        canceled = await http.delete(f"/jobs/{document['id']}")
        assert canceled.status_code == 200
        assert (canceled.json()["status"], canceled.json()["completed"]) == ("canceled", 1)
        cancellation = await asyncio.to_thread(heard.receive, 10, 5)
        assert codec.decode_cancellation(cancellation[0]) == [f"{document['id']}.{n}" for n in (1, 2)]
        for index in (1, 2):
            reply = sandal(Request(body=pictures[index], correlation_id="", reply_to=""))
            address = ReturnAddress("", {"correlation_id": f"{document['id']}.{index}"})
            broker.publish("predict.job-replies", codec.encode_reply(reply, address))
        while 'dropped_total{reason="unknown"} 2.0' not in (await http.get("/metrics")).text:
            await asyncio.sleep(0.01)
        assert (await http.get(f"/jobs/{document['id']}")).json() == canceled.json()


async def test_a_job_that_is_done_cannot_be_canceled(tmp_path: Path) -> None:
    async with job_gateway(sandal, tmp_path) as http:
        document = await submit(http, SANDAL)
        await until_status(http, document["id"], "done")
        assert (await http.delete(f"/jobs/{document['id']}")).json()["status"] == "done"


async def test_a_deadline_that_passes_leaves_a_problem_for_each_picture_that_was_not_answered(
    tmp_path: Path,
) -> None:
    pictures = numbered(3)
    worker = Gate(pictures[0], pictures[2])
    worker.opened.set()
    async with job_gateway(worker, tmp_path, deadline_ms=700) as http:
        document = await submit(http, *pictures)
        over = (await http.get(f"/jobs/{document['id']}?wait=20s")).json()
        stream = (await http.get(f"/jobs/{document['id']}/events")).text
    assert (over["status"], over["completed"]) == ("expired", 3)
    assert over["results"][1]["prediction"]["label"] == "Sandal"
    for index in (0, 2):
        assert over["results"][index]["problem"]["type"] == "urn:mlaas:problem:job-expired"
    assert [(number, data.get("index")) for number, _, data in parse(stream)] == [
        ("1", 1),
        ("2", 0),
        ("3", 2),
        ("done", None),
    ]


async def test_results_whose_time_is_over_are_410_and_later_404(tmp_path: Path) -> None:
    settings = {"deadline_ms": 300, "keep_ms": 1500, "sweep_interval_ms": 20}
    async with job_gateway(sandal, tmp_path, **settings) as http:
        document = await submit(http, SANDAL)
        while (response := await http.get(f"/jobs/{document['id']}")).status_code == 200:
            await asyncio.sleep(0.01)
        assert problem(response, 410)["type"] == "urn:mlaas:problem:job-expired"
        while (response := await http.get(f"/jobs/{document['id']}")).status_code == 410:
            await asyncio.sleep(0.01)
        problem(response, 404)


async def test_results_come_as_events_and_then_done(tmp_path: Path) -> None:
    async with job_gateway(sandal, tmp_path) as http:
        document = await submit(http, *numbered(3))
        async with http.stream("GET", f"/jobs/{document['id']}/events") as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            found = list(parse("".join([chunk async for chunk in response.aiter_text()])))
        done = (await http.get(f"/jobs/{document['id']}")).json()
    assert [event for _, event, _ in found] == ["result"] * 3 + ["done"]
    assert sorted(data["index"] for _, _, data in found[:-1]) == [0, 1, 2]
    assert {data["index"]: data for _, _, data in found[:-1]} == dict(enumerate(done["results"]))
    assert found[-1][2] == {name: value for name, value in done.items() if name != "results"}


async def test_the_last_event_id_goes_on_after_it(tmp_path: Path) -> None:
    async with job_gateway(sandal, tmp_path) as http:
        document = await submit(http, *numbered(3))
        path = f"/jobs/{document['id']}/events"
        whole = list(parse((await http.get(path)).text))
        resumed = list(parse((await http.get(path, headers={"Last-Event-ID": "2"})).text))
        assert resumed == whole[2:]
        assert (await http.get(path, headers={"Last-Event-ID": "done"})).status_code == 204
        beyond = list(parse((await http.get(path, headers={"Last-Event-ID": "99"})).text))
        assert beyond == whole[3:]
        problem(await http.get(path, headers={"Last-Event-ID": "x"}), 422)


async def test_events_come_while_the_job_runs_with_heartbeats_between(tmp_path: Path) -> None:
    """The transport of these tests hands on a whole answer; so the events are asked for without it."""
    pictures = numbered(2)
    broker, worker = MemoryBroker(), Gate()
    one = Gateway(broker, tmp_path / "jobs.sqlite3", heartbeat_ms=30)
    with working(broker, worker):
        async with one.running() as http:
            document = await submit(http, *pictures)
            events = one.jobs.events(document["id"], "", 0)
            assert [await anext(events) for _ in range(3)] == [None, None, None]
            worker.opened.set()
            rest = [event async for event in events if event is not None]
    assert len(rest) == 3


async def test_draining_answers_who_waits_and_ends_event_streams(tmp_path: Path) -> None:
    one = Gateway(MemoryBroker(), tmp_path / "jobs.sqlite3")
    async with one.running() as http:
        document = await submit(http, SANDAL)
        waiting = asyncio.create_task(http.get(f"/jobs/{document['id']}?wait=60s"))
        streaming = asyncio.create_task(http.get(f"/jobs/{document['id']}/events"))
        await asyncio.sleep(0.1)
        assert not waiting.done()
        assert not streaming.done()
        await one.jobs.drain()
        assert (await waiting).json()["status"] == "accepted"
        assert list(parse((await streaming).text)) == []
        problem(await http.post("/jobs", files=files(SANDAL)), 503)


@pytest.mark.parametrize(
    ("settings", "pictures", "status"),
    [
        ({"max_pictures": 2}, 3, 400),
        ({"max_bytes": 500}, 3, 413),
        ({"max_unfinished_bytes": 500}, 3, 413),
        ({"max_unfinished_pictures": 2}, 3, 400),
    ],
)
async def test_a_job_over_a_limit_is_refused(
    tmp_path: Path, settings: dict[str, int], pictures: int, status: int
) -> None:
    async with job_gateway(None, tmp_path, **settings) as http:
        response = await http.post("/jobs", files=files(*numbered(pictures)))
        problem(response, status)


async def test_unfinished_jobs_over_the_limit_are_429_until_one_is_over(tmp_path: Path) -> None:
    async with job_gateway(None, tmp_path, max_unfinished_pictures=3) as http:
        document = await submit(http, *numbered(2))
        full = await http.post("/jobs", files=files(*numbered(2)))
        assert problem(full, 429)["type"] == "urn:mlaas:problem:too-many-jobs"
        assert int(full.headers["retry-after"]) > 0
        await http.delete(f"/jobs/{document['id']}")
        await submit(http, *numbered(2))


async def test_what_the_broker_does_not_take_is_no_job(tmp_path: Path) -> None:
    broker = MemoryBroker(max_message_bytes=len(SANDAL))
    one = Gateway(broker, tmp_path / "jobs.sqlite3", max_unfinished_pictures=2)
    async with one.running() as http:
        for _ in range(3):
            refused = await http.post("/jobs", files=files(SANDAL, SANDAL + b"x"))
            problem(refused, 413)
        await submit(http, SANDAL, SANDAL)


async def test_a_client_that_hangs_up_while_it_submits_leaves_no_job_and_its_key_free(tmp_path: Path) -> None:
    """The broker takes its time: each delivery ends when the test says."""

    class Slow(MemoryBroker):
        def publish(self, address: str, message: Message, *, gather: bool = False) -> Future[None]:
            done = super().publish(address, message, gather=gather)
            if address != "predict.jobs" or opened.is_set():
                return done
            sending.set()
            return Future()

    sending, opened = asyncio.Event(), asyncio.Event()
    one = Gateway(Slow(), tmp_path / "jobs.sqlite3", max_unfinished_pictures=1)
    async with one.running() as http:
        hanging = asyncio.create_task(submit(http, SANDAL, **{"Idempotency-Key": "k"}))
        await sending.wait()
        problem(await http.post("/jobs", files=files(SANDAL)), 429)
        hanging.cancel()
        opened.set()
        await asyncio.wait([hanging])
        document = await submit(http, SANDAL, **{"Idempotency-Key": "k"})
        assert document["total"] == 1


async def test_a_job_that_another_was_told_of_outlives_the_client_that_hangs_up_before_it_hears(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store has accepted it, and is slow to say so."""
    one = Gateway(broker := MemoryBroker(), tmp_path / "jobs.sqlite3")
    accepted, heard = threading.Event(), threading.Event()
    accept = one.jobs._store.accept

    def accept_slowly(job_id: str, now_ms: int) -> bool:
        done = accept(job_id, now_ms)
        accepted.set()
        heard.wait(20)
        return done

    monkeypatch.setattr(one.jobs._store, "accept", accept_slowly)
    cancellations = broker.listen("predict.cancellations")
    async with one.running() as http:
        hanging = asyncio.create_task(submit(http, SANDAL, **{"Idempotency-Key": "k"}))
        await asyncio.to_thread(accepted.wait, 20)
        document = await submit(http, SANDAL, **{"Idempotency-Key": "k"})
        hanging.cancel()
        await asyncio.wait([hanging])
        heard.set()
        assert (await http.get(f"/jobs/{document['id']}")).json()["status"] == "accepted"
        assert await asyncio.to_thread(cancellations.receive, 10, 0.1) == []


async def test_a_job_that_the_store_accepted_before_it_failed_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Gateway(broker := MemoryBroker(), tmp_path / "jobs.sqlite3")
    accept = one.jobs._store.accept

    def accept_and_fail(job_id: str, now_ms: int) -> bool:
        accept(job_id, now_ms)
        raise StoreUnavailable("away")

    monkeypatch.setattr(one.jobs._store, "accept", accept_and_fail)
    cancellations = broker.listen("predict.cancellations")
    async with one.running() as http:
        document = await submit(http, SANDAL)
        assert (await http.get(f"/jobs/{document['id']}")).json()["status"] == "accepted"
        assert await asyncio.to_thread(cancellations.receive, 10, 0.1) == []


async def test_pictures_of_a_job_that_the_store_did_not_accept_are_called_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Gateway(broker := MemoryBroker(), tmp_path / "jobs.sqlite3")
    monkeypatch.setattr(one.jobs._store, "accept", lambda job_id, now_ms: False)
    cancellations = broker.listen("predict.cancellations")
    async with one.running() as http:
        problem(await http.post("/jobs", files=files(SANDAL, SANDAL)), 503)
        (cancellation,) = await asyncio.to_thread(cancellations.receive, 10, 5)
    assert len(codec.decode_cancellation(cancellation)) == 2


async def test_without_a_store_jobs_are_503_and_pictures_are_answered(tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    async with job_gateway(sandal, in_the_way) as http:
        problem(await http.post("/jobs", files=files(SANDAL)), 503)
        problem(await http.get("/jobs/" + 32 * "0"), 503)
        while (await http.get("/health/ready")).status_code != 200:
            await asyncio.sleep(0.01)
        assert (await http.post("/predict", content=SANDAL, headers=PNG)).status_code == 200
        assert (await http.get("/health/live")).status_code == 200


async def test_a_parameter_that_would_be_ignored_is_refused(tmp_path: Path) -> None:
    async with job_gateway(sandal, tmp_path) as http:
        unknown = problem(await http.post("/jobs?modle=x", files=files(SANDAL)), 422)
        in_the_form = problem(await http.post("/jobs", data={"model": "x"}, files=files(SANDAL)), 422)
    assert "unknown parameter 'modle'" in str(unknown["detail"])
    assert in_the_form["detail"] == "'model' belongs in the query: /jobs?model=…"


async def test_a_gateway_without_jobs_has_no_such_route() -> None:
    async with gateway(sandal) as http:
        problem(await http.post("/jobs", files=files(SANDAL)), 404)


async def test_openapi_describes_every_route_with_its_errors(tmp_path: Path) -> None:
    async with job_gateway(None, tmp_path) as http:
        document = (await http.get("/openapi.json")).json()
    said = {
        (method, path): set(described["responses"])
        for path, methods in document["paths"].items()
        for method, described in methods.items()
        if path.startswith("/jobs")
    }
    assert said == {
        ("post", "/jobs"): {"202", "400", "408", "413", "415", "422", "429", "500", "503", "504"},
        ("get", "/jobs"): {"200", "403", "422", "500", "503"},
        ("get", "/jobs/{id}"): {"200", "404", "410", "422", "500", "503"},
        ("delete", "/jobs/{id}"): {"200", "404", "410", "500", "503"},
        ("get", "/jobs/{id}/events"): {"200", "204", "404", "410", "422", "500", "503"},
    }


async def test_hanging_up_ends_the_wait(tmp_path: Path) -> None:
    one = Gateway(MemoryBroker(), tmp_path / "jobs.sqlite3")
    async with one.running() as http:
        document = await submit(http, SANDAL)
        sent: list[dict[str, object]] = []
        incoming: asyncio.Queue[dict[str, object]] = asyncio.Queue()
        incoming.put_nowait({"type": "http.request", "body": b"", "more_body": False})

        async def send(message: dict[str, object]) -> None:
            sent.append(message)

        scope = {
            "type": "http",
            "method": "GET",
            "path": f"/jobs/{document['id']}",
            "query_string": b"wait=60s",
            "headers": [],
        }
        asking = asyncio.create_task(one.app(scope, incoming.get, send))  # type: ignore[arg-type]
        await asyncio.sleep(0.05)
        assert not asking.done()
        incoming.put_nowait({"type": "http.disconnect"})
        await asyncio.wait_for(asking, 10)
        assert sent[0]["status"] == 499
        assert isinstance(http, httpx.AsyncClient)
