"""What the asking commands print, and which files they take."""

import csv
import json
import os
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from PIL import Image, ImageOps

from messaging.broker import BrokerError, BrokerUnavailable
from mlaas.cli import command
from mlaas.commands import Answer, aligned, csv_lines, failures, json_line, percent, table
from mlaas.commands.predict import Chooser, Served, answer, named
from mlaas.commands.watch import Arrivals, Listing, Stamp, look, row
from mlaas.errors import UserError, broker_errors, of_gateway
from mlaas_client.errors import NotFound, Refused, Unavailable, of_problem
from tests import image_models, tensor_models

BAG = Answer("a/bag.png", {"label": "Bag", "confidence": 0.5, "warnings": ["blurred", "dark"]})
BOOT = Answer("boot.png", {"label": "Ankle boot", "confidence": 1.0, "warnings": []})
BAD = answer("bad.png", of_problem({"title": "Not a picture", "detail": "no", "status": 422}, 422))


def test_the_table_is_aligned_and_leaves_failures_out() -> None:
    assert list(table([BAG, BAD, BOOT])) == [
        "FILE       LABEL       CONFIDENCE  WARNINGS",
        "a/bag.png  Bag              50.0%  blurred; dark",
        "boot.png   Ankle boot      100.0%",
    ]


def test_the_table_names_the_models_where_there_are_several() -> None:
    several = [
        its._replace(prediction={**(its.prediction or {}), "model": model})
        for its, model in ((BAG, "one"), (BOOT, "other"))
    ]
    assert list(table(several)) == [
        "FILE       LABEL       CONFIDENCE  MODEL  WARNINGS",
        "a/bag.png  Bag              50.0%  one    blurred; dark",
        "boot.png   Ankle boot      100.0%  other",
    ]
    assert "one" in next(iter(row(several[0])))


def test_numbers_stand_in_place_of_the_label() -> None:
    several = {"label": None, "confidence": None, "outputs": [2.03, 1e-7, 3.0, 4.0, 5.0]}
    assert list(table([Answer("row.json", several)])) == [
        "FILE      LABEL                 CONFIDENCE  WARNINGS",
        "row.json  2.03, 1e-07, 3, 4, …",
    ]


@pytest.fixture
def local(tmp_path: Path) -> Any:
    """Asks a model of numbers, without a gateway, about files with these contents."""
    tensor_models.write_iris(tmp_path)
    tensor_models.write_level(tmp_path)
    image_models.write_colours(tmp_path)

    def run(model: str, name: str, content: bytes) -> Any:
        path = tmp_path / name
        path.write_bytes(content)
        given = ["--set", f"model.weights_dir={tmp_path}", "predict", "--local", "--model", model, str(path)]
        return CliRunner().invoke(command, given)

    return run


def test_a_row_in_a_file_is_answered_without_a_gateway(local: Any) -> None:
    labelled = json.loads(local("iris", "row.json", tensor_models.row_of(tensor_models.SETOSA)).stdout)
    assert (labelled["label"], labelled["mode"], labelled["model"]) == ("setosa", "tensor", "iris")
    assert "outputs" not in labelled
    window = json.loads(local("level", "row.json", tensor_models.row_of([[4.0] * 3] * 24)).stdout)
    assert (window["label"], window["confidence"], window["outputs"]) == (None, None, [2.0])


@pytest.mark.parametrize(
    ("model", "name", "content", "says"),
    [
        ("iris", "row.json", tensor_models.row_of([1, 2]), "the row has the shape [2], not [4]"),
        ("iris", "row.json", b"{", "the model takes 4 numbers (float32)"),
        ("level", "row.json", tensor_models.row_of([[-1.0] * 3] * 24), "not finite"),
        ("colours", "row.json", tensor_models.row_of([1, 2]), "colours takes pictures, and this is JSON"),
        ("iris", "bag.png", b"any", "iris takes 4 numbers (float32), not pictures"),
    ],
)
def test_a_file_that_does_not_suit_the_model_is_refused(
    local: Any, model: str, name: str, content: bytes, says: str
) -> None:
    done = local(model, name, content)
    assert done.exit_code == 1
    assert says in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_without_any_answer_there_is_no_table() -> None:
    assert list(table([BAD])) == []


def test_the_table_has_as_many_labels_as_asked_for() -> None:
    shares = {"Bag": 0.5, "Shirt": 0.3, "Coat": 0.2}
    both = [BAG._replace(prediction={**(BAG.prediction or {}), "probabilities": shares}), BOOT]
    assert list(table(both, top_k=2)) == [
        "FILE       LABEL       CONFIDENCE  WARNINGS",
        "a/bag.png  Bag              50.0%  blurred; dark",
        "           Shirt            30.0%",
        "boot.png   Ankle boot      100.0%",
    ]


def test_csv_has_a_line_for_each_file_with_its_labels_or_error() -> None:
    shares = {"Bag": 0.5, "Shirt": 0.3, "Coat": 0.2}
    its = {**(BAG.prediction or {}), "probabilities": shares, "model": "one", "version": "1.0.0"}
    quoted = BAG._replace(name='a,"b".png', prediction=its)
    assert list(csv.DictReader(csv_lines([quoted, BAD], top_k=3))) == [
        {
            "file": 'a,"b".png',
            "label": "Bag",
            "confidence": "0.5",
            "label_2": "Shirt",
            "confidence_2": "0.3",
            "label_3": "Coat",
            "confidence_3": "0.2",
            "model": "one",
            "version": "1.0.0",
            "warnings": "blurred; dark",
            "error": "",
        },
        {
            "file": "bad.png",
            **dict.fromkeys(
                ("label", "confidence", "label_2", "confidence_2", "label_3", "confidence_3"), ""
            ),
            "model": "",
            "version": "",
            "warnings": "",
            "error": "Not a picture: no",
        },
    ]


@pytest.mark.parametrize(
    ("share", "said"),
    [(1.0, "100.0%"), (0.99997, "99.9%"), (0.886, "88.6%"), (0.0004, "0.0%"), (0.29, "29.0%")],
)
def test_only_certainty_is_a_hundred_percent(share: float, said: str) -> None:
    assert percent(share) == said


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
    for error, hint in (
        (BrokerUnavailable("away"), "away; is the broker running?"),
        (BrokerError("full"), "full"),
    ):
        with pytest.raises(UserError, match=hint) as caught, broker_errors():
            raise error
        assert caught.value.exit_code == os.EX_UNAVAILABLE


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert list(aligned([("A", "BB"), ("aaa", "b")])) == ["A    BB", "aaa  b"]


def test_a_folder_is_the_pictures_in_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is left out is said, but for what is hidden."""
    for name in ("b.PNG", "a.jpg", "d.jfif", "\x1b.txt", "photo.jxl", "e.HEIC", ".DS_Store"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "c.png").mkdir()
    found = [Path(its.name).name for its in named([str(tmp_path), "nothing.png"])]
    assert found == ["a.jpg", "b.PNG", "d.jfif", "e.HEIC", "nothing.png"]
    assert capsys.readouterr().err == (
        "skipped because of their extensions: \\x1b.txt, photo.jxl\n"
        "skipped because they are folders; name them to classify what is in them: c.png\n"
    )
    for number in range(5):
        (tmp_path / f"more-{number}.xcf").write_bytes(b"x")
    assert len(list(named([str(tmp_path)]))) == 4
    assert "more-2.xcf, more-3.xcf and 2 more\n" in capsys.readouterr().err


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


# Choosing a model.

SAMPLES = Path(__file__).parents[2] / "samples"
BOTH = Served("fashion-mnist", kind="garment", names=["fashion-mnist", "clothing-photo"])


def png(image: Image.Image) -> bytes:
    written = BytesIO()
    image.save(written, "PNG")
    return written.getvalue()


def square(colour: Any, mode: str = "RGB") -> bytes:
    """200 x 200, black at the border."""
    image = Image.new(mode, (200, 200))
    image.paste(colour, (40, 40, 160, 160))
    return png(image)


SANDAL = Image.open(SAMPLES / "sandal.png")


@pytest.mark.parametrize(
    ("picture", "model"),
    [
        *((path, "fashion-mnist") for path in sorted(SAMPLES.glob("*.png"))),
        *((path, "clothing-photo") for path in sorted(SAMPLES.glob("*.jpg"))),
        (png(SANDAL.resize((280, 280))), "fashion-mnist"),
        (png(SANDAL.resize((280, 280)).convert("RGB")), "fashion-mnist"),
        (png(SANDAL.resize((280, 200))), "clothing-photo"),
        (png(Image.new("RGB", (28, 28), "red")), "fashion-mnist"),
        (square("grey"), "fashion-mnist"),
        (square("red"), "clothing-photo"),
        (png(ImageOps.invert(SANDAL).resize((280, 280))), "clothing-photo"),
        (b"no picture", "fashion-mnist"),
        (Path("no-such.png"), "fashion-mnist"),
    ],
    ids=lambda given: given.name if isinstance(given, Path) else None,
)
def test_auto_sends_to_the_default_model_what_is_like_the_data_set(picture: Any, model: str) -> None:
    assert Chooser("auto", lambda: BOTH)(picture) == model


def test_auto_is_the_default_model_where_there_is_nothing_to_choose() -> None:
    photo = SAMPLES / "photo-dress.jpg"
    assert Chooser("auto", lambda: BOTH._replace(names=["fashion-mnist"]))(photo) == "fashion-mnist"
    flowers = Served("flowers", kind="image", names=["flowers", "clothing-photo"])
    assert Chooser("auto", lambda: flowers)(photo) == "flowers"


def test_what_is_served_matters_to_auto_alone_and_is_asked_again_after_an_error() -> None:
    answers: list[Served | Unavailable] = [Unavailable("no worker"), BOTH]

    def look_it_up() -> Served:
        found = answers.pop(0)
        if isinstance(found, Unavailable):
            raise found
        return found

    assert Chooser(None, look_it_up)(SAMPLES / "bag.png") is None
    assert Chooser("flowers", look_it_up)(SAMPLES / "bag.png") == "flowers"
    choose = Chooser("auto", look_it_up)
    with pytest.raises(Unavailable):
        choose(SAMPLES / "bag.png")
    assert choose(SAMPLES / "bag.png") == "fashion-mnist"
    assert choose(SAMPLES / "photo-dress.jpg") == "clothing-photo"
    assert answers == []


def test_locally_auto_takes_the_model_that_suits_each_picture() -> None:
    names = "model.names=[fashion-mnist, clothing-photo]"
    files = [str(SAMPLES / name) for name in ("photo-dress.jpg", "bag.png", "photo-t-shirt.jpg")]
    done = CliRunner().invoke(command, ["--set", names, "predict", "--local", "--model", "auto", *files])
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(its["model"], its["label"]) for its in found] == [
        ("clothing-photo", "dress"),
        ("fashion-mnist", "Bag"),
        ("clothing-photo", "t-shirt"),
    ]
    assert min(its["confidence"] for its in found) > 0.9
    refused = CliRunner().invoke(command, ["predict", "--model", "auto", "--mode", "photo", files[0]])
    assert (refused.exit_code, "name it with --model" in refused.stderr) == (2, True)
