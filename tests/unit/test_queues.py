"""Models with queues of their own: the topics, who takes them, and what is refused when one is silent."""

import asyncio
import threading
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from gateway.errors import TooManyInFlight, Unavailable, UnknownModel
from gateway.pending import Capacity, Pending
from gateway.presence import Presence
from messaging import SHARED, TopicSettings, codec
from messaging.broker import Message
from messaging.contract import Reply, Request
from messaging.memory import MemoryBroker
from mlaas.commands.broker import Requester
from mlaas.errors import UserError
from mlaas.settings import SettingsError, as_environment, load
from mlaas.up import shares
from tests.unit.gateways import LARGE, PNG, SANDAL, SMALL, gateway, gateway_settings, problem, sandal, working
from tests.unit.jobbing import Gateway, submit, until_status
from tests.unit.workers import Running, worker

pytestmark = pytest.mark.anyio

PHOTOS = load(None, {"MLAAS_TOPICS__QUEUES": "{clothing-photo: photos, portraits: photos}"})
TOPICS = PHOTOS.topics
PHOTO = replace(SMALL, name="clothing-photo")
NAMES = ("model.names", "[fashion-mnist, clothing-photo, portraits]")


def test_the_queue_of_a_model_has_topics_and_groups_that_are_named_after_the_shared_ones() -> None:
    queue = TOPICS.queue_of("clothing-photo")
    assert (queue.requests, queue.jobs) == ("predict.requests.photos", "predict.jobs.photos")
    assert queue.models == ("clothing-photo", "portraits")
    assert TOPICS.queue_of("portraits") == queue
    shared = TOPICS.queue_of("any other")
    assert shared == TOPICS.queue_of("") == TOPICS.all_queues()[0]
    assert (shared.requests, shared.jobs) == ("predict.requests", "predict.jobs")
    groups = [*queue.groups("g"), *shared.groups("g")]
    assert groups == ["g.requests.photos", "g.jobs.photos", "g", "g.jobs"]


def test_the_topics_of_all_queues_are_created_and_without_queues_those_that_there_always_were() -> None:
    def partitions(topics: TopicSettings) -> dict[str, int]:
        return {topic.name: topic.partitions for topic in topics.wanted("workers")}

    own = {"predict.requests.photos": 12, "predict.jobs.photos": 12}
    usual = load(None, {}).topics
    assert partitions(TOPICS) == partitions(usual) | own
    assert len(partitions(usual)) == 6
    assert {group for topic in TOPICS.wanted("workers") for group in topic.groups} == {
        "workers",
        "workers.jobs",
        "workers.requests.photos",
        "workers.jobs.photos",
    }


@pytest.mark.parametrize(
    ("queues", "says"),
    [
        ("{flowers: a.b}", r"topics\.queues"),
        ("{flowers: [photos]}", r"topics\.queues"),
        ("{flowers: " + 64 * "x" + "}", "too long for Kafka"),
        ("photos", r"topics\.queues is a section"),
        ("{flowers", r"'\{flowers' is not a mapping; write one as \{a: b\}"),
    ],
)
def test_a_queue_that_cannot_be_is_refused(queues: str, says: str) -> None:
    environment = {"MLAAS_TOPICS__QUEUES": queues, "MLAAS_TOPICS__REQUESTS": 200 * "r"}
    with pytest.raises(SettingsError, match=says):
        load(None, environment)


def test_a_queue_whose_topic_has_another_use_is_refused() -> None:
    environment = {"MLAAS_TOPICS__REQUESTS": "predict", "MLAAS_TOPICS__QUEUES": "{flowers: replies}"}
    with pytest.raises(SettingsError, match=r"queue replies needs the topic predict\.replies, which has"):
        load(None, environment)


def test_later_sources_add_models_and_move_them_and_children_read_the_same(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("topics: {queues: {a: slow, B.2: slow}}")
    settings = load(file, {"MLAAS_TOPICS__QUEUES": "{c: fast}"}, [("topics.queues", '{"a": "shared"}')])
    assert settings.topics.queues == {"a": "shared", "B.2": "slow", "c": "fast"}
    assert [queue.name for queue in settings.topics.all_queues()] == [SHARED, "slow", "fast"]
    assert settings.topics.queue_of("a").name == SHARED
    assert load(file, as_environment(settings)) == settings


def test_workers_take_the_queues_of_their_models() -> None:
    settings = load(None, as_environment(PHOTOS), [NAMES])
    taken = {queue.name: models for queue, models in shares(settings).items()}
    assert taken == {SHARED: ["fashion-mnist"], "photos": ["clothing-photo", "portraits"]}
    only = load(None, as_environment(settings), [("model.names", "[portraits, clothing-photo]")])
    assert [queue.name for queue in shares(only)] == ["photos"]


def test_a_worker_that_lacks_a_model_of_its_queue_is_refused() -> None:
    lacking = load(None, as_environment(PHOTOS), [("model.names", "[clothing-photo]")])
    with pytest.raises(UserError, match="queue photos of clothing-photo is also that of portraits; serve"):
        shares(lacking)


def test_only_the_workers_of_a_queue_that_is_not_silent_count() -> None:
    presence = Presence(TOPICS, gateway_settings(worker_silence_ms=5_000))
    shared, photos = presence.channels
    for channel in presence.channels:
        channel.liveness.opened()
    assert presence.why_not_ready(0) == "no worker of the queue shared has answered yet"
    photos.liveness.heard(10)
    photos.catalogue.heard([PHOTO], 10)
    assert presence.why_not_ready(10) is None
    assert presence.why_refused(photos, 10) is None
    refusal = "no worker of the queue shared has answered yet; served now: clothing-photo"
    assert presence.why_refused(shared, 10) == refusal
    assert presence.why_not_ready(16) == "no worker of the queue photos has answered for 6 s"


def test_the_models_of_all_queues_are_known_and_requests_without_a_name_are_for_the_shared_default() -> None:
    presence = Presence(TOPICS, gateway_settings(worker_silence_ms=5_000))
    shared, photos = presence.channels
    shared.liveness.heard(1)
    shared.catalogue.heard([SMALL, LARGE], 1)
    photos.catalogue.heard([PHOTO, LARGE], 1)  # the default of its worker; and it would answer for LARGE, too
    known = {model.name: (model.queue, model.default, model.ready) for model in presence.models(1)}
    assert known == {
        "fashion-mnist": (SHARED, True, True),
        "fashion-mnist-large": (SHARED, False, True),
        "clothing-photo": ("photos", False, False),
    }
    assert presence.named("clothing-photo", "", 1).queue == "photos"
    with pytest.raises(UnknownModel, match="'none'; served: fashion-mnist 1, fashion-mnist-large 1"):
        presence.named("none", "", 1)
    with pytest.raises(Unavailable, match="served now: fashion-mnist, fashion-mnist-large"):
        presence.named("portraits", "", 1)


def decode(message: Message) -> Reply:
    return codec.decode_reply(message)


async def test_a_full_queue_leaves_room_to_the_others_and_all_full_ones_have_as_much() -> None:
    capacity = Capacity(90, 9_000, 90_000)
    slow, fast = Pending(capacity), Pending(capacity)
    with ExitStack() as waiting:

        def fill(pending: Pending, name: str) -> int:
            count = 0
            with pytest.raises(TooManyInFlight, match=r"\d+ requests are in flight"):
                while True:
                    pending.admit(1, 0.1, 30)
                    waiting.enter_context(pending.waiter(f"{name} {count}", 1, 0.1, decode))
                    count += 1
            return count

        assert fill(slow, "slow") == 45
        assert fill(fast, "fast") == 22
        with pytest.raises(TooManyInFlight):
            slow.admit(1, 0.1, 30)
    alone = Pending(Capacity(90, 9_000, 90_000))
    with ExitStack() as waiting:
        assert fill(alone, "alone") == 90


async def test_a_slow_queue_does_not_lengthen_the_estimated_wait_of_another() -> None:
    now = 0.0
    capacity = Capacity(10_000, 10**9, 10**9)
    slow, fast = Pending(capacity, lambda: now), Pending(capacity, lambda: now)
    for number in range(20):
        with slow.waiter(f"slow {number}", 1, 0.1, decode):
            now += 10
            slow.resolve(f"slow {number}", codec.encode_reply(Reply(sha256=""), ADDRESS))
    with ExitStack() as others:
        for number in range(100):
            others.enter_context(slow.waiter(f"more {number}", 1, 0.1, decode))
            others.enter_context(fast.waiter(f"fast {number}", 1, 0.1, decode))
        fast.admit(1, 0.1, 1)
        with pytest.raises(TooManyInFlight, match="estimated wait"):
            slow.admit(1, 0.1, 1)


ADDRESS = codec.return_address(Message(b"", {"correlation_id": "1", "reply_to": "r/0"}))


def coat(request: Request) -> Reply:
    return msgspec.structs.replace(sandal(request), model=PHOTO.name, probabilities={"Coat": 1.0})


async def test_each_request_goes_to_the_queue_of_its_model_and_only_a_silent_one_is_refused() -> None:
    broker, photos = MemoryBroker(), TOPICS.queue_of("clothing-photo")
    async with gateway(sandal, broker, topics=TOPICS, worker_silence_ms=1_000) as http:
        picture = {"content": SANDAL, "headers": PNG}
        with working(broker, coat, [PHOTO], photos):
            while not (await http.get("/health/ready")).json()["queues"]["photos"]:
                await asyncio.sleep(0.005)
            asked = await http.post("/predict?model=clothing-photo", **picture)
            assert (asked.status_code, asked.json()["label"]) == (200, "Coat")
            assert (await http.post("/predict", **picture)).json()["label"] == "Sandal"
            assert (await http.get("/v2/models/clothing-photo/ready")).status_code == 200
            listed = (await http.get("/models")).json()["models"]
            assert [(each["name"], each["queue"], each["ready"]) for each in listed] == [
                ("fashion-mnist", SHARED, True),
                ("fashion-mnist-large", SHARED, True),
                ("clothing-photo", "photos", True),
            ]
        while (health := (await http.get("/health/ready")).json())["queues"]["photos"]:
            await asyncio.sleep(0.005)
        assert health == {"status": "ready", "queues": {SHARED: True, "photos": False}}
        for path in ("/predict?model=clothing-photo", "/predict/batch?model=portraits"):
            files = {"files": {"file": SANDAL}} if "batch" in path else picture
            refused = await http.post(path, **files)
            assert "served now: fashion-mnist, fashion-mnist-large" in str(problem(refused, 503)["detail"])
            assert int(refused.headers["retry-after"]) > 0
        assert (await http.get("/models/portraits")).status_code == 503
        assert (await http.get("/models/clothing-photo")).json()["ready"] is False
        assert (await http.get("/v2/models/clothing-photo/ready")).status_code == 503
        tensor = {"name": "image", "datatype": "UINT8", "shape": [1, 784], "data": [0] * 784}
        inferred = await http.post("/v2/models/clothing-photo/infer", json={"inputs": [tensor]})
        assert (inferred.status_code, "served now" in inferred.json()["error"]) == (503, True)
        assert (await http.post("/predict", **picture)).status_code == 200
        metrics = (await http.get("/metrics")).text
    assert 'mlaas_queue_ready{queue="photos"} 0.0' in metrics
    assert f'mlaas_queue_ready{{queue="{SHARED}"}} 1.0' in metrics
    assert 'mlaas_queue_requests_total{queue="photos"} 1.0' in metrics
    assert 'mlaas_queue_in_flight_requests{queue="photos"}' in metrics


async def test_a_gateway_whose_shared_queue_is_silent_serves_the_others() -> None:
    broker, photos = MemoryBroker(), TOPICS.queue_of("clothing-photo")
    with working(broker, coat, [PHOTO], photos):
        async with gateway(None, broker, topics=TOPICS) as http:
            while (await http.get("/health/ready")).status_code != 200:
                await asyncio.sleep(0.005)
            asked = await http.post("/predict?model=clothing-photo", content=SANDAL, headers=PNG)
            unnamed = await http.post("/predict", content=SANDAL, headers=PNG)
            listed = (await http.get("/models")).json()["models"]
    assert asked.json()["label"] == "Coat"
    assert "no worker of the queue shared" in str(problem(unnamed, 503)["detail"])
    assert [(each["name"], each["default"]) for each in listed] == [("clothing-photo", False)]


async def test_the_pictures_of_a_job_wait_in_the_queue_of_its_model(tmp_path: Path) -> None:
    broker, photos = MemoryBroker(), TOPICS.queue_of("clothing-photo")
    async with Gateway(broker, tmp_path / "jobs.sqlite3", topics=TOPICS).running() as http:
        job = await submit(http, SANDAL, query="?model=clothing-photo")
        assert [len(broker.kept(topic)[0]) for topic in (photos.jobs, TOPICS.jobs)] == [1, 0]
        with working(broker, coat, [PHOTO], photos):
            document = await until_status(http, job["id"], "done")
    assert document["results"][0]["prediction"]["label"] == "Coat"


def test_a_worker_answers_from_its_own_queue_and_leaves_the_shared_one_alone() -> None:
    queue = replace(TOPICS, queues={"fashion-mnist": "own"}).queue_of("fashion-mnist")

    def send(running: Running) -> None:
        running.send("shared", SANDAL)
        running.send("own", SANDAL, queue.requests)
        running.send("job", SANDAL, queue.jobs)

    with worker(before=send, queue=queue) as running:
        assert running.replies(2).keys() == {"own", "job"}
        assert len(running.broker.subscribe(TOPICS.requests, "mlaas-workers").receive(9, 0)) == 1


def test_what_is_sent_or_replayed_goes_to_the_queue_of_its_model() -> None:
    broker, photos = MemoryBroker(), TOPICS.queue_of("clothing-photo")
    answering = threading.Thread(target=_answer_ping, args=[broker, photos.requests])
    answering.start()
    with Requester(broker, TOPICS, "test") as requester:
        assert requester.ping(photos, 20)
        requester.send(requester.request(SANDAL, 1, model="portraits"))
        requester.send(requester.request(SANDAL, 1))
    answering.join()
    assert [len(broker.kept(topic)[0]) for topic in (photos.requests, TOPICS.requests)] == [2, 1]


def _answer_ping(broker: MemoryBroker, topic: str) -> None:
    (delivery,) = broker.subscribe(topic, "g").receive(1, 20)
    address = codec.return_address(delivery.message)
    broker.publish(address.reply_to, codec.encode_reply(Reply(sha256="", model="m"), address))
