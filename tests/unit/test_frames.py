"""Frames as anyone may have written them, and which messages go together."""

import string

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from messaging import codec, frames
from messaging.broker import Message
from messaging.contract import ContractError
from messaging.frames import FRAME, MAX_MESSAGES, Gathered, Gathering, frame_of, messages_of, packed

# However busy the machine is.
TRIED = settings(deadline=None, database=None, suppress_health_check=list(HealthCheck))

TEXT = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=20)
MESSAGES = st.builds(Message, st.binary(max_size=50), st.dictionaries(TEXT, TEXT, max_size=4)).filter(
    lambda message: FRAME not in message.headers
)


def parts(*messages: Message) -> list[bytes]:
    found = [packed(message) for message in messages]
    assert None not in found
    return [part for part in found if part is not None]


@TRIED
@given(st.lists(MESSAGES, min_size=1, max_size=10))
def test_what_is_put_into_a_frame_comes_out_in_order(messages: list[Message]) -> None:
    frame = frame_of(parts(*messages))
    assert frame.headers == {FRAME: str(len(messages))}
    assert messages_of(frame) == messages


@TRIED
@given(
    st.lists(MESSAGES, min_size=1, max_size=4),
    st.integers(min_value=0),
    st.binary(max_size=4),
    st.integers(0, 4),
    TEXT,
)
def test_a_damaged_frame_is_read_as_messages_or_not_at_all_and_then_it_cannot_be_answered(
    messages: list[Message], at: int, instead: bytes, cut: int, count: str
) -> None:
    frame = frame_of(parts(*messages))
    at %= len(frame.body)
    body = frame.body[:at] + instead + frame.body[at + cut :]
    for damaged in (Message(body, frame.headers), Message(body, {FRAME: count})):
        found = messages_of(damaged)
        if found is not None:
            assert str(len(found)) == damaged.headers[FRAME]
            assert all(FRAME not in each.headers for each in found)
        else:
            answerable = Message(damaged.body, {**damaged.headers, "correlation_id": "1", "reply_to": "r"})
            with pytest.raises(ContractError, match=r"^frame: ") as raised:
                codec.return_address(answerable)
            assert len(str(raised.value)) < 500


@pytest.mark.parametrize(
    ("body", "count"),
    [
        (b"", "1"),
        (b"\x90", "0"),
        (b"\x91\x92\x80\xc4\x01x", "2"),
        (b"\x91\x92\x80\xc4\x01x", "01"),
        (b"\x91\x92\x80\xc4\x01x", ""),
        (b"\x91\x92\x80\xc4\x01xx", "1"),
        (b"\x91\x93\x80\xc4\x01x\xc0", "1"),
        (b"\x91\x92\x81\xa1a\x01\xc4\x01x", "1"),
        (b"\x91\x92\x81\xa1a\xa1\xff\xc4\x01x", "1"),
        (b"\xdd\xff\xff\xff\xff", str(2**32 - 1)),
        (b"\x91" * 100_000, "1"),
        (msgspec.msgpack.encode([({}, b"")] * (MAX_MESSAGES + 1)), str(MAX_MESSAGES + 1)),
        (msgspec.msgpack.encode([({FRAME: "1"}, b"\x91\x92\x80\xc4\x00")]), "1"),
    ],
)
def test_what_is_no_frame_is_delivered_as_it_came(body: bytes, count: str) -> None:
    assert messages_of(Message(body, {FRAME: count})) is None
    assert frames.why_not_read(Message(body, {FRAME: count})).startswith("frame: ")


def test_as_many_messages_as_a_frame_may_have_are_read() -> None:
    body = msgspec.msgpack.encode([({}, b"")] * MAX_MESSAGES)
    assert messages_of(Message(body, {FRAME: str(MAX_MESSAGES)})) == [Message(b"")] * MAX_MESSAGES


@pytest.mark.parametrize(
    "alone",
    [
        Message(bytes(65_537)),
        Message(b"", {"name": "x" * 65_536}),
        Message(b"", {"name": b"\xff".decode("utf-8", "surrogateescape")}),
        Message(b"", {b"\xff".decode("utf-8", "surrogateescape"): ""}),
        Message(b"", {FRAME: "1"}),
    ],
    ids=["large", "large headers", "a value that is not text", "a name that is not text", "a frame"],
)
def test_what_does_not_fit_into_a_frame_travels_alone(alone: Message) -> None:
    assert packed(alone) is None


class Made:
    """To the places a and b, with small messages unless said otherwise."""

    def __init__(self, max_message_bytes: int = 1_000_000) -> None:
        self.gathering: Gathering[str] = Gathering(max_message_bytes)

    def add(self, place: str, body: str, size: int = 1) -> str:
        _, ready = self.gathering.add(place, Message(body.encode()), body.encode().ljust(size, b" "))
        return "" if ready is None else self.names(ready)

    def turn(self) -> dict[str, str]:
        return {place: self.names(its) for place, its in self.gathering.turn()}

    def close(self) -> dict[str, str]:
        return {place: self.names(its) for place, its in self.gathering.close()}

    @staticmethod
    def names(gathered: Gathered) -> str:
        return b"".join(gathered.parts).decode().replace(" ", "")


def test_what_comes_first_goes_at_once_and_what_follows_is_gathered_by_place() -> None:
    made = Made()
    assert [made.add("a", "1"), made.add("a", "2")] == ["1", "2"]
    assert made.turn() == {}
    assert [made.add("a", "3"), made.add("b", "4"), made.add("a", "5")] == ["", "", ""]
    assert made.turn() == {"a": "35", "b": "4"}
    assert made.turn() == {}


def test_what_goes_together_is_published_together_and_one_alone_as_it_was() -> None:
    gathering: Gathering[str] = Gathering(1_000_000)
    gathering.turn()
    messages = [Message(b"1"), Message(b"2"), Message(b"3")]
    alone, at_once = gathering.add("a", messages[0], packed(messages[0]) or b"")
    assert at_once is not None and at_once.published is alone and at_once.together() is messages[0]
    gathering.turn()
    ends = [gathering.add("a", each, packed(each) or b"")[0] for each in messages]
    ((_, gathered),) = gathering.turn()
    assert all(each is gathered.published and each is not alone for each in ends)
    assert messages_of(gathered.together()) == messages


def test_nobody_can_cancel_what_is_being_published() -> None:
    _, at_once = Gathering[str](1_000_000).add("a", Message(b""), b"")
    assert at_once is not None and not at_once.published.cancel()


def test_a_full_frame_goes_at_once() -> None:
    made = Made()
    made.add("a", "first")
    made.turn()
    letters = string.ascii_letters[:32]
    assert [made.add("a", letter) for letter in letters] == [""] * 31 + [letters]
    assert made.turn() == {}


def test_a_frame_stays_well_below_what_the_broker_accepts() -> None:
    made = Made(max_message_bytes=100)
    made.add("a", "first")
    made.turn()
    assert [made.add("a", "1", 30), made.add("a", "2", 30), made.add("a", "3", 10)] == ["", "1", ""]
    assert made.turn() == {"a": "23"}


def test_when_no_more_come_the_next_goes_at_once_again() -> None:
    made = Made()
    made.add("a", "1")
    turns = 0
    made.turn()
    while made.gathering.is_open:
        turns += 1
        assert made.turn() == {}
        assert turns < 1_000
    assert turns > 1
    assert made.add("a", "2") == "2"


def test_what_waits_goes_when_it_is_closed() -> None:
    made = Made()
    made.add("a", "1")
    made.turn()
    made.add("a", "2")
    assert made.close() == {"a": "2"}
    assert made.add("a", "3") == "3"
