"""Dead letters on the wire."""

from messaging import codec
from messaging.broker import Delivery, LogPosition, Message
from messaging.codec import Letter, Origin
from messaging.contract import Request

REQUEST = Request(
    body=b"picture",
    correlation_id="7",
    reply_to="predict.replies/3",
    deadline_ms=5,
    content_type="image/png",
    model="fashion-mnist",
    mode="photo",
    traceparent="00-1-2-01",
)


def buried(message: Message, reason: str = "code -11") -> Delivery:
    letter = codec.encode_letter(Delivery(message, "predict.requests", LogPosition(5, 42), 123), reason)
    return Delivery(letter, "predict.dead-letters", LogPosition(1, 9), 1_700_000_000_000)


def test_a_letter_tells_what_was_written_into_it() -> None:
    assert codec.decode_letter(buried(codec.encode_request(REQUEST))) == Letter(
        position=LogPosition(1, 9),
        buried_at_ms=1_700_000_000_000,
        reason="code -11",
        model="fashion-mnist",
        request_id="7",
        size_bytes=7,
        original=Origin("predict.requests", "5/42"),
    )


def test_what_others_wrote_to_the_topic_is_a_letter_that_says_little() -> None:
    spring = {"kafka_dlt-original-topic": "t", "kafka_dlt-original-partition": "\0\0\0\5"}
    letter = codec.decode_letter(Delivery(Message(b"", spring), "dead", LogPosition(0, 0), 0))
    assert (letter.reason, letter.model, letter.request_id, letter.original) == ("", "", "", None)


def test_the_letters_of_older_workers_say_where_they_came_from() -> None:
    theirs = {
        "kafka_dlt-original-topic": "t",
        "kafka_dlt-original-partition": "5",
        "kafka_dlt-original-offset": "42",
    }
    letter = codec.decode_letter(Delivery(Message(b"", theirs), "dead", LogPosition(0, 0), 0))
    assert letter.original == Origin("t", "5/42")


def test_a_revived_request_is_the_same_but_for_who_waits_and_how_long() -> None:
    letter = buried(codec.encode_request(REQUEST)).message
    revived = codec.revive(letter, correlation_id="new", reply_to="predict.replies/0", deadline_ms=99)
    expected = {"correlation_id": "new", "reply_to": "predict.replies/0", "deadline_ms": 99}
    fields = {name: getattr(REQUEST, name) for name in REQUEST.__struct_fields__}
    assert codec.decode_request(revived) == Request(**{**fields, **expected})
    assert set(revived.headers) == set(codec.encode_request(REQUEST).headers)


def test_nothing_tells_a_revived_request_that_it_failed_before_or_who_asked_first() -> None:
    marks = {
        "kafka_deliveryAttempt": "\0\0\0\3",
        "retry_topic-attempts": "\0\0\0\2",
        "kafka_correlationId": "old",
        "kafka_replyTopic": "elsewhere",
        "kafka_replyPartition": "4",
        "frames": "1",
        "theirs": "kept",
    }
    letter = buried(Message(b"x", marks)).message
    revived = codec.revive(letter, correlation_id="new", reply_to="r/0", deadline_ms=99)
    fresh = {"correlation_id": "new", "reply_to": "r/0", "deadline_ms": "99"}
    assert revived == Message(b"x", {"theirs": "kept", **fresh})
    assert codec.return_address(revived).correlation == {"correlation_id": "new"}
