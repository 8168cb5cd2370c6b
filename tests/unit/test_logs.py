"""Log lines: one for each message and one for each answer, whoever chose what they say."""

import asyncio
import itertools
import json
import logging
import os
import sys
import threading
from typing import Any

import pytest

from gateway.api_keys import digest_of
from gateway.metrics import AccessLog
from gateway.middleware import log_fields
from mlaas.settings import LogSettings, configure_logging, load
from model import manifest as manifests
from tests import second_model
from tests.fragile_model import FLOOD, RAISE
from tests.unit.gateways import PNG, SANDAL, gateway, sandal
from worker.model_process import ModelDied, ModelProcess
from worker.pipe import Picture, Role, StandardError

pytestmark = pytest.mark.anyio


FORGED = "reply_to 'x\n12:00:00 ERROR   worker: all is lost\r\x1b[2K\udc80' is not allowed"


def of_answers(caplog) -> list[logging.LogRecord]:
    """Lines of the access log, without what other loggers say at the same level."""
    return [record for record in caplog.records if record.name == "mlaas.access"]


@pytest.fixture
def root_logger():
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    hooks = sys.excepthook, threading.excepthook
    yield root
    sys.excepthook, threading.excepthook = hooks
    logging.captureWarnings(False)
    root.handlers[:] = before
    root.setLevel(level)


@pytest.mark.parametrize("style", ["text", "json"])
def test_what_a_stranger_chose_starts_no_line_of_its_own(style, root_logger, capsys) -> None:
    configure_logging(LogSettings(level="info", format=style, access_lines_per_s=100), "worker")
    logging.getLogger("mlaas.worker").warning("%s", FORGED)
    written = capsys.readouterr().err
    assert written.count("\n") == 1
    assert "\r" not in written
    assert "\x1b" not in written
    said = json.loads(written)["message"] if style == "json" else written
    assert "all is lost" in said


def test_a_traceback_keeps_its_lines(root_logger, capsys) -> None:
    configure_logging(LogSettings(level="info", format="text", access_lines_per_s=100), "worker")
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        logging.getLogger("mlaas.worker").exception("it failed")
    assert capsys.readouterr().err.count("\n") > 3


def test_what_nobody_handles_is_one_line_of_json_too(root_logger, capsys) -> None:
    configure_logging(LogSettings(level="info", format="json", access_lines_per_s=100), "worker")
    thread = threading.Thread(target=lambda: 1 / 0)
    thread.start()
    thread.join()
    try:
        raise ValueError("first\nsecond")
    except ValueError as error:
        sys.excepthook(ValueError, error, error.__traceback__)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["message"] for line in lines] == [
        "not handled: division by zero",
        "not handled: first\nsecond",
    ]
    assert all(line["exception"].startswith("Traceback") for line in lines)


def test_a_message_is_bounded(root_logger, capsys) -> None:
    configure_logging(LogSettings(level="info", format="text", access_lines_per_s=100), "worker")
    logging.getLogger("mlaas.worker").warning("%s", "x" * 1_000_000)
    written = capsys.readouterr().err
    assert len(written) < 5_000
    assert "… and 996000 more characters" in written


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/a b", 'path="/a b"'),
        ('/" status=500', r'path="/\" status=500"'),
        ("/\n12:00:00 ERROR all is lost", r'path="/\n12:00:00 ERROR all is lost"'),
        ("/\x1b[2K\x7f\u2028", r'path="/\u001b[2K\x7f\u2028"'),
        ("/" + 5_000 * "x", f"path=/{99 * 'x'}…"),
    ],
)
def test_a_path_that_a_stranger_chose_is_one_quoted_value(path: str, shown: str, root_logger, capsys) -> None:
    configure_logging(LogSettings(level="info", format="text", access_lines_per_s=100), "gateway")
    write(AccessLog(1), scope(path=path))
    written = capsys.readouterr().err
    assert written.count("\n") == 1 and written.endswith("\n")
    assert f" answered method=GET {shown} status=404 ms=1.5 bytes_in=0 bytes_out=7\n" in written


def test_a_line_of_json_has_the_same_names_always(root_logger, capsys) -> None:
    configure_logging(LogSettings(level="info", format="json", access_lines_per_s=100), "gateway-1")
    write(AccessLog(1), scope(path="/\n\u2028", model="m" * 300))
    line = json.loads(capsys.readouterr().err)
    assert line.pop("timestamp")
    assert line == {
        "level": "info",
        "process": "gateway-1",
        "logger": "mlaas.access",
        "message": "answered",
        "method": "GET",
        "route": "",
        "path": "/\n\u2028",
        "status": 404,
        "ms": 1.5,
        "bytes_in": 0,
        "bytes_out": 7,
        "request_id": "",
        "trace_id": "",
        "key": "",
        "model": 100 * "m" + "…",
    }


def lines_after(text: bytes, capsys, clock=lambda: 0.0) -> list[str]:
    """The lines in the log of what a process writes before it ends."""
    configure_logging(LogSettings(level="info", format="json", access_lines_per_s=100), "worker-1")
    theirs, ours = os.pipe()
    error = StandardError(Role.MODEL, os.fdopen(theirs, "rb", buffering=0), clock)
    with open(ours, "wb") as process:
        process.write(text)
    error.wait(60)
    return [json.loads(line)["message"] for line in capsys.readouterr().err.splitlines()]


def test_what_a_library_writes_to_standard_error_is_lines_of_the_log(root_logger, capsys) -> None:
    written = b"\x1b[0;93m[W:onnxruntime] no GPU\x1b[m\n\n  \n\xff\nwithout an end"
    assert lines_after(written, capsys) == [
        "the model process wrote: [W:onnxruntime] no GPU",
        "the model process wrote: \\xff",
        "the model process wrote: without an end",
    ]


def test_of_a_flood_some_lines_are_logged_and_the_others_counted(root_logger, capsys) -> None:
    *some, last = lines_after(b"again\n" * 1_000, capsys)
    assert some == ["the model process wrote: again"] * 100
    assert last == "the model process wrote 900 more lines"


def test_after_a_while_there_is_room_again(root_logger, capsys) -> None:
    times = itertools.chain([0.0] * 102, itertools.repeat(10.0))
    lines = lines_after(b"again\n" * 103, capsys, lambda: next(times))
    assert lines[100:] == ["the model process wrote: again (after 2 lines that are left out)"]


def test_a_line_without_an_end_is_bounded(root_logger, capsys) -> None:
    lines = lines_after(b"x" * 10_000_000, capsys)
    assert len(lines) == 101
    assert all(len(line) < 5_000 for line in lines)


def decode(*marks: bytes) -> None:
    """Has a process decode a picture with each mark. Raises ModelDied."""
    model, preparation = load(None, {}).model, manifests.read(second_model.SHIPPED).preparation
    module = "tests.fragile_model"
    process = ModelProcess(model, timeout_s=60, start_timeout_s=60, role=Role.DECODER, module=module)
    try:
        for mark in marks:
            decoded = process.decode(Picture(SANDAL + mark, ("", ""), "auto", False, 60.0, preparation))
            assert decoded.prepared is not None
    finally:
        process.close()


@pytest.mark.parametrize("style", ["text", "json"])
def test_a_process_that_floods_standard_error_goes_on_and_forges_no_line(style, root_logger, capsys) -> None:
    configure_logging(LogSettings(level="info", format=style, access_lines_per_s=100), "worker-1")
    decode(FLOOD, b"")
    written = capsys.readouterr().err
    assert "\r" not in written and "\x1b" not in written
    lines = written.splitlines()
    assert 100 < len(lines) < 1_000
    assert all("worker-1" in line and "the decoder process wrote" in line for line in lines)
    assert "more lines" in lines[-1]


def test_the_last_words_of_a_process_are_logged_before_its_end_is_known(root_logger, capsys) -> None:
    configure_logging(LogSettings(level="info", format="json", access_lines_per_s=100), "worker-1")
    with pytest.raises(ModelDied):
        decode(RAISE)
    lines = [json.loads(line)["message"] for line in capsys.readouterr().err.splitlines()]
    assert lines[0] == "the decoder process wrote: Traceback (most recent call last):"
    assert lines[-1] == "the decoder process wrote: RuntimeError: a defect in the model's code"


async def test_a_busy_second_has_so_many_lines_and_says_how_many_are_missing(caplog) -> None:
    now = 10.0
    log = AccessLog(3, clock=lambda: now)
    with caplog.at_level(logging.INFO, "mlaas.access"):
        assert [log.has_room(200) for _ in range(5)] == [True, True, True, False, False]
        assert [log.has_room(503) for _ in range(4)] == [True, True, True, False]
        now = 11.0
        assert log.has_room(200)
        log.say_left_out()
    assert [record.fields for record in of_answers(caplog)] == [{"left_out": 3}]


async def test_the_missing_are_said_even_if_nothing_comes_after_them(caplog) -> None:
    log = AccessLog(1)
    with caplog.at_level(logging.INFO, "mlaas.access"):
        assert [log.has_room(200) for _ in range(3)] == [True, False, False]
        async with asyncio.timeout(30):
            while not of_answers(caplog):
                await asyncio.sleep(0.05)
    assert [record.fields for record in of_answers(caplog)] == [{"left_out": 2}]


async def test_an_answer_is_one_line_with_what_is_known_of_it(tmp_path, caplog) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"phone-app {digest_of('secret-key')}\n")
    trace = f"00-{32 * 'a'}-{16 * 'b'}-01"
    headers = {**PNG, "X-API-Key": "secret-key", "X-Request-ID": "mine", "traceparent": trace}
    with caplog.at_level(logging.INFO, "mlaas.access"):
        async with gateway(sandal, access_log=AccessLog(100), api_keys_file=str(keys)) as http:
            answer = await http.post("/predict", content=SANDAL, headers=headers)
            await http.get("/health/ready")
            await http.get("/metrics")
            await http.head("/models", headers={"X-API-Key": "secret-key"})
            await http.get("/models", headers={"X-API-Key": "wrong"})
    lines = [record.fields for record in of_answers(caplog)]
    assert [(line["method"], line["route"], line["status"]) for line in lines] == [
        ("POST", "/predict", 200),
        ("HEAD", "/models", 200),
        ("GET", "", 401),
    ]
    assert lines[0].pop("ms") > 0
    assert lines[0] == {
        "method": "POST",
        "route": "/predict",
        "path": "",
        "status": 200,
        "bytes_in": len(SANDAL),
        "bytes_out": len(answer.content),
        "request_id": "mine",
        "trace_id": 32 * "a",
        "key": "phone-app",
        "model": "fashion-mnist",
    }
    assert lines[1]["bytes_out"] == 0
    assert "secret-key" not in caplog.text and "wrong" not in str(lines)


def scope(path: str, **state: str) -> dict[str, Any]:
    return {"type": "http", "path": path, "state": state}


def write(log: AccessLog, its: dict[str, Any]) -> None:
    log.write(log_fields(its, "GET", 404, 0.0015, bytes_in=0, bytes_out=7))
