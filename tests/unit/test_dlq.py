"""`mlaas dlq` below the command line: over a broker in memory, with a whole worker where one answers."""

import json
import threading
import time

import pytest
from msgspec.structs import replace

from messaging import codec
from messaging.broker import Broker, Delivery, LogPosition, Message, NoSuchRecord
from messaging.contract import MAX_HEADERS, ErrorCode, Reply, sha256_of
from messaging.memory import MemoryBroker
from mlaas.commands import dlq
from mlaas.commands.broker import Requester
from mlaas.errors import UserError
from tests import fragile_model
from tests.unit.workers import SANDAL, SETTINGS, Running, worker

DEAD = SETTINGS.topics.dead_letters


def bury(broker: Broker, body: bytes, reason: str = "why", **headers: str) -> None:
    request = Delivery(Message(body, headers), SETTINGS.topics.requests, LogPosition(5, 42), 123)
    broker.publish(DEAD, codec.encode_letter(request, reason)).result()


@pytest.fixture
def broker() -> MemoryBroker:
    broker = MemoryBroker()
    for number in range(5):
        bury(broker, b"x" * number, f"reason {number}")
    return broker


def replay_all(running: Running, timeout_s: float = 60) -> list[tuple[str, ErrorCode | None]]:
    records = running.broker.records(DEAD)
    with Requester(running.broker, SETTINGS.topics, "replay") as requester:
        answers = dlq.replayed(requester, records.read(), timeout_s)
        return [(str(letter.position), reply.error and reply.error.code) for letter, reply in answers]


def test_a_list_with_a_limit_has_the_newest(broker: MemoryBroker) -> None:
    records = broker.records(DEAD)
    assert [str(letter.position) for letter in dlq.summaries(records, None)] == [
        "0/0",
        "0/1",
        "0/2",
        "0/3",
        "0/4",
    ]
    assert [str(letter.position) for letter in dlq.summaries(records, 2)] == ["0/3", "0/4"]
    assert len(dlq.summaries(records, 99)) == 5


def test_letters_are_found_in_the_order_asked_for(broker: MemoryBroker) -> None:
    found = dlq.find(broker.records(DEAD), ["0/3", "0/1"])
    assert [str(letter.position) for letter in found] == ["0/3", "0/1"]


@pytest.mark.parametrize(
    ("place", "has"),
    [
        ("0/5", "no record 0/5: partition 0 has 0 to 4"),
        ("1/0", "no record 1/0: partitions are 0 to 0"),
        ("3:12", "'3:12' is not PARTITION/OFFSET, such as 3/12"),
        ("٣/1", "'٣/1' is not PARTITION/OFFSET"),
        ("1/" + 30 * "9", "is not PARTITION/OFFSET"),
    ],
)
def test_a_letter_that_is_not_there_is_said_before_any_is_used(
    broker: MemoryBroker, place: str, has: str
) -> None:
    with pytest.raises(NoSuchRecord, match=has):
        dlq.find(broker.records(DEAD), ["0/0", place])


def test_nothing_is_deleted_that_was_not_named_and_only_the_oldest_can_be(broker: MemoryBroker) -> None:
    records = broker.records(DEAD)
    assert records.count("0/3") == 3
    assert records.count("0/99") == 5
    assert records.delete(["0/0", "0/1", "0/3"]) == 2
    assert records.count() == 3
    assert records.count("0/1") == 0
    assert records.purge("0/3") == 1
    assert [str(each.position) for each in records.read()] == ["0/3", "0/4"]


@pytest.mark.parametrize("url", ["embedded://", "memory://"])
def test_a_broker_that_lives_in_another_process_is_not_looked_for_in_this_one(url: str) -> None:
    settings = replace(SETTINGS, broker=replace(SETTINGS.broker, url=url))
    with pytest.raises(UserError, match="to --broker"), dlq.opened(settings):
        pass


def test_replayed_letters_are_answered_however_they_died() -> None:
    """Past their deadline, answered or cancelled under their old id, with nowhere to reply to."""

    def send(running: Running) -> None:
        bury(running.broker, SANDAL, "expired", correlation_id="1", deadline_ms="1")
        bury(running.broker, SANDAL, "no correlation_id")
        bury(running.broker, SANDAL, "elsewhere", correlation_id="2", reply_to="elsewhere/0")
        bury(running.broker, SANDAL, "cancelled", correlation_id="gone", reply_to=running.inbox.address)

    with worker(before=send) as running:
        running.send("1", SANDAL)
        running.replies(1)
        running.cancel("gone")
        assert replay_all(running) == [("0/0", None), ("0/1", None), ("0/2", None), ("0/3", None)]
        assert running.inbox.receive(10, 0) == []
        assert len(running.dead_letters()) == 4
    assert running.ended() == {"answered": 5}


def test_a_letter_that_kills_the_model_again_is_buried_again_and_the_next_is_answered() -> None:
    def send(running: Running) -> None:
        bury(running.broker, SANDAL + fragile_model.RAISE)
        bury(running.broker, SANDAL)

    with worker("tests.fragile_model", before=send) as running:
        assert replay_all(running) == [("0/0", ErrorCode.INTERNAL), ("0/1", None)]
    assert [letter.body for letter in running.dead_letters()][2:] == [SANDAL + fragile_model.RAISE]


def test_what_the_worker_refuses_is_said() -> None:
    def send(running: Running) -> None:
        bury(running.broker, SANDAL, model="no-such")

    with worker(before=send) as running:
        assert replay_all(running) == [("0/0", ErrorCode.UNKNOWN_MODEL)]


def test_a_letter_that_no_worker_could_answer_does_not_stop_the_next() -> None:
    def send(running: Running) -> None:
        bury(running.broker, SANDAL, "too many headers", note=(MAX_HEADERS + 1) * "x")
        bury(running.broker, SANDAL, "no correlation_id")

    with worker(before=send) as running:
        assert replay_all(running) == [("0/0", ErrorCode.INVALID_REQUEST), ("0/1", None)]


def test_a_reply_that_cannot_be_the_letters_is_passed_over(broker: MemoryBroker) -> None:
    records = broker.records(DEAD)
    requests = broker.subscribe(SETTINGS.topics.requests, "g")
    true = Reply(sha256=sha256_of(b""), model="m", probabilities={"a": 1.0})

    def answer() -> None:
        (request,) = requests.receive(1, 20)
        address = codec.return_address(request.message)
        for reply in (Reply(sha256="", model="x"), true):
            broker.publish(address.reply_to, codec.encode_reply(reply, address))

    answering = threading.Thread(target=answer)
    answering.start()
    with Requester(broker, SETTINGS.topics, "replay") as requester:
        assert next(dlq.replayed(requester, records.read(), 20))[1] == true
    answering.join()


def test_without_a_worker_the_replay_ends_at_the_first_letter(broker: MemoryBroker) -> None:
    records = broker.records(DEAD)
    before = time.time()
    with Requester(broker, SETTINGS.topics, "replay") as requester:
        asked = dlq.replayed(requester, records.read(), 0.01)
        with pytest.raises(UserError, match=r"0/0 was not answered within 0.01 s.* is a worker running"):
            next(asked)
    (request,) = broker.records(SETTINGS.topics.requests).read()
    assert before + 0.01 <= int(request.message.headers["deadline_ms"]) / 1000 + 0.001 <= time.time() + 0.02


def test_no_control_character_reaches_the_terminal() -> None:
    evil = "\x1b]0;owned\x07\r\n" + b"\xff".decode("utf-8", "surrogateescape")
    headers = {
        "correlation_id": evil,
        "model": evil,
        evil: evil,
        "kafka_dlt-exception-message": evil,
        "kafka_dlt-original-topic": evil,
        "kafka_dlt-original-position": evil,
    }
    delivery = Delivery(Message(b"\x1b[2J", headers), DEAD, LogPosition(0, 0), 0)
    letter = codec.decode_letter(delivery)
    text = dlq.as_text(dlq.details(delivery))
    shown = [*dlq.table([letter]), *text.split("\n")]
    shown += [json.dumps(dlq.facts(letter)), json.dumps(dlq.details(delivery))]
    assert all(line.isprintable() for line in shown), shown
    assert "\\x1b]0;owned\\x07\\r\\n\\xff" in text


def test_a_table_has_a_line_for_each_with_long_reasons_cut(broker: MemoryBroker) -> None:
    bury(broker, b"12345", "r" * 100, correlation_id="abc", model="m")
    title, *lines = dlq.table(dlq.summaries(broker.records(DEAD), None))
    assert title.split() == ["LETTER", "WHEN", "(UTC)", "BYTES", "MODEL", "REQUEST", "ORIGINAL", "REASON"]
    assert lines[0].split()[0] == "0/0"
    assert lines[0].endswith("-      -        predict.requests/5/42  reason 0")
    assert lines[5].split()[3:] == ["5", "m", "abc", "predict.requests/5/42", f"{'r' * 59}…"]


def test_json_names_the_letter_as_the_command_line_takes_it(broker: MemoryBroker) -> None:
    (letter,) = dlq.summaries(broker.records(DEAD), 1)
    facts = json.loads(json.dumps(dlq.facts(letter)))
    assert facts.pop("at").endswith("Z")
    assert facts == {
        "letter": "0/4",
        "reason": "reason 4",
        "model": "",
        "request_id": "",
        "size_bytes": 4,
        "original": {"topic": "predict.requests", "position": "5/42"},
    }
