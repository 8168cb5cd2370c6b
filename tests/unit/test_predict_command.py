"""What the asking commands print, and which files they take."""

import json
import os
from pathlib import Path

import pytest

from messaging.broker import BrokerError, BrokerUnavailable
from mlaas.commands import aligned
from mlaas.commands.predict import (
    Answer,
    Arrivals,
    Listing,
    Stamp,
    answer,
    failures,
    json_line,
    look,
    named,
    row,
    table,
)
from mlaas.errors import UserError, broker_errors, of_gateway
from mlaas_client.errors import NotFound, Refused, Unavailable, of_problem

BAG = Answer("a/bag.png", {"label": "Bag", "confidence": 0.5, "warnings": ["blurred", "dark"]})
BOOT = Answer("boot.png", {"label": "Ankle boot", "confidence": 1.0, "warnings": []})
BAD = answer("bad.png", of_problem({"title": "Not a picture", "detail": "no", "status": 422}, 422))


def test_the_table_is_aligned_and_leaves_failures_out() -> None:
    assert list(table([BAG, BAD, BOOT])) == [
        "FILE       LABEL       CONFIDENCE  WARNINGS",
        "a/bag.png  Bag              50.0%  blurred; dark",
        "boot.png   Ankle boot      100.0%",
    ]


def test_without_any_answer_there_is_no_table() -> None:
    assert list(table([BAD])) == []


def test_a_row_of_a_stream_is_aligned_with_the_next() -> None:
    (first,), (second,) = row(BAG), row(BOOT)
    assert first.index("Bag") == second.index("Ankle boot")
    assert list(row(BAD)) == []


def test_a_json_line_has_the_file_and_what_the_gateway_said() -> None:
    assert json.loads(json_line(BAG)) == {"file": "a/bag.png", **(BAG.prediction or {})}
    failed = json.loads(json_line(BAD))
    assert (failed["file"], failed["problem"]["status"]) == ("bad.png", 422)


def test_a_failure_is_one_line_with_what_to_do() -> None:
    away = answer("x.png", Unavailable("No worker:\nnone"))
    assert list(failures([BAG, BAD, away])) == [
        "bad.png: Not a picture: no",
        "x.png: No worker: none; `mlaas doctor` names the missing part",
    ]


def test_a_file_name_cannot_move_the_cursor() -> None:
    evil = Answer("\x1b[2Jx.png\n", {"label": "Bag", "confidence": 0.5, "warnings": []})
    assert all("\x1b" not in line and "\n" not in line for line in table([evil]))
    assert "\\x1b[2Jx.png" in next(iter(row(evil)))


def test_a_hint_names_the_request_and_is_left_out_where_the_detail_says_it_all() -> None:
    problem = {"title": "T", "status": 500, "request_id": "r7"}
    assert str(of_gateway(of_problem(problem, 500))) == "T; see the gateway's log (request r7)"
    unknown = {"type": "urn:mlaas:problem:unknown-model", "title": "Unknown model", "detail": "served: a"}
    assert str(of_gateway(of_problem(unknown, 404))) == "Unknown model: served: a"
    assert str(of_gateway(NotFound("Not Found"))).startswith("Not Found; is this an mlaas gateway")
    assert str(of_gateway(Refused("two\nlines"))) == "two lines"


def test_a_broker_that_does_not_answer_has_a_hint_and_an_exit_status() -> None:
    for error, hint in ((BrokerUnavailable("away"), "away; is it running?"), (BrokerError("full"), "full")):
        with pytest.raises(UserError, match=hint) as caught, broker_errors():
            raise error
        assert caught.value.exit_code == os.EX_UNAVAILABLE


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert list(aligned([("A", "BB"), ("aaa", "b")])) == ["A    BB", "aaa  b"]


def test_a_folder_is_the_pictures_in_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is left out is said, but for hidden files and folders."""
    for name in ("b.PNG", "a.jpg", "d.jfif", "\x1b.txt", "photo.heic", ".DS_Store"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "c.png").mkdir()
    found = [Path(its.name).name for its in named([str(tmp_path), "nothing.png"])]
    assert found == ["a.jpg", "b.PNG", "d.jfif", "nothing.png"]
    assert capsys.readouterr().err == "skipped because of their extensions: \\x1b.txt, photo.heic\n"
    for number in range(5):
        (tmp_path / f"more-{number}.gif").write_bytes(b"x")
    assert len(list(named([str(tmp_path)]))) == 3
    assert capsys.readouterr().err.endswith("more-2.gif, more-3.gif and 2 more\n")


# Watching.

A, B = Path("a.png"), Path("b.png")


def listing(**sizes: int) -> Listing:
    return {Path(f"{name}.png"): Stamp(size, size) for name, size in sizes.items()}


def test_a_file_is_given_out_once_it_is_as_it_was_at_the_look_before() -> None:
    arrivals = Arrivals({})
    looks = [listing(a=1), listing(a=5), listing(a=9), listing(a=9), listing(a=9)]
    assert [arrivals.settled(its) for its in looks] == [[], [], [], [A], []]


def test_what_is_there_already_is_not_given_out_unless_it_changes() -> None:
    arrivals = Arrivals(listing(a=1))
    looks = [listing(a=1), listing(a=1, b=1), listing(a=2, b=1), listing(a=2, b=1)]
    assert [arrivals.settled(its) for its in looks] == [[], [], [B], [A]]


def test_an_empty_file_waits_for_its_content() -> None:
    arrivals = Arrivals({})
    assert [arrivals.settled(its) for its in [listing(a=0)] * 3] == [[], [], []]


def test_a_file_that_comes_again_is_new() -> None:
    arrivals = Arrivals(listing(a=1))
    looks = [listing(a=1), {}, listing(a=1), listing(a=1)]
    assert [arrivals.settled(its) for its in looks] == [[], [], [], [A]]


def test_what_could_not_be_asked_about_is_given_out_again() -> None:
    arrivals = Arrivals({})
    both = listing(a=1, b=1)
    assert [arrivals.settled(both), arrivals.settled(both)] == [[], [A, B]]
    arrivals.again([B])
    assert arrivals.settled(both) == [B]


def test_hidden_files_and_other_types_are_not_looked_at(tmp_path: Path) -> None:
    for name in ("a.png", ".b.png", "c.txt", "d.png.part"):
        (tmp_path / name).write_bytes(b"x")
    assert [path.name for path in look(tmp_path)] == ["a.png"]


@pytest.mark.parametrize("outcome", [BAG, BAD])
def test_every_json_line_is_one_line(outcome: Answer) -> None:
    assert "\n" not in json_line(outcome)
