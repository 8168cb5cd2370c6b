"""Log lines: one for each message, whoever chose what it says."""

import json
import logging

import pytest

from mlaas.settings import LogSettings, configure_logging

FORGED = "reply_to 'x\n12:00:00 ERROR   worker: all is lost\r\x1b[2K\udc80' is not allowed"


@pytest.fixture
def root_logger():
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    yield root
    root.handlers[:] = before
    root.setLevel(level)


@pytest.mark.parametrize("style", ["text", "json"])
def test_what_a_stranger_chose_starts_no_line_of_its_own(style, root_logger, capsys) -> None:
    configure_logging(LogSettings(level="info", format=style), "worker")
    logging.getLogger("mlaas.worker").warning("%s", FORGED)
    written = capsys.readouterr().err
    assert written.count("\n") == 1
    assert "\r" not in written
    assert "\x1b" not in written
    said = json.loads(written)["message"] if style == "json" else written
    assert "all is lost" in said


def test_a_traceback_keeps_its_lines(root_logger, capsys) -> None:
    configure_logging(LogSettings(level="info", format="text"), "worker")
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        logging.getLogger("mlaas.worker").exception("it failed")
    assert capsys.readouterr().err.count("\n") > 3
