from pathlib import Path

import msgspec
import pytest
import yaml

from model import manifest as manifests
from model.classifier import load
from model.manifest import ModelError, sha256, verify
from tests import second_model
from tests.second_model import SHIPPED


@pytest.fixture
def shipped():
    return manifests.read(SHIPPED)


@pytest.fixture
def folder(tmp_path):
    """A copy of the shipped model."""
    return second_model.copy_shipped(tmp_path)


def edit(folder, change):
    path = folder / manifests.FILE
    tree = yaml.safe_load(path.read_text())
    change(tree)
    path.write_text(yaml.safe_dump(tree))


def test_a_manifest_comes_back_as_it_was_written(folder, shipped):
    manifests.write(folder, shipped)
    assert manifests.read(folder) == shipped


def test_every_shipped_file_is_the_one_that_the_manifest_names(shipped):
    files = list(shipped.files())
    assert {"model.keras", "model.onnx", "detector.npz", "golden/bag.png"} < {file.file for file in files}
    for file in files:
        verify(SHIPPED / file.file, file.sha256)
    assert shipped.current_export == shipped.onnx


@pytest.mark.parametrize("name", manifests.names(second_model.WEIGHTS))
def test_every_shipped_model_can_be_served_and_has_golden_pictures(name):
    classifier = load(second_model.WEIGHTS, name, "onnx", 1)
    assert classifier.manifest.golden
    for file in classifier.manifest.files():
        verify(classifier.folder / file.file, file.sha256)


def test_the_shipped_files_are_small(shipped):
    assert sum((SHIPPED / file.file).stat().st_size for file in shipped.files()) < 3_000_000


def test_an_export_of_other_weights_is_not_current(shipped):
    stale = msgspec.structs.replace(shipped.onnx, exported_from="0" * 64)
    assert msgspec.structs.replace(shipped, onnx=stale).current_export is None
    assert msgspec.structs.replace(shipped, onnx=stale, keras=None).current_export == stale


@pytest.mark.parametrize(
    ("layout", "shape"), [("NHW", (28, 28)), ("NHWC", (28, 28, 1)), ("NCHW", (1, 28, 28))]
)
def test_the_layout_gives_the_shape_of_one_picture(shipped, layout, shape):
    assert msgspec.structs.replace(shipped.input, layout=layout).shape == shape


def test_the_latest_version_is_the_one_of_the_highest_numbers(tmp_path):
    for version in ("1.9.0", "1.10.0", "1.2.0"):
        folder = tmp_path / "flowers" / version
        folder.mkdir(parents=True)
        (folder / manifests.FILE).touch()
    (tmp_path / "flowers" / "2.0.0").mkdir()  # without a manifest: a copy that is not complete
    assert manifests.versions(tmp_path, "flowers") == ["1.2.0", "1.9.0", "1.10.0"]
    assert manifests.folder(tmp_path, "flowers").name == "1.10.0"
    assert manifests.folder(tmp_path, "flowers", "1.2.0").name == "1.2.0"
    with pytest.raises(ModelError, match=r"no 3/model\.yaml; there are 1\.2\.0, 1\.9\.0, 1\.10\.0"):
        manifests.folder(tmp_path, "flowers", "3")


def test_a_model_that_does_not_exist_is_named(tmp_path):
    with pytest.raises(ModelError, match=r"other has no <version>/model\.yaml, .*; models there: none"):
        manifests.folder(tmp_path, "other")


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", b"\x80\x04N.", b"[1]", b"null", b"a: [", b"!!python/object:os.system {}", 999 * b"["],
)
def test_what_is_not_a_manifest_is_refused_in_one_line(folder, content):
    (folder / manifests.FILE).write_bytes(content)
    with pytest.raises(ModelError, match=r"model\.yaml is not the manifest of a model") as refused:
        manifests.read(folder)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"name: it\nversion: [1\n", "line 3: while parsing a flow sequence, expected ',' or ']', but got"),
        (b"name: \0", "special characters are not allowed at position 6"),
    ],
)
def test_what_is_not_yaml_is_told_by_its_place(folder, content, says):
    (folder / manifests.FILE).write_bytes(content)
    with pytest.raises(ModelError) as refused:
        manifests.read(folder)
    assert says in str(refused.value)
    assert "byte string" not in str(refused.value)


def test_a_manifest_of_unreasonable_size_is_refused(folder):
    with (folder / manifests.FILE).open("ab") as file:
        file.write(b"#" * manifests.MAX_BYTES)
    with pytest.raises(ModelError, match="larger than"):
        manifests.read(folder)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda tree: tree.update(lables=[]), "unknown field `lables`"),
        (lambda tree: tree.pop("labels"), "has 0 labels for the output probabilities"),
        (
            lambda tree: tree.update(labels=[0, 1]),
            r"Expected `str`, got `int` - at `\$.labels.*; put it in quotes",
        ),
        (lambda tree: tree.update(version="v2"), r"\$.version"),
        (lambda tree: tree["preprocessing"].update(kind="imag"), "docs/models.md lists the fields"),
        (lambda tree: tree["input"].update(layout="NHCW"), r"NHCW.*\$.input.layout"),
        (lambda tree: tree["input"].update(height=0), r">= 1.*\$.input.height"),
        (lambda tree: tree.update(version="1.5.0"), r"describes fashion-mnist/1\.5\.0"),
        (lambda tree: [tree.pop(key) for key in ("keras", "onnx")], "neither a keras nor an onnx file"),
        (lambda tree: tree["labels"].append("Bag"), "the same label twice"),
        (lambda tree: tree["input"].update(channels=3), "no place for 3 channels"),
        (lambda tree: tree["preprocessing"].update(kind="image", scale="0..1", resize="fit"), "needs 0..255"),
        (lambda tree: tree["preprocessing"].update(kind="python"), r"python.*\$.preprocessing"),
        (
            lambda tree: (
                tree["input"].update(dtype="float32"),
                tree["preprocessing"].update(kind="image", scale="0..1", resize="fit", mean=[0.5, 0.5]),
            ),
            "2 numbers in mean for 1 channels",
        ),
    ],
)
def test_a_mistake_in_a_manifest_is_named(folder, change, complaint):
    edit(folder, change)
    with pytest.raises(ModelError, match=complaint):
        manifests.read(folder)


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "", ".hidden", "golden/../model.onnx"])
def test_a_manifest_cannot_point_outside_of_its_folder(folder, name):
    for change in (
        lambda tree: tree["keras"].update(file=name),
        lambda tree: tree["golden"][0].update(file=name),
    ):
        second_model.change(folder)
        edit(folder, change)
        with pytest.raises(ModelError, match=r"\.file"):
            manifests.read(folder)
        manifests.write(folder, manifests.read(SHIPPED))


def test_a_file_with_the_right_digest_is_handed_out(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"weights")
    assert verify(path, sha256(b"weights")) == b"weights"


def test_a_file_with_another_digest_is_refused(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"weightz")
    with pytest.raises(ModelError, match="is not the file that its manifest names"):
        verify(path, sha256(b"weights"))


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ModelError, match="cannot be read"):
        verify(Path(tmp_path, "file"), sha256(b"weights"))
