from pathlib import Path

import msgspec
import pytest

from model import manifest as manifests
from model.manifest import ModelError, sha256, verify

WEIGHTS = Path("weights")


@pytest.fixture
def shipped():
    return manifests.read(WEIGHTS, "fashion-mnist")


def test_a_manifest_comes_back_as_it_was_written(tmp_path, shipped):
    manifests.write(tmp_path, shipped)
    assert manifests.read(tmp_path, shipped.name) == shipped


def test_the_shipped_manifest_belongs_to_the_shipped_files(shipped):
    assert verify(WEIGHTS / shipped.keras_file, shipped.keras_sha256)
    assert verify(WEIGHTS / shipped.onnx_file, shipped.onnx_sha256)
    assert shipped.has_current_export()


def test_the_shipped_files_are_small(shipped):
    assert (
        sum((WEIGHTS / name).stat().st_size for name in (shipped.keras_file, shipped.onnx_file)) < 3_000_000
    )


def test_a_missing_manifest_says_how_to_get_one(tmp_path):
    with pytest.raises(ModelError, match=r"other\.json cannot be read .* mlaas train"):
        manifests.read(tmp_path, "other")


@pytest.mark.parametrize("content", [b"", b"{}", b"\x80\x04N.", b"[1]", b"null"])
def test_what_is_not_a_manifest_is_refused(tmp_path, content):
    (tmp_path / "fashion-mnist.json").write_bytes(content)
    with pytest.raises(ModelError, match="is not a model's manifest"):
        manifests.read(tmp_path, "fashion-mnist")


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "", ".hidden"])
def test_a_manifest_cannot_point_outside_of_its_folder(tmp_path, shipped, name):
    manifests.write(tmp_path, msgspec.structs.replace(shipped, keras_file=name))
    with pytest.raises(ModelError, match="keras_file"):
        manifests.read(tmp_path, shipped.name)


def test_a_file_with_the_right_digest_is_handed_out(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"weights")
    assert verify(path, sha256(b"weights")) == b"weights"


def test_a_file_with_another_digest_is_refused(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"weightz")
    with pytest.raises(ModelError, match="is not the file that was trained"):
        verify(path, sha256(b"weights"))


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(ModelError, match="cannot be read"):
        verify(tmp_path / "file", sha256(b"weights"))
