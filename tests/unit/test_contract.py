"""The golden messages are literal: whoever changes the wire must change them, and sees what it means."""

import base64
import struct

import msgspec
import pytest

from messaging import codec, frames
from messaging.broker import Message
from messaging.contract import (
    MAX_CANCELLED,
    MAX_CORRELATION_ID,
    MAX_HEADERS,
    MAX_REPLY_TO,
    TENSOR,
    Agreement,
    ContractError,
    ErrorCode,
    Failure,
    Reply,
    Request,
    ReturnAddress,
    ServedModel,
    ServedVersion,
    Timings,
    UnservedModel,
    no_such_model,
    sha256_of,
)

GOLDEN_REQUEST_1 = Message(
    b"\x89PNG...",
    {
        "schema": "1",
        "correlation_id": "c0ffee",
        "reply_to": "predict.replies/7",
        "deadline_ms": "1795000000000",
        "content_type": "image/png",
        "model": "fashion-mnist",
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    },
)
REQUEST_1 = Request(
    body=b"\x89PNG...",
    correlation_id="c0ffee",
    reply_to="predict.replies/7",
    deadline_ms=1795000000000,
    content_type="image/png",
    model="fashion-mnist",
    traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
)

GOLDEN_REPLY_1 = Message(
    b'{"sha256":"ab12","model":"fashion-mnist","version":"1.0.0",'
    b'"probabilities":{"Sandal":0.75,"Sneaker":0.25},'
    b'"timings":{"queue_ms":1.5,"batch_ms":0.25,"decode_ms":0.125,"infer_ms":0.5,"batch_size":2}}',
    {"schema": "1", "correlation_id": "c0ffee", "frames": "1"},
)
REPLY_1 = Reply(
    sha256="ab12",
    model="fashion-mnist",
    version="1.0.0",
    probabilities={"Sandal": 0.75, "Sneaker": 0.25},
    timings=Timings(queue_ms=1.5, batch_ms=0.25, decode_ms=0.125, infer_ms=0.5, batch_size=2),
)

# Added to version 1 later: who does not know these headers and fields ignores them.
GOLDEN_REQUEST_1_EXPLAIN = Message(
    b"\x89PNG...", {**GOLDEN_REQUEST_1.headers, "mode": "photo", "explain": "input"}
)
REQUEST_1_EXPLAIN = msgspec.structs.replace(REQUEST_1, mode="photo", explain="input")

GOLDEN_REQUEST_1_TOP_K = Message(b"\x89PNG...", {**GOLDEN_REQUEST_1.headers, "top_k": "10"})
REQUEST_1_TOP_K = msgspec.structs.replace(REQUEST_1, top_k=10)

GOLDEN_REQUEST_1_FRAMES = Message(b"\x89PNG...", {**GOLDEN_REQUEST_1.headers, "frames": "1"})
REQUEST_1_FRAMES = msgspec.structs.replace(REQUEST_1, reads_frames=True)

GOLDEN_REQUEST_1_VERSION = Message(b"\x89PNG...", {**GOLDEN_REQUEST_1.headers, "version": "1.0.0"})
REQUEST_1_VERSION = msgspec.structs.replace(REQUEST_1, version="1.0.0")

PIXELS = bytes(783) + b"\xff"
GOLDEN_REPLY_1_EXPLAIN = Message(
    b'{"sha256":"ab12","model":"fashion-mnist","version":"1.0.0",'
    b'"probabilities":{"Sandal":0.75,"Sneaker":0.25},'
    b'"in_distribution":false,"ood_score":1.5,"mode":"photo","warnings":["unlike clothing"],'
    b'"input":"' + 261 * b"AAAA" + b'/w==",'
    b'"timings":{"queue_ms":1.5,"batch_ms":0.25,"decode_ms":0.125,"infer_ms":0.5,"batch_size":2}}',
    {"schema": "1", "correlation_id": "c0ffee", "frames": "1"},
)
REPLY_1_EXPLAIN = msgspec.structs.replace(
    REPLY_1,
    in_distribution=False,
    ood_score=1.5,
    mode="photo",
    warnings=["unlike clothing"],
    input=PIXELS,
)

GOLDEN_PING_1 = Message(
    b'{"sha256":"","model":"fashion-mnist","version":"1.0.0","models":[{"name":"fashion-mnist",'
    b'"version":"1.0.0","default":true,"runtime":"onnx","labels":["Sandal","Sneaker"],'
    b'"kind":"garment","input":"28 x 28","shape":[28,28],"dtype":"uint8","output":"probabilities",'
    b'"output_size":2,"sha256":"ab12","accuracy":0.5,'
    b'"versions":[{"version":"1.0.0","share_percent":90,"shadow":null,"sha256":"ab12","accuracy":0.5,"problem":""},'
    b'{"version":"1.1.0","share_percent":10,"shadow":null,"sha256":"cd34","accuracy":null,"problem":""},'
    b'{"version":"1.2.0","share_percent":0,"shadow":{"same":7,"other":2,"failed":1,"skipped":3},'
    b'"sha256":"ef56","accuracy":null,"problem":""}]}],'
    b'"unserved":[{"name":"flowers","versions":[{"version":"1.0.0","share_percent":0,"shadow":null,"sha256":"",'
    b'"accuracy":null,"problem":"no weights"}]}]}',
    {"schema": "1", "correlation_id": "c0ffee", "frames": "1"},
)
PING_1 = Reply(
    sha256="",
    model="fashion-mnist",
    version="1.0.0",
    models=[
        ServedModel(
            name="fashion-mnist",
            version="1.0.0",
            default=True,
            runtime="onnx",
            labels=["Sandal", "Sneaker"],
            input="28 x 28",
            output_size=2,
            sha256="ab12",
            accuracy=0.5,
            versions=[
                ServedVersion(version="1.0.0", share_percent=90, sha256="ab12", accuracy=0.5),
                ServedVersion(version="1.1.0", share_percent=10, sha256="cd34"),
                ServedVersion(
                    version="1.2.0",
                    shadow=Agreement(same=7, other=2, failed=1, skipped=3),
                    sha256="ef56",
                ),
            ],
        )
    ],
    unserved=[UnservedModel(name="flowers", versions=[ServedVersion(version="1.0.0", problem="no weights")])],
)

GOLDEN_ERROR_1 = Message(
    b'{"sha256":"ab12","error":{"code":"invalid_picture","detail":"the PNG ends too early"}}',
    {"schema": "1", "correlation_id": "c0ffee", "frames": "1"},
)
ERROR_1 = Reply(sha256="ab12", error=Failure(ErrorCode.INVALID_PICTURE, "the PNG ends too early"))

# Added to version 1 later: a worker that does not know this content type answers that it is no picture.
GOLDEN_TENSOR_1 = Message(
    b"\x00\x00\x80?\x00\x00\x00\xc0",
    {
        "schema": "1",
        "correlation_id": "c0ffee",
        "reply_to": "predict.replies/7",
        "content_type": "application/vnd.mlaas.tensor",
        "model": "flow",
    },
)
TENSOR_1 = Request(
    body=struct.pack("<2f", 1, -2),
    correlation_id="c0ffee",
    reply_to="predict.replies/7",
    content_type=TENSOR,
    model="flow",
)
GOLDEN_OUTPUTS_1 = Message(
    b'{"sha256":"ab12","model":"flow","version":"1.0.0","outputs":[-0.5,1e300],"mode":"tensor"}',
    {"schema": "1", "correlation_id": "c0ffee", "frames": "1"},
)
OUTPUTS_1 = Reply(sha256="ab12", model="flow", version="1.0.0", outputs=[-0.5, 1e300], mode="tensor")

# Added to version 1 later: gateways that do not know the code take it for a failure of the worker.
GOLDEN_OVERLOADED_1 = Message(
    b'{"sha256":"","error":{"code":"overloaded","detail":"too many"}}',
    {"schema": "1", "correlation_id": "c0ffee", "frames": "1"},
)
OVERLOADED_1 = Reply(sha256="", error=Failure(ErrorCode.OVERLOADED, "too many"))

# Added to version 1 later: only for who says, by the header `frames`, that it reads them.
GOLDEN_FRAME_1 = Message(
    b"\x92\x92\x82\xa6schema\xa11\xaecorrelation_id\xa11\xc4\x01x\x92\x80\xc4\x00", {"frame": "2"}
)
FRAME_1 = [Message(b"x", {"schema": "1", "correlation_id": "1"}), Message(b"")]

ADDRESS = ReturnAddress("predict.replies/7", {"correlation_id": "c0ffee"})


@pytest.mark.parametrize(
    ("request_", "golden"),
    [
        (REQUEST_1, GOLDEN_REQUEST_1),
        (REQUEST_1_EXPLAIN, GOLDEN_REQUEST_1_EXPLAIN),
        (TENSOR_1, GOLDEN_TENSOR_1),
        (REQUEST_1_VERSION, GOLDEN_REQUEST_1_VERSION),
        (REQUEST_1_FRAMES, GOLDEN_REQUEST_1_FRAMES),
        (REQUEST_1_TOP_K, GOLDEN_REQUEST_1_TOP_K),
    ],
    ids=["as first", "explain", "tensor", "version", "frames", "top_k"],
)
def test_a_request_is_written_as_the_golden_bytes_and_read_back(request_: Request, golden: Message) -> None:
    assert codec.encode_request(request_) == golden
    assert codec.decode_request(golden) == request_


@pytest.mark.parametrize(
    ("reply", "golden"),
    [
        (REPLY_1, GOLDEN_REPLY_1),
        (REPLY_1_EXPLAIN, GOLDEN_REPLY_1_EXPLAIN),
        (PING_1, GOLDEN_PING_1),
        (ERROR_1, GOLDEN_ERROR_1),
        (OVERLOADED_1, GOLDEN_OVERLOADED_1),
        (OUTPUTS_1, GOLDEN_OUTPUTS_1),
    ],
    ids=["as first", "explain", "ping", "error", "overloaded", "outputs"],
)
def test_a_reply_is_written_as_the_golden_bytes_and_read_back(reply: Reply, golden: Message) -> None:
    assert codec.encode_reply(reply, ADDRESS) == golden
    assert codec.decode_reply(golden) == reply
    assert codec.correlation_id(golden) == "c0ffee"


def test_a_frame_is_written_as_the_golden_bytes_and_read_back() -> None:
    assert frames.frame_of([part for each in FRAME_1 if (part := frames.packed(each))]) == GOLDEN_FRAME_1
    assert frames.messages_of(GOLDEN_FRAME_1) == FRAME_1


@pytest.mark.parametrize(("said", "reads"), [({"frames": "1"}, True), ({"frames": "2"}, False), ({}, False)])
def test_frames_are_for_who_says_to_read_them(said: dict[str, str], reads: bool) -> None:
    asked = Message(b"x", {"correlation_id": "1", "reply_to": "r", **said})
    assert codec.return_address(asked).reads_frames is reads
    assert frames.reads_frames(codec.encode_reply(REPLY_1, ADDRESS))


@pytest.mark.parametrize("instead", [b"", b'"size":[28,28,1],"takes_mode":true,'])
def test_a_ping_from_before_models_of_other_kinds_is_read_alike(instead: bytes) -> None:
    older = GOLDEN_PING_1.body.replace(b'"kind":"garment",', b"").replace(
        b'"shape":[28,28],"dtype":"uint8","output":"probabilities","output_size":2,', instead
    )
    assert b"kind" not in older
    assert b"shape" not in older
    of_older = msgspec.structs.replace(PING_1.models[0], output_size=0)
    expected = msgspec.structs.replace(PING_1, models=[of_older])
    assert codec.decode_reply(Message(older, GOLDEN_PING_1.headers)) == expected


def test_an_older_workers_ping_says_of_no_model_and_a_newer_ones_may_say_more() -> None:
    older = b'{"sha256":"","model":"m","version":"1"}'
    newer = (
        b'{"sha256":"","model":"m","version":"1","models":[{"name":"m","version":"1","sort":"x"}],"more":[1]}'
    )
    assert codec.decode_reply(Message(older, {})).models == []
    assert codec.decode_reply(Message(newer, {})).models == [ServedModel(name="m", version="1")]


def test_a_ping_from_before_shares_is_read_and_its_version_is_the_one_that_answers() -> None:
    body = GOLDEN_PING_1.body
    older = body[: body.index(b',"versions"')] + b"}]}"
    reply = codec.decode_reply(Message(older, {}))
    (model,) = reply.models
    assert reply.unserved == []
    assert model == msgspec.structs.replace(PING_1.models[0], versions=[])
    assert model.answering == ["1.0.0"]


def test_versions_that_answer_can_be_asked_for_and_a_shadow_cannot() -> None:
    assert PING_1.models[0].answering == ["1.0.0", "1.1.0"]
    assert no_such_model("fashion-mnist", "2", PING_1.models) == (
        "no model 'fashion-mnist' of version '2'; served: fashion-mnist 1.0.0, fashion-mnist 1.1.0"
    )


def test_only_id_and_address_are_required() -> None:
    request = codec.decode_request(Message(b"x", {"correlation_id": "1", "reply_to": "r"}))
    assert request == Request(body=b"x", correlation_id="1", reply_to="r")
    assert request.deadline_ms is None
    assert (request.mode, request.explain) == ("auto", "")


def test_being_in_the_distribution_is_said_not_left_out() -> None:
    body = codec.encode_reply(msgspec.structs.replace(REPLY_1, in_distribution=True), ADDRESS).body
    assert b'"in_distribution":true' in body


@pytest.mark.parametrize("missing", ["correlation_id", "reply_to"])
def test_without_id_or_address_nobody_can_be_answered(missing: str) -> None:
    headers = {"correlation_id": "1", "reply_to": "r"}
    del headers[missing]
    with pytest.raises(ContractError, match=missing):
        codec.return_address(Message(b"", headers))


@pytest.mark.parametrize(
    "changed",
    [
        {"correlation_id": "a" * (MAX_CORRELATION_ID + 1)},
        {"kafka_correlationId": "a" * (MAX_CORRELATION_ID + 1)},
        {"reply_to": "a" * (MAX_REPLY_TO + 1)},
        {"reply_to": "", "kafka_replyTopic": "a" * (MAX_REPLY_TO + 1)},
        {"reply_to": "predict.replies/7\n2026-01-31 INFO all is well"},
        {"traceparent": "a" * MAX_HEADERS},
    ],
)
def test_headers_over_their_bounds_leave_nobody_to_answer(changed: dict[str, str]) -> None:
    with pytest.raises(ContractError) as raised:
        codec.return_address(Message(b"", {"correlation_id": "1", "reply_to": "r", **changed}))
    assert len(str(raised.value)) < 500
    assert "\n" not in str(raised.value)


def test_headers_as_long_as_they_may_be_are_read() -> None:
    longest = {"correlation_id": "a" * MAX_CORRELATION_ID, "reply_to": "a" * MAX_REPLY_TO}
    assert codec.return_address(Message(b"", longest)).correlation_id == longest["correlation_id"]


def test_an_unknown_schema_is_refused_with_a_code_that_says_so() -> None:
    headers = {**GOLDEN_REQUEST_1.headers, "schema": "99"}
    with pytest.raises(ContractError, match=r"'99'.*accepted: 1$") as raised:
        codec.decode_request(Message(b"", headers))
    assert raised.value.code is ErrorCode.UNSUPPORTED_SCHEMA


@pytest.mark.parametrize("deadline", ["soon", "-1", "1e9", "٣", "9" * 16])
def test_a_deadline_that_is_no_number_is_refused(deadline: str) -> None:
    headers = {**GOLDEN_REQUEST_1.headers, "deadline_ms": deadline}
    with pytest.raises(ContractError, match="deadline_ms") as raised:
        codec.decode_request(Message(b"", headers))
    assert raised.value.code is ErrorCode.INVALID_REQUEST


@pytest.mark.parametrize("value", ["-1", "ten", "1" * 16, "١"])
def test_a_top_k_that_is_no_number_is_refused(value: str) -> None:
    with pytest.raises(ContractError, match="top_k is not a number of labels"):
        codec.decode_request(Message(b"", {**GOLDEN_REQUEST_1.headers, "top_k": value}))


@pytest.mark.parametrize(
    ("header", "value", "accepted"),
    [
        ("mode", "sketch", "auto, raw28, product, photo"),
        ("mode", "AUTO", "auto, raw28, product, photo"),
        ("explain", "everything", "input"),
    ],
)
def test_an_unknown_choice_is_refused_with_the_accepted_ones(header: str, value: str, accepted: str) -> None:
    with pytest.raises(ContractError, match=f"{header} '{value}' .*accepted: {accepted}$") as raised:
        codec.decode_request(Message(b"", {**GOLDEN_REQUEST_1.headers, header: value}))
    assert raised.value.code is ErrorCode.INVALID_REQUEST


@pytest.mark.parametrize(
    "partition",
    ["3", b"\x00\x00\x00\x03".decode("utf-8", "surrogateescape")],
    ids=["Nest: decimal text", "Spring: four bytes"],
)
def test_other_clients_names_are_understood_and_given_back(partition: str) -> None:
    spring_id = bytes(range(0x80, 0x90)).decode("utf-8", "surrogateescape")
    headers = {
        "kafka_correlationId": spring_id,
        "kafka_replyTopic": "predict.replies",
        "kafka_replyPartition": partition,
    }
    address = codec.return_address(Message(b"", headers))
    assert address.reply_to == "predict.replies/3"
    assert codec.encode_reply(REPLY_1, address).headers == {
        "schema": "1",
        "kafka_correlationId": spring_id,
        "frames": "1",
    }


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"sha256":1}',
        b'{"sha256":"","error":{"code":5,"detail":""}}',
        b'{"sha256":"","model":"m","input":"' + base64.b64encode(bytes(783)) + b'"}',
        b"\xff",
        b'{"sha256":"\xff"}',
        b'{"odd":' + b"[" * 100_000,
        b'{"sha256":"","probabilities":{"a":1.01}}',
        b'{"sha256":"","probabilities":{"a":-0.01}}',
        b'{"sha256":"","probabilities":{"a":1e999}}',
        b'{"sha256":"","probabilities":{"a":NaN}}',
        b'{"sha256":"","probabilities":{"a":null}}',
        b'{"sha256":"","outputs":[1e999]}',
        b'{"sha256":"","outputs":[NaN]}',
        b'{"sha256":"","outputs":[null]}',
        b'{"sha256":"","outputs":[' + 40_000 * b"0," + b"0]}",
        b'{"sha256":"","probabilities":{"' + 257 * b"a" + b'":0.5}}',
        b'{"sha256":"","probabilities":{"\\ud800":0.5}}',
        b'{"sha256":"","warnings":["' + 1001 * b"a" + b'"]}',
        b'{"sha256":"","warnings":[' + 32 * b'"",' + b'""]}',
        b'{"sha256":"","ood_score":-1e999}',
        b'{"sha256":"","mode":"' + 257 * b"a" + b'"}',
        b'{"sha256":"' + 65 * b"a" + b'"}',
        b'{"sha256":"","timings":{"queue_ms":-1,"batch_ms":0,"decode_ms":0,"infer_ms":0,"batch_size":1}}',
        b'{"sha256":"","timings":{"queue_ms":1e16,"batch_ms":0,"decode_ms":0,"infer_ms":0,"batch_size":1}}',
    ],
)
def test_a_broken_reply_is_an_error_not_a_crash(body: bytes) -> None:
    with pytest.raises(ContractError):
        codec.decode_reply(Message(body, {}))


PICTURE = b"a picture"
ITS_SHA256 = sha256_of(PICTURE)
PREDICTED = Reply(sha256=ITS_SHA256, model="m", probabilities={"a": 0.0, "b": 1.0, "c": 0.9})
FAILED = Failure(ErrorCode.INTERNAL, "")


def test_a_reply_to_a_picture_is_a_prediction_for_it_or_an_error() -> None:
    for reply in (PREDICTED, Reply(sha256=ITS_SHA256, error=FAILED), Reply(sha256="", error=FAILED)):
        assert codec.decode_prediction(codec.encode_reply(reply, ADDRESS), ITS_SHA256) == reply
    elsewhere = msgspec.structs.replace(PREDICTED, sha256=sha256_of(b"another"))
    assert codec.decode_prediction(codec.encode_reply(elsewhere, ADDRESS), None) == elsewhere


@pytest.mark.parametrize(
    "reply",
    [
        Reply(sha256="", model="x"),
        Reply(sha256=ITS_SHA256, model="m"),
        PING_1,
        msgspec.structs.replace(PREDICTED, sha256=sha256_of(b"another")),
        msgspec.structs.replace(PREDICTED, sha256=""),
        Reply(sha256=sha256_of(b"another"), error=FAILED),
        msgspec.structs.replace(
            PREDICTED, probabilities={f"label {number}": 0.0 for number in range(60_000)}
        ),
    ],
    ids=["no answer", "no probabilities", "pong", "another's", "nobody's", "another's error", "over 1 MiB"],
)
def test_anything_else_is_not_a_reply_to_the_picture(reply: Reply) -> None:
    with pytest.raises(ContractError):
        codec.decode_prediction(codec.encode_reply(reply, ADDRESS), ITS_SHA256)


def test_only_a_pong_answers_a_ping() -> None:
    assert codec.decode_pong(GOLDEN_PING_1) == PING_1
    for reply in (PREDICTED, Reply(sha256="", error=FAILED), Reply(sha256="")):
        with pytest.raises(ContractError):
            codec.decode_pong(codec.encode_reply(reply, ADDRESS))


def test_an_error_code_of_a_newer_worker_is_an_internal_error() -> None:
    newer = b'{"sha256":"","error":{"code":"out_of_paper","detail":"d"}}'
    assert codec.decode_reply(Message(newer, {})).error == Failure(ErrorCode.INTERNAL, "d")


@pytest.mark.parametrize(
    "body",
    [
        b"garbage",
        b"{}",
        b"[1]",
        b'["\xff"]',
        b"[" * 100_000,
        msgspec.json.encode(["a" * (MAX_CORRELATION_ID + 1)]),
        msgspec.json.encode(["a"] * (MAX_CANCELLED + 1)),
        b"[" + b" " * 600_000 + b"]",
    ],
)
def test_so_is_a_broken_cancellation(body: bytes) -> None:
    with pytest.raises(ContractError):
        codec.decode_cancellation(Message(body, {}))
