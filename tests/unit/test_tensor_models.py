"""Models whose input is no picture: loaded from their folders, and served."""

import struct
from pathlib import Path

import msgspec
import numpy as np
import pytest

from messaging.contract import TENSOR, ErrorCode, Reply, ServedModel
from model import manifest as manifests
from model.adding import input_of
from model.classifier import load, predict_row
from model.inputs import RowError, from_bytes, from_json
from model.manifest import Golden, ModelError, TensorInput, sha256
from tests import second_model
from tests.image_models import write_colours
from tests.tensor_models import (
    LABELS,
    SETOSA,
    VIRGINICA,
    WEIGHTS,
    iris,
    row_of,
    write,
    write_iris,
    write_level,
    write_words,
)
from tests.unit.workers import SANDAL, SETTINGS, Running, label, worker

FOUR = TensorInput(shape=(4,), dtype="float32")


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max())
    return np.asarray(powers / powers.sum())


def test_the_softmax_of_the_logits_of_a_row_is_the_answer(tmp_path: Path) -> None:
    write_iris(tmp_path)
    classifier = load(tmp_path, "iris", "auto", 1)
    found = predict_row(from_json(row_of(SETOSA), classifier.manifest.input), classifier)
    expected = softmax(np.array(SETOSA, np.float32) @ WEIGHTS)
    assert next(iter(found.probabilities)) == "setosa"
    for name, probability in zip(LABELS, expected, strict=True):
        assert found.probabilities[name] == pytest.approx(probability, abs=1e-6)
    assert (found.outputs, found.mode, found.warnings) == ([], "tensor", [])


def test_a_model_without_labels_answers_with_its_numbers(tmp_path: Path) -> None:
    write_level(tmp_path)
    classifier = load(tmp_path, "level", "auto", 1)
    found = predict_row(np.full((24, 3), 4.84, np.float32), classifier)
    assert (found.probabilities, found.outputs) == ({}, [2.2])
    assert classifier.output_size == 1


def add_golden(folder: Path, content: bytes, **answer: object) -> None:
    (folder / "golden").mkdir()
    (folder / "golden" / "1.json").write_bytes(content)
    golden = Golden(file="golden/1.json", sha256=sha256(content), **answer)  # type: ignore[arg-type]
    second_model.change(folder, golden=(golden,))


def test_golden_rows_are_checked_before_a_model_is_served(tmp_path: Path) -> None:
    sound = float(softmax(np.array(SETOSA, np.float32) @ WEIGHTS)[0])
    add_golden(write_iris(tmp_path / "a"), row_of(SETOSA), label="setosa", probability=sound)
    load(tmp_path / "a", "iris", "auto", 1)
    add_golden(write_iris(tmp_path / "b"), row_of(VIRGINICA), label="setosa", probability=sound)
    with pytest.raises(ModelError, match=r"golden/1\.json is classified as virginica .* should be as setosa"):
        load(tmp_path / "b", "iris", "auto", 1)
    add_golden(write_iris(tmp_path / "c"), row_of(SETOSA[:3]), label="setosa", probability=sound)
    with pytest.raises(ModelError, match=r"1\.json: .* the row has the shape \[3\], not \[4\]"):
        load(tmp_path / "c", "iris", "auto", 1)
    window = row_of([[4.0] * 3] * 24)
    add_golden(write_level(tmp_path / "d"), window, numbers=(2.03,))
    load(tmp_path / "d", "level", "auto", 1)
    add_golden(write_level(tmp_path / "e"), window, numbers=(2.1,))
    with pytest.raises(ModelError, match=r"is answered by \[2\.0\], and should be by \[2\.1\]"):
        load(tmp_path / "e", "level", "auto", 1)


@pytest.mark.parametrize(
    ("content", "dtype", "says"),
    [
        (row_of([1, 2, 3]), "float32", r"the row has the shape \[3\], not \[4\]"),
        (row_of([[1, 2, 3, 4]]), "float32", r"the row has the shape \[1, 4\], not \[4\]"),
        (b'{"inputs": [[1, 2, 3, 4], [1, 2, 3, 4]]}', "float32", "more or less than one row"),
        (b'{"inputs": [[1, [2], 3, 4]]}', "float32", "differ in length"),
        (b'{"inputs": [[1, 2, 3, NaN]]}', "float32", "malformed"),
        (b'{"instances": [[1, 2, 3, 4]]}', "float32", "unknown field `instances`"),
        (row_of([1, 2, 3, 1e39]), "float32", "not one of float32"),
        (row_of([1, 2, 3, "4"]), "float32", "not one of float32"),
        (row_of([1, 2, 3, 4.5]), "int64", "not one of int64"),
        (row_of([1, 2, 3, 256]), "uint8", "not one of uint8"),
        (row_of([0, 1, 0, 2]), "bool", "not one of bool"),
        (b"\xff" * 100, "float32", r'takes 4 numbers \(float32\), as \{"inputs": \[row\]\}'),
        (b'{"inputs": ' + b"[" * 100_000, "float32", "the model takes"),
    ],
)
def test_what_is_not_the_row_of_a_model_is_named(content: bytes, dtype: str, says: str) -> None:
    with pytest.raises(RowError, match=says) as refused:
        from_json(content, TensorInput(shape=(4,), dtype=dtype))  # type: ignore[arg-type]
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int8", "int16", "int32", "int64", "uint8", "bool"])
def test_json_and_bytes_are_the_same_row(dtype: str) -> None:
    into = TensorInput(shape=(2, 2), dtype=dtype)  # type: ignore[arg-type]
    values = [[True, False], [False, True]] if dtype == "bool" else [[1, 0], [127, 3]]
    row = from_json(row_of(values), into)
    assert (row.dtype, row.tolist()) == (np.dtype(dtype), values)
    sent = row.astype(np.dtype(dtype).newbyteorder("<")).tobytes()
    again = from_bytes(sent, into)
    assert (again.dtype, again.tolist()) == (np.dtype(dtype), values)


@pytest.mark.parametrize(
    ("shape", "changes", "says"),
    [
        ((4,), {"labels": ()}, "has 0 labels for the output logits"),
        ((4,), {"output": "numbers"}, "has 3 labels for the output numbers"),
        ((3000, 3000), {}, "has an input of 9000000 numbers; at most 4194304"),
        ((1,) * 9, {}, r"length <= 8 - at `\$\.input\.shape`"),
        ((0,), {}, r">= 1 - at `\$\.input\.shape"),
    ],
)
def test_a_mistake_in_the_manifest_of_a_tensor_model_is_named(
    tmp_path: Path, shape: tuple[int, ...], changes: dict[str, object], says: str
) -> None:
    folder = write_iris(tmp_path)
    its = msgspec.structs.replace(manifests.read(folder), input=TensorInput(shape=shape, dtype="float32"))
    manifests.write(folder, msgspec.structs.replace(its, **changes))
    with pytest.raises(ModelError, match=says):
        manifests.read(folder)


def test_an_input_in_one_form_and_a_preprocessing_for_the_other_contradict_each_other(tmp_path: Path) -> None:
    numbers, pictures = write_iris(tmp_path), write_colours(tmp_path)
    its, others = manifests.read(numbers), manifests.read(pictures)
    manifests.write(numbers, msgspec.structs.replace(its, input=others.input))
    with pytest.raises(ModelError, match="has the preprocessing tensor, whose input has a shape"):
        manifests.read(numbers)
    manifests.write(pictures, msgspec.structs.replace(others, input=FOUR))
    with pytest.raises(ModelError, match="an input with a shape, which needs the preprocessing tensor"):
        manifests.read(pictures)


def test_a_network_of_another_width_than_its_manifest_says_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "wide", iris(), (5,), labels=LABELS, output="logits")
    with pytest.raises(ModelError, match=r"cannot run on an input of 5 float32; it takes \['n', 4\] tensor"):
        load(tmp_path, "wide", "auto", 1)


@pytest.mark.parametrize(
    ("shape", "dtype", "kind", "says"),
    [
        (["n"], "tensor(float)", None, "no axis besides that of the batch"),
        (["n", 3, None], "tensor(float)", None, "export the model with a fixed size"),
        (["n", 3], "tensor(string)", None, r"a tensor\(string\); float32, float64, int8, .* can be served"),
        (["n", 4], "tensor(float)", "image", "not that of pictures"),
        (["n", *[1] * 9], "tensor(float)", None, "length <= 8"),
    ],
)
def test_an_input_that_cannot_be_served_is_refused(
    shape: list[object], dtype: str, kind: str | None, says: str
) -> None:
    with pytest.raises(ModelError, match=says):
        input_of(shape, dtype, kind)


@pytest.mark.parametrize(
    ("shape", "dtype", "kind", "expected"),
    [
        (["n", 3, 96, 96], "tensor(float)", None, "96 x 96 RGB"),
        (["n", 28, 28], "tensor(uint8)", None, "28 x 28 grey"),
        (["n", 28, 28], "tensor(uint8)", "tensor", "28 x 28 numbers (uint8)"),
        (["n", 24, 3], "tensor(float)", None, "24 x 3 numbers (float32)"),
        (["n", 24, 3], "tensor(float)", "image", "24 high x 3 wide grey"),
        (["n", 3, 96, 96], "tensor(double)", None, "3 x 96 x 96 numbers (float64)"),
        ([None, 4], "tensor(int64)", None, "4 numbers (int64)"),
    ],
)
def test_an_input_is_pictures_if_it_looks_so_or_is_said_to_be(
    shape: list[object], dtype: str, kind: str | None, expected: str
) -> None:
    assert input_of(shape, dtype, kind).in_words == expected


def packed(*numbers: float) -> bytes:
    return struct.pack(f"<{len(numbers)}f", *numbers)


def refusal(reply: Reply) -> str:
    assert reply.error is not None
    assert reply.error.code is ErrorCode.INVALID_REQUEST
    return reply.error.detail


def test_a_worker_serves_rows_beside_pictures_and_a_bad_row_fails_alone(tmp_path: Path) -> None:
    second_model.copy_shipped(tmp_path)
    write_iris(tmp_path)
    write_level(tmp_path)
    write_words(tmp_path)
    write_colours(tmp_path)
    names = ("fashion-mnist", "iris", "level", "words", "colours")
    settings = msgspec.structs.replace(SETTINGS.model, names=names, weights_dir=str(tmp_path))
    reds = np.zeros((3, 96, 96), "<f4")
    reds[0] = 1

    def send(running: Running) -> None:
        def tensor(name: str, model: str, body: bytes, **more: object) -> None:
            running.send(name, body, model=model, content_type=TENSOR, **more)

        tensor("setosa", "iris", packed(*SETOSA))
        tensor("short", "iris", packed(1, 2, 3))
        tensor("nan", "iris", packed(1, 2, 3, float("nan")))
        tensor("virginica", "iris", packed(*VIRGINICA))
        tensor("level", "level", packed(*[9.0] * 72))
        tensor("negative", "level", packed(*[-9.0] * 72))
        tensor("words", "words", struct.pack("<3q", 1, 2, 4))
        tensor("no word", "words", struct.pack("<3q", 1, 2, 99))
        tensor("red", "colours", reds.tobytes())
        tensor("like a JPEG", "iris", b"\xff\xd8\xff\xe0" + packed(1, 2, 3))
        tensor("mode", "iris", packed(*SETOSA), mode="photo")
        tensor("explain", "iris", packed(*SETOSA), explain="input")
        running.send("picture", SANDAL, model="iris")
        running.send("sandal", SANDAL)

    with worker(before=send, model=settings) as running:
        replies = running.replies(14)
        with running.model.serving() as its:
            served = {model.name: model for model in its.roster.described()}
        starts = running.model.starts
    assert label(replies["setosa"]) == "setosa"
    assert label(replies["virginica"]) == "virginica"
    assert (replies["setosa"].mode, replies["setosa"].outputs) == ("tensor", [])
    assert replies["setosa"].timings is not None
    assert replies["setosa"].timings.batch_size > 1
    assert (replies["level"].probabilities, replies["level"].outputs) == ({}, [3.0])
    assert replies["words"].outputs == [0.875, 70.0]
    assert label(replies["red"]) == "red"
    assert label(replies["sandal"]) == "Sandal"
    assert refusal(replies["short"]) == "the model takes 4 numbers (float32): 16 bytes, not 12"
    assert "NaN and infinity are not among them" in refusal(replies["nan"])
    assert refusal(replies["negative"]) == "the model's answer to these numbers is not finite"
    assert "idx=99 must be within" in refusal(replies["no word"])
    assert replies["like a JPEG"].probabilities
    for name in ("mode", "explain"):
        assert refusal(replies[name]).startswith("mode and explain are for pictures; iris gets")
    assert refusal(replies["picture"]) == (
        'iris takes 4 numbers (float32), not pictures: send {"inputs": [row]} as JSON'
    )
    assert starts == 1
    assert served["level"] == ServedModel(
        name="level",
        version="1.0.0",
        runtime="onnx",
        kind="tensor",
        input="24 x 3 numbers (float32)",
        shape=(24, 3),
        output="numbers",
        dtype="float32",
        output_size=1,
        sha256=served["level"].sha256,
        versions=served["level"].versions,
    )
    assert (served["colours"].kind, served["colours"].shape) == ("image", (3, 96, 96))
    assert (served["fashion-mnist"].kind, served["fashion-mnist"].output_size) == ("garment", 10)
